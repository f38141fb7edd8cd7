"""Pictures of sequences: contact sheets, GIF and MP4 animations.

Letters: N sequences, T frames, H x W canvas. Frames are uint8 (N, T, H, W), in colour
(N, T, H, W, 3).
"""

import importlib
import io
import math
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from mmgen.errors import InputError, MmgenError
from mmgen.overlay import Drawing, Overlay
from mmgen.shard.manifest import partial_of, write_atomic

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


def show(frames: ArrayLike | Any) -> Image.Image:
    """Return a contact sheet, which a notebook displays: a row a sequence, frames left to right.

    frames  (H, W), (T, H, W) or (N, T, H, W), each with or without a last axis of 3 colours, uint8
            or float in [0, 1]; or anything that has such `frames`: a Block of `mmgen.render`, a
            Sequence of `mmgen.open`
    """
    return _contact_sheet(_Tiles(_as_block(getattr(frames, "frames", frames)), _SHEET_TILE_PX))[0]


def write_picture(
    path: Path,
    frames: NDArray[np.uint8],
    overlay: Overlay | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write frames as what the name's ending says: a contact sheet (.png) or an animation.

    overlay  what to draw over them; nothing if None
    progress  is told of sequences done: of an animation a part of them with every frame
    returns  1 if every frame is shown, n if a contact sheet has room for one frame in n only
    raises   InputError as `check_picture` does, or if the picture would be absurdly large
    """
    check_picture(path)
    kind = path.suffix.lower()
    if kind == ".png":
        plain = overlay is None
        tiles = _Tiles(frames, _SHEET_TILE_PX if plain else _TILE_PX, overlay)
        sheet, step = _contact_sheet(tiles, progress)
        write_png(path, sheet)
        return step
    pictures = _instants(_Tiles(frames, _TILE_PX, overlay), progress)
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
    taken = f"-f rawvideo -pix_fmt rgb24 -s {first.width}x{first.height} -r {_FRAMES_PER_S} -i -"
    given = "-c:v libx264 -crf 16 -pix_fmt yuv420p -movflags +faststart -f mp4"
    command = [_find_ffmpeg(path), "-v", "error", "-y", *taken.split(), *given.split()]
    with partial_of(path) as partial:
        process = subprocess.Popen(
            [*command, f"file:{partial}"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it has given up, and says why
                process.stdin.write(first.tobytes())
                for picture in pictures:
                    process.stdin.write(_even(picture).tobytes())
            complaint = " ".join(process.communicate()[1].decode(errors="replace").split())
        except BaseException:  # an interrupt too
            process.kill()
            process.communicate()  # it must have ended before its file is taken away
            raise
        if process.returncode:
            raise MmgenError(f"{path}: could not be written (ffmpeg: {complaint})")


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
        self.factor: int = max(1, min(target_px // height, _WIDTH_PX // width))
        self.width: int = width * self.factor
        self.height: int = height * self.factor
        self.truth = Drawing(overlay, (height, width), self.factor) if overlay else None

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


def _contact_sheet(
    tiles: _Tiles, progress: Callable[[int], None] = lambda _: None
) -> tuple[Image.Image, int]:
    """Lay frames out, a row a sequence; return the picture and of how many frames it shows one."""
    step = math.ceil(tiles.num_frames / (_SHEET_LINES * tiles.fitting()))
    shown = range(0, tiles.num_frames, step)
    num_lines = math.ceil(len(shown) / tiles.fitting())
    columns = math.ceil(len(shown) / num_lines)
    rows = []
    for n in range(tiles.num_sequences):
        rows.append(_arranged([tiles.tile(n, t) for t in shown], columns))
        progress(1)
    return _arranged(rows, 1, _GAP_PX if num_lines == 1 else _GROUP_GAP_PX), step


def _instants(tiles: _Tiles, progress: Callable[[int], None]) -> Iterator[Image.Image]:
    """Yield a picture a frame, the sequences side by side; many of them in several lines."""
    count = tiles.num_sequences
    columns = min(count, max(tiles.fitting(), math.ceil(math.sqrt(count))))
    for t in range(tiles.num_frames):
        yield _arranged([tiles.tile(n, t) for n in range(count)], columns)
        done, before = count * (t + 1) // tiles.num_frames, count * t // tiles.num_frames
        progress(done - before)  # when the next is asked for: this one is encoded, too


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
