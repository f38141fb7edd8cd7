"""Glyphs as a config wants them: resized, cropped, and laid out for the painters.

Letters: G glyphs of a split, h x w the largest patch, m and n pixels before and after resizing.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from mmgen.config import GeneratorConfig
from mmgen.errors import InputError
from mmgen.glyphs import GlyphSet
from mmgen.kernels import paint
from mmgen.kernels.lanes import LANES

# As MovingMNIST++ (HKO-7) crops digits.
FAINTEST_CROPPED_INK = 5
MAX_RESIZED_BYTES = 1 << 31
_WEIGHT_BITS = 22
_RESIZED_AT_A_TIME = 4096


@dataclass(frozen=True, eq=False)
class Patches:
    """The bitmaps that the digits of a split are painted from; all arrays are read-only by habit.

    first   number in the whole set of the first glyph here
    images  uint8 (G, h, w), each patch at the top left     size  int32 (G, 2), its height and width
    pool    int32 (P,), which of them the config's classes allow
    """

    first: int
    images: NDArray[np.uint8]
    size: NDArray[np.int32]
    pool: NDArray[np.int32]

    @cached_property
    def num_ink(self) -> NDArray[np.int32]:
        """Number of pixels with ink of each patch, int32 (G,)."""
        num_ink: NDArray[np.int32] = (self.images > 0).sum(axis=(1, 2), dtype=np.int32)
        return num_ink

    @cached_property
    def ink_box(self) -> NDArray[np.int32]:
        """Tight box of each patch's ink, int32 (G, 4): y0, x0, y1, x1, half open; 0 if none."""
        return _box(self.images > 0)

    @cached_property
    def bordered(self) -> NDArray[np.uint8]:
        """The bitmaps with a border of one px without ink, uint8 (G, h + 2, w + 2).

        There is more memory behind the last of them: the painter reads whole vectors.
        """
        num_glyphs, height, width = self.images.shape
        shape = num_glyphs, height + 2, width + 2
        room = np.zeros(math.prod(shape) + 2 * LANES, np.uint8)
        bordered = room[: math.prod(shape)].reshape(shape)
        bordered[:, 1:-1, 1:-1] = self.images
        return bordered

    @cached_property
    def packed(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The rows of each ink box, and where each glyph's begin: see `kernels/paint.py`."""
        num_rows = (self.ink_box[:, 2] - self.ink_box[:, 0]).astype(np.int64)
        offset = np.zeros(len(self.images), np.int64)
        np.cumsum((num_rows[:-1] + 1) * LANES, out=offset[1:])
        offset += LANES
        packed = np.zeros(offset[-1] + (num_rows[-1] + 1) * LANES, np.uint8)
        paint.pack_rows(self.images, self.ink_box, offset, packed)
        return packed, offset


@lru_cache(maxsize=8)
def make_patches(
    glyphs: GlyphSet, split: str, classes: str, size: tuple[int, int] | None, crop: str
) -> Patches:
    """Make the patches of a split.

    classes, size, crop  as in GeneratorConfig
    raises               InputError if a class has no glyph in the split
    """
    first, last = glyphs.splits[split]
    images, labels = glyphs.images[first:last], glyphs.labels[first:last]
    pool = np.arange(len(images), dtype=np.int32)
    if classes != "all":
        wanted = [int(label) for label in classes.split(",")]
        pool = np.flatnonzero(np.isin(labels, wanted)).astype(np.int32)
        if absent := sorted(set(wanted) - set(labels.tolist())):
            there = ", ".join(str(label) for label in np.unique(labels))
            raise InputError(
                f"classes: {absent[0]} is no label of {glyphs.name}, split {split}; labels are "
                f"{there}"
            )
    if size is not None and size != images.shape[1:]:
        num_bytes = len(images) * size[0] * size[1]
        if num_bytes > MAX_RESIZED_BYTES:
            raise InputError(
                f"glyph_size: {size[0]}x{size[1]} makes {num_bytes} bytes of the {len(images)} "
                f"glyphs of split {split}, allowed are {MAX_RESIZED_BYTES}; lower it"
            )
        images = resize(images, size)
    patch = np.tile(np.array(images.shape[1:], np.int32), (len(images), 1))
    if crop == "tight":
        images, patch = _cropped(images)
    return Patches(first, np.ascontiguousarray(images), patch, pool)


def _cropped(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    box = _box(images > FAINTEST_CROPPED_INK)
    height, width = images.shape[1:]
    is_blank = box[:, 2] == box[:, 0]
    box[is_blank] = (0, 0, height, width)
    patch = box[:, 2:] - box[:, :2]
    cropped = np.zeros((len(images), *patch.max(0)), np.uint8)
    for image, (top, left, bottom, right), target in zip(images, box, cropped, strict=True):
        target[: bottom - top, : right - left] = image[top:bottom, left:right]
    return cropped, patch


def _box(has_ink: NDArray[np.bool_]) -> NDArray[np.int32]:
    sides = []
    for axis in (2, 1):
        lit = np.any(has_ink, axis=axis)
        sides.append((lit.argmax(1), lit.shape[1] - lit[:, ::-1].argmax(1)))
    (top, bottom), (left, right) = sides
    box = np.stack([top, left, bottom, right], 1).astype(np.int32)
    box[~has_ink.any((1, 2))] = 0
    return box


def resize(images: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize bitmaps by Pillow's bilinear filter, in exact integer arithmetic.

    images   uint8 (G, h, w)       size  (h, w) wanted
    returns  uint8 (G, *size); Pillow may differ by one where it goes along y first
    """
    across = _resize_weights(images.shape[2], size[1])
    down = _resize_weights(images.shape[1], size[0])
    resized = np.empty((len(images), *size), np.uint8)
    for first in range(0, len(images), _RESIZED_AT_A_TIME):
        part = images[first : first + _RESIZED_AT_A_TIME]
        wide = _weighted(part.reshape(-1, part.shape[2]), across)
        tall = wide.reshape(len(part), part.shape[1], size[1]).swapaxes(1, 2)
        done = _weighted(tall.reshape(-1, part.shape[1]), down)
        turned = done.reshape(len(part), size[1], size[0])
        resized[first : first + len(part)] = turned.swapaxes(1, 2)
    return resized


def _weighted(rows: NDArray[np.uint8], weights: NDArray[np.float64]) -> NDArray[np.uint8]:
    # Whole numbers below 2**53 in float64: any order of summation, BLAS's too, is exact.
    total = rows.astype(np.float64) @ weights + float(1 << (_WEIGHT_BITS - 1))
    return (total.astype(np.int64) >> _WEIGHT_BITS).clip(0, 255).astype(np.uint8)


def _resize_weights(num_before: int, num_after: int) -> NDArray[np.float64]:
    """Return whole-number weights (m, n) of a triangle filter, widened where it shrinks."""
    factor = num_before / num_after
    reach = max(factor, 1.0)
    weights = np.zeros((num_before, num_after))
    for i in range(num_after):
        centre = (i + 0.5) * factor
        first = max(0, int(centre - reach + 0.5))
        last = min(num_before, int(centre + reach + 0.5))
        row = [max(0.0, 1.0 - abs((j - centre + 0.5) / reach)) for j in range(first, last)]
        total = sum(row)
        weights[first:last, i] = [
            math.floor(weight / total * (1 << _WEIGHT_BITS) + 0.5) for weight in row
        ]
    return weights


def check_canvas(config: GeneratorConfig, size: tuple[int, int]) -> None:
    """Refuse a canvas that is smaller than a glyph of that size, with an InputError."""
    if size[0] > config.canvas[0] or size[1] > config.canvas[1]:
        raise InputError(
            f"canvas: {config.canvas[0]}x{config.canvas[1]} is smaller than a glyph of "
            f"{size[0]}x{size[1]}; enlarge canvas"
        )


def check_room(config: GeneratorConfig, patches: Patches) -> None:
    """Refuse a canvas or a margin that leaves the digits no room, with an InputError."""
    height, width = (int(side) for side in patches.size[patches.pool].max(0))
    check_canvas(config, (height, width))
    canvas = f"{config.canvas[0]}x{config.canvas[1]}"
    room = np.array(config.canvas) - 2 * config.margin
    if config.walls == "edge":
        room -= (height, width)
    if room.min() < 0:
        held = "the centre" if config.walls == "centre" else f"a glyph of {height}x{width}"
        raise InputError(
            f"margin: {config.margin} px on every side of a canvas of {canvas} leaves no room for "
            f"{held}; lower margin"
        )
