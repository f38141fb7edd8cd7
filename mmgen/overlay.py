"""The ground truth drawn over frames: boxes, labels, trajectories and bounces.

Letters: N sequences, T frames, K digits, H x W canvas.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

from mmgen.errors import InputError, ShardError
from mmgen.motions import is_torus
from mmgen.truth import check_truth

if TYPE_CHECKING:
    from mmgen.shard.reader import Sequence, Split

_FONT_PX = 13
_FAR_PX = 1 << 15  # farther out nothing is drawn: Pillow walks along every pixel of a line
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


def stored_overlay(split: "Split", sequences: "Iterable[Sequence]") -> Overlay:
    """Gather what is drawn over sequences that were read from a split.

    raises  InputError if the set has no such ground truth, ShardError if it does not hold
    """
    gathered: dict[str, list[NDArray[Any]]] = {field: [] for field in _DRAWN}
    for sequence in sequences:
        for name, values in gathered.items():
            value = getattr(sequence, name)
            if value is None:
                raise InputError(
                    f"{split.address}: has no {name} of its digits, so there is nothing to overlay"
                )
            values.append(value)
        truth = {name: np.asarray(values[-1])[None] for name, values in gathered.items()}
        sizes = 1, len(sequence.frames)
        check_truth(truth, sizes, f"{split.address}, {split.name}", sequence.index)
    if len({label.shape for label in gathered["label"]}) > 1:
        raise ShardError(f"{split.address}: shards of {split.name} differ in digits per sequence")
    wraps = is_torus((split.manifest.config or {}).get("motion"))
    return Overlay(**{name: np.stack(values) for name, values in gathered.items()}, wraps=wraps)


class Drawing:
    """Draws boxes, labels, trajectories and bounces on frames enlarged by `factor`."""

    def __init__(self, overlay: Overlay, canvas: tuple[int, ...], factor: int) -> None:
        self.overlay = overlay
        self.canvas = np.array(canvas)
        self.factor = factor
        self.centre = _centres(overlay, self.canvas)
        self.box = _unrolled(overlay, self.canvas)
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
        for draw_part in (self._draw_box, self._draw_label):  # no box across another's label
            for k in np.flatnonzero(self._is_seen(self.box[n, t])).tolist():
                y0, x0, y1, x1 = (self.box[n, t, k] * self.factor).tolist()
                draw_part(draw, (y0, x0, y1, x1), k, self.overlay.label[n, k])

    def _is_seen(self, box: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell the boxes (K, 4) of which something lies on the canvas; -1, no box, does not."""
        (y0, x0, y1, x1), (height, width) = box.T, self.canvas
        seen: NDArray[np.bool_] = (y1 > 0) & (y0 < height) & (x1 > 0) & (x0 < width)
        return seen

    def _draw_trajectory(
        self, draw: ImageDraw.ImageDraw, path: NDArray[np.float64], color: tuple[int, int, int]
    ) -> None:
        path = path[~np.isnan(path[:, 0])]
        jumps = (np.abs(np.diff(path, axis=0)) > self.canvas / 2).any(-1) & self.overlay.wraps
        for start, end in zip(path[:-1][~jumps], path[1:][~jumps], strict=True):
            points = _nearby_part(start * self.factor, end * self.factor)
            draw.line([(x, y) for y, x in points], fill=tuple(value * 5 // 8 for value in color))

    def _draw_circle(
        self, draw: ImageDraw.ImageDraw, centre: NDArray[np.float64], radius: int, **colors: Any
    ) -> None:
        y, x = (centre * self.factor).tolist()
        if max(abs(y), abs(x)) < _FAR_PX:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), **colors)

    def _draw_box(
        self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], k: int, _label: int
    ) -> None:
        """Draw a box just outside the ink, open where it goes on at the other edge."""
        ends: list[list[tuple[int, int]]] = []
        for low, high, side in zip(box[:2], box[2:], self.canvas * self.factor, strict=True):
            if self.overlay.wraps and high > side:
                ends.append([(low - 1, high), (low - 1 - side, high - side)])
            else:
                ends.append([(max(0, low - 1), min(side - 1, high))])
        for (y0, y1), (x0, x1) in itertools.product(*ends):
            draw.rectangle((x0, y0, x1, y1), outline=_color(k))

    def _draw_label(
        self, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], k: int, label: int
    ) -> None:
        """Write a label where there is room: above the box, below or inside it."""
        height, width = (self.canvas * self.factor).tolist()
        (y0, y1), (x0, x1) = (
            _larger_part(low, high, side)
            for low, high, side in zip(box[:2], box[2:], (height, width), strict=True)
        )
        text_px = math.ceil(self.font.getlength(str(label)))
        # Digits that lie on each other would write on each other too: every other one is right.
        left = min(max(1, x0), width - text_px - 1) if k % 2 == 0 else max(1, x1 - text_px)
        above, below = y0 - _FONT_PX - 4, y1 + 1
        top = above if above >= 0 else below if below + _FONT_PX + 3 <= height else y0 + 1
        outlined: dict[str, Any] = {"stroke_width": 1, "stroke_fill": "black"}
        draw.text((left, top), str(label), fill=_color(k), font=self.font, **outlined)


def _color(k: int) -> tuple[int, int, int]:
    return _COLORS[k % len(_COLORS)]


def _larger_part(low: int, high: int, side: int) -> tuple[int, int]:
    """Return where most of [low, high) is seen on a canvas that it may go round."""
    here, there = (max(0, low), min(high, side)), (0, high - side)
    return max(here, there, key=lambda part: part[1] - part[0])


def _nearby_part(start: NDArray[np.float64], end: NDArray[np.float64]) -> list[list[float]]:
    """Return the part of a line that lies within _FAR_PX of the origin; [] if none does."""
    way = end - start
    with np.errstate(divide="ignore", invalid="ignore"):  # along an axis, or no way at all
        meets = np.sort([(-_FAR_PX - start) / way, (_FAR_PX - start) / way], axis=0)
    first, last = max(0.0, np.nanmax(meets[0])), min(1.0, np.nanmin(meets[1]))
    if first > last:
        return []
    return [(start + first * way).tolist(), (start + last * way).tolist()]


def _unrolled(overlay: Overlay, canvas: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the boxes, int64 (N, T, K, 4); one that goes on at the other edge ends past the edge.

    On a torus the tight box of such ink spans the canvas. How large the digit is, and where it lies
    about its position, is as in the nearest frame in which it spans less.
    """
    box = overlay.box.astype(np.int64)
    if not overlay.wraps:
        return box
    for n, k, axis in np.ndindex(*overlay.label.shape, 2):
        low, high = box[n, :, k, axis], box[n, :, k, axis + 2]
        position, side = overlay.position[n, :, k, axis].astype(float), int(canvas[axis])
        spans = (low == 0) & (high == side)
        whole = np.flatnonzero((low >= 0) & ~spans)
        for t in np.flatnonzero(spans) if whole.size else ():
            near = whole[abs(whole - t).argmin()]
            start = round(position[t] - position[near] + low[near]) % side
            end = start + high[near] - low[near]
            if end > side:
                low[t], high[t] = start, end
    return box


def _centres(overlay: Overlay, canvas: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return where the middle of each digit's ink goes, (y, x) in px, float64 (N, T, K, 2).

    A box is cut off at the edges, so its own middle would not leave the canvas. The position plus
    its usual distance to the middle of a whole box does, and keeps the form of the trajectory.
    """
    low, high = overlay.box[..., :2].astype(float), overlay.box[..., 2:].astype(float)
    distance = (low + high) / 2 - overlay.position
    if overlay.wraps:  # the short way: a position may lie before an edge, its ink behind
        distance = (distance + canvas / 2) % canvas - canvas / 2
    has_box = overlay.box[..., 2] > overlay.box[..., 0]
    is_whole = has_box & (low > 0).all(-1) & (high < canvas).all(-1)
    centre = overlay.position.astype(float)
    for n, k in np.ndindex(overlay.label.shape):
        for usable in (is_whole[n, :, k], has_box[n, :, k]):
            if usable.any():
                centre[n, :, k] += np.median(distance[n, usable, k], axis=0)
                break
    return centre % canvas if overlay.wraps else centre
