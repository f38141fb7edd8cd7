"""Pictures of sequences: contact sheets, GIF and MP4 animations, the ground truth drawn over them.

Letters: N sequences, T frames, K digits, H x W canvas. Frames are uint8 (N, T, H, W), in colour
(N, T, H, W, 3).
"""

import importlib
import io
import math
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mmgen.errors import InputError, MmgenError, ShardError
from mmgen.shard import schema
from mmgen.shard.manifest import replace_durably, write_atomic

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from mmgen.shard.reader import Sequence as Stored
    from mmgen.shard.reader import Split

KINDS = (".gif", ".png", ".mp4")

_TILE_PX = 192  # small canvases are enlarged to about this height
_SHEET_TILE_PX = 64  # the same on a contact sheet, unless something is drawn over the frames
_WIDTH_PX = 2000  # wider than this, pictures go on in the next line
_SHEET_LINES = 2  # longer than this, a contact sheet leaves frames out
_MAX_SIDE_PX = 16_384  # what H.264 encoders take; a larger picture opens nowhere
_GAP_PX = 4
_GROUP_GAP_PX = 16
_GAP_GREY = 64
_FRAMES_PER_S = 10
_FONT_PX = 13
_DRAWN = ("label", "position", "box", "bounced")
# Told apart on black, on grey and from each other, with common colour blindness too.
_COLORS = (
    (255, 165, 0),
    (64, 190, 255),
    (255, 110, 200),
    (110, 230, 90),
    (255, 240, 90),
    (185, 145, 255),
    (255, 95, 75),
    (60, 225, 205),
)


@dataclass(frozen=True)
class Overlay:
    """The ground truth to draw over the frames of N sequences, as `mmgen/shard/FORMAT.md` has it.

    label     int16 (N, K), -1: no such digit      position  float32 (N, T, K, 2), NaN: absent
    box       int16 (N, T, K, 4), -1: none         bounced   bool (N, T, K)
    wraps     whether a digit that leaves at one edge comes in at the other
    """

    label: NDArray[np.int16]
    position: NDArray[np.float32]
    box: NDArray[np.int16]
    bounced: NDArray[np.bool_]
    wraps: bool = False


def stored_overlay(split: "Split", sequences: "Iterable[Stored]") -> Overlay:
    """Gather what is drawn over sequences that were read from a split.

    raises  InputError if the set has no such ground truth, ShardError if its shapes do not hold
    """
    gathered: dict[str, list[NDArray[Any]]] = {field: [] for field in _DRAWN}
    for sequence in sequences:
        for name, values in gathered.items():
            value = getattr(sequence, name)
            if value is None or sequence.label is None:
                raise InputError(
                    f"{split.root}: has no {name} of its digits, so there is nothing to overlay"
                )
            expected = schema.ANNOTATIONS[name].shape(len(sequence.frames), len(sequence.label))
            if value.shape != expected:
                raise ShardError(
                    f"{split.root}: {name} of {split.name} sequence {sequence.index} has shape "
                    f"{value.shape}, expected is {expected}"
                )
            values.append(value)
    wraps = (split.manifest.config or {}).get("motion") == "wrap"
    return Overlay(**{name: np.stack(values) for name, values in gathered.items()}, wraps=wraps)


def show(frames: "ArrayLike | Any") -> Image.Image:
    """Return a contact sheet, which a notebook displays: a row a sequence, frames left to right.

    frames  (H, W), (T, H, W) or (N, T, H, W), each with or without a last axis of 3 colours, uint8
            or float in [0, 1]; or anything that has such `frames`: a Block of `mmgen.render`, a
            Sequence of `mmgen.open`
    """
    return _contact_sheet(_Tiles(_as_block(getattr(frames, "frames", frames)), _SHEET_TILE_PX))[0]


def write_picture(path: Path, frames: NDArray[np.uint8], overlay: Overlay | None = None) -> int:
    """Write frames as what the name's ending says: a contact sheet (.png) or an animation.

    overlay  what to draw over them; nothing if None
    returns  1 if every frame is shown, n if a contact sheet has room for one frame in n only
    raises   InputError as `check_picture` does, or if the picture would be absurdly large
    """
    check_picture(path)
    kind = path.suffix.lower()
    if kind == ".png":
        plain = overlay is None
        tiles = _Tiles(frames, _SHEET_TILE_PX if plain else _TILE_PX, overlay)
        sheet, step = _contact_sheet(tiles)
        write_png(path, sheet)
        return step
    pictures = _instants(_Tiles(frames, _TILE_PX, overlay))
    (_write_gif if kind == ".gif" else _write_mp4)(path, pictures)
    return 1


def check_picture(path: Path, kinds: Sequence[str] = KINDS) -> None:
    """Refuse a name that no picture of these kinds can be written to, before the work."""
    if path.suffix.lower() not in kinds:
        *others, last = kinds
        endings = f"{', '.join(others)} or {last}" if others else last
        raise InputError(f"{path}: unknown kind of picture; end the name in {endings}")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: is no folder; make it first")
    if path.suffix.lower() == ".mp4":
        _find_ffmpeg(path)


def write_png(path: Path, picture: Image.Image) -> None:
    """Write a PNG whose final name means complete."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())


def _write_gif(path: Path, pictures: Iterator[Image.Image]) -> None:
    buffer = io.BytesIO()
    next(pictures).save(
        buffer,
        "GIF",
        save_all=True,
        append_images=pictures,
        duration=1000 // _FRAMES_PER_S,
        loop=0,
    )
    write_atomic(path, buffer.getvalue())


def _write_mp4(path: Path, pictures: Iterator[Image.Image]) -> None:
    """Encode what every player takes: H.264, yuv420p and so even sides, the index at the front."""
    first = _even(next(pictures))
    partial = path.with_name(path.name + schema.PARTIAL_SUFFIX)
    taken = f"-f rawvideo -pix_fmt rgb24 -s {first.width}x{first.height} -r {_FRAMES_PER_S} -i -"
    given = "-c:v libx264 -crf 16 -pix_fmt yuv420p -movflags +faststart -f mp4"
    words = ["-v", "error", "-y", *taken.split(), *given.split(), f"file:{partial}"]
    with subprocess.Popen(
        [_find_ffmpeg(path), *words], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has given up, and says why
            process.stdin.write(first.tobytes())
            for picture in pictures:
                process.stdin.write(_even(picture).tobytes())
        complaint = " ".join(process.communicate()[1].decode(errors="replace").split())
    if process.returncode:
        partial.unlink(missing_ok=True)
        raise MmgenError(f"{path}: could not be written (ffmpeg: {complaint})")
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    replace_durably(partial, path)


def _even(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    return picture.convert("RGB").crop((0, 0, width + width % 2, height + height % 2))


def _find_ffmpeg(path: Path) -> str:
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:  # not installed; installed without its program
        raise InputError(
            f'{path}: MP4 needs ffmpeg; pip install "moving-mnist[video]", or end the name in .gif'
        ) from error


def _as_block(frames: Any) -> NDArray[np.uint8]:
    array = np.asarray(frames)
    if np.issubdtype(array.dtype, np.integer):
        array = array.clip(0, 255).astype(np.uint8)
    else:
        array = (np.clip(array, 0, 1) * 255).round().astype(np.uint8)
    num_axes = 5 if array.ndim > 2 and array.shape[-1] == 3 else 4
    if not num_axes - 2 <= array.ndim <= num_axes or 0 in array.shape:
        raise InputError(
            f"frames of shape {array.shape}; show takes (H, W) to (N, T, H, W), or these and 3"
        )
    return array.reshape((1,) * (num_axes - array.ndim) + array.shape)


class _Tiles:
    """Frames enlarged to a picture each, with the ground truth drawn over them if it is given."""

    def __init__(
        self, frames: NDArray[np.uint8], target_px: int, overlay: Overlay | None = None
    ) -> None:
        self.frames = frames
        self.num_sequences, self.num_frames = frames.shape[:2]
        height, width = frames.shape[2:4]
        self.factor: int = max(1, target_px // height)
        self.width: int = width * self.factor
        self.height: int = height * self.factor
        self.truth = _Truth(overlay, (height, width), self.factor) if overlay else None

    def fitting(self) -> int:
        """Return how many stand side by side in a picture of ordinary width."""
        return max(1, (_WIDTH_PX + _GAP_PX) // (self.width + _GAP_PX))

    def tile(self, n: int, t: int) -> Image.Image:
        """Return frame t of sequence n."""
        picture = Image.fromarray(self.frames[n, t])
        picture = picture.resize((self.width, self.height), Image.Resampling.NEAREST)
        if self.truth is not None:
            picture = picture.convert("RGB")
            self.truth.draw(ImageDraw.Draw(picture), n, t)
        return picture


def _contact_sheet(tiles: _Tiles) -> tuple[Image.Image, int]:
    """Lay frames out, a row a sequence; return the picture and of how many frames it shows one."""
    step = math.ceil(tiles.num_frames / (_SHEET_LINES * tiles.fitting()))
    shown = range(0, tiles.num_frames, step)
    num_lines = math.ceil(len(shown) / tiles.fitting())
    columns = math.ceil(len(shown) / num_lines)
    rows = (
        _arranged([tiles.tile(n, t) for t in shown], columns) for n in range(tiles.num_sequences)
    )
    return _arranged(list(rows), 1, _GAP_PX if num_lines == 1 else _GROUP_GAP_PX), step


def _instants(tiles: _Tiles) -> Iterator[Image.Image]:
    """Yield a picture a frame, the sequences side by side; many of them in several lines."""
    count = tiles.num_sequences
    columns = min(count, max(tiles.fitting(), math.ceil(math.sqrt(count))))
    for t in range(tiles.num_frames):
        yield _arranged([tiles.tile(n, t) for n in range(count)], columns)


def _arranged(pictures: Sequence[Image.Image], columns: int, gap_px: int = _GAP_PX) -> Image.Image:
    """Place pictures of one size in lines of so many columns."""
    width, height = pictures[0].size
    num_lines = math.ceil(len(pictures) / columns)
    sides = columns * (width + gap_px) - gap_px, num_lines * (height + gap_px) - gap_px
    if max(sides) > _MAX_SIDE_PX:
        raise InputError(
            f"a picture of {sides[0]}x{sides[1]} px is too large, allowed are {_MAX_SIDE_PX} a "
            "side; ask for fewer sequences"
        )
    grey = _GAP_GREY if pictures[0].mode == "L" else (_GAP_GREY,) * 3
    whole = Image.new(pictures[0].mode, sides, grey)
    for place, picture in enumerate(pictures):
        line, column = divmod(place, columns)
        whole.paste(picture, (column * (width + gap_px), line * (height + gap_px)))
    return whole


class _Truth:
    """Draws boxes, labels, trajectories and bounces on frames enlarged by `factor`."""

    def __init__(self, overlay: Overlay, canvas: tuple[int, ...], factor: int) -> None:
        self.overlay = overlay
        self.canvas = np.array(canvas)
        self.factor = factor
        self.centre = _centres(overlay, self.canvas)
        self.font = ImageFont.load_default(_FONT_PX)

    def draw(self, draw: ImageDraw.ImageDraw, n: int, t: int) -> None:
        """Draw what frame t of sequence n holds; an absent digit leaves nothing."""
        is_there = ~np.isnan(self.overlay.position[n, t, :, 0])
        for k in np.flatnonzero(is_there).tolist():
            color = _color(k)
            self._draw_trajectory(draw, self.centre[n, : t + 1, k], color)
            for centre in self.centre[n, : t + 1, k][self.overlay.bounced[n, : t + 1, k]]:
                self._draw_circle(draw, centre, 4, outline=color)
            self._draw_circle(draw, self.centre[n, t, k], 2, fill=color)
        with_box = np.flatnonzero(is_there & (self.overlay.box[n, t, :, 0] >= 0)).tolist()
        for draw_part in (self._draw_box, self._draw_label):  # no box across another's label
            for k in with_box:
                y0, x0, y1, x1 = (self.overlay.box[n, t, k].astype(int) * self.factor).tolist()
                draw_part(draw, (y0, x0, y1, x1), k, self.overlay.label[n, k])

    def _draw_trajectory(
        self, draw: ImageDraw.ImageDraw, path: NDArray[np.float64], color: tuple[int, int, int]
    ) -> None:
        path = path[~np.isnan(path[:, 0])]
        jumps = (np.abs(np.diff(path, axis=0)) > self.canvas / 2).any(-1) & self.overlay.wraps
        for part in np.split(path, np.flatnonzero(jumps) + 1):
            points = [(x * self.factor, y * self.factor) for y, x in part.tolist()]
            draw.line(points, fill=tuple(value * 5 // 8 for value in color))

    def _draw_circle(
        self, draw: ImageDraw.ImageDraw, centre: NDArray[np.float64], radius: int, **colors: Any
    ) -> None:
        y, x = (centre * self.factor).tolist()
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), **colors)

    def _draw_box(
        self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], k: int, _label: int
    ) -> None:
        """Draw a box just outside the ink."""
        height, width = (self.canvas * self.factor).tolist()
        y0, x0, y1, x1 = box
        outside = max(0, x0 - 1), max(0, y0 - 1), min(width - 1, x1), min(height - 1, y1)
        draw.rectangle(outside, outline=_color(k))

    def _draw_label(
        self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], k: int, label: int
    ) -> None:
        """Write a label where there is room: above the box, below or inside it."""
        height, width = (self.canvas * self.factor).tolist()
        y0, x0, y1, x1 = box
        text_px = math.ceil(self.font.getlength(str(label)))
        # Digits that lie on each other would write on each other too: every other one is right.
        left = min(max(1, x0), width - text_px - 1) if k % 2 == 0 else max(1, x1 - text_px)
        above, below = y0 - _FONT_PX - 4, y1 + 1
        top = above if above >= 0 else below if below + _FONT_PX + 3 <= height else y0 + 1
        outlined: dict[str, Any] = {"stroke_width": 1, "stroke_fill": "black"}
        draw.text((left, top), str(label), fill=_color(k), font=self.font, **outlined)


def _color(k: int) -> tuple[int, int, int]:
    return _COLORS[k % len(_COLORS)]


def _centres(overlay: Overlay, canvas: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return where the middle of each digit's ink goes, (y, x) in px, float64 (N, T, K, 2).

    A box is cut off at the edges, so its own middle would not leave the canvas. The position plus
    its usual distance to the middle of a whole box does, and keeps the form of the trajectory.
    """
    low, high = overlay.box[..., :2].astype(float), overlay.box[..., 2:].astype(float)
    distance = (low + high) / 2 - overlay.position
    has_box = overlay.box[..., 0] >= 0
    is_whole = has_box & (low > 0).all(-1) & (high < canvas).all(-1)
    centre = overlay.position.astype(float)
    for n, k in np.ndindex(overlay.label.shape):
        for usable in (is_whole[n, :, k], has_box[n, :, k]):
            if usable.any():
                centre[n, :, k] += np.median(distance[n, usable, k], axis=0)
                break
    return centre % canvas if overlay.wraps else centre
