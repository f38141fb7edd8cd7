"""The random numbers of a sequence: a pure function of (seed, split, index), whatever the config.

A draw hashes its key with no state anywhere, so item i is the same in any order, block or process:

    state = 0; for word in (seed, split code, index,
                            purpose * 2**32 + digit, frame * 2**32 + attempt):
        state = mix64((state ^ word) + 0x9E3779B97F4A7C15)      modulo 2**64
    mix64 is the finaliser of splitmix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195)

Purposes are constants fixed for ever (`kernels.py`); config values never enter the key and what is
fixed draws nothing, so a new field changes no existing sequence, a longer sequence begins with the
shorter one, one more digit leaves the others alone, and two configs share their random numbers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmgen import kernels
from mmgen.config import FloatRange, GeneratorConfig, IntRange
from mmgen.errors import InputError
from mmgen.glyphs import GlyphSet

SPLIT_CODES = {"train": 0, "val": 1, "test": 2}
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Draws:
    """Everything random about N sequences of up to K digits, in float64 before any rounding.

    num_digits, num_frames  int32 (N,)
    glyph_index  int32 (N, K), place in the whole glyph set, -1 where there is no digit
    start        float64 (N, K, 2), (y, x) as a share of the travel, [0, 1)
    direction    float64 (N, K, 2), (y, x), length 1
    speed_px     float64 (N, K), px per frame
    """

    num_digits: NDArray[np.int32]
    num_frames: NDArray[np.int32]
    glyph_index: NDArray[np.int32]
    start: NDArray[np.float64]
    direction: NDArray[np.float64]
    speed_px: NDArray[np.float64]


def draw(
    config: GeneratorConfig, glyphs: GlyphSet, seed: int, split: str, indices: NDArray[np.int64]
) -> Draws:
    """Draw the sequences `indices` of a split, glyphs with replacement from the split's own pool.

    indices  int64 (N,), from 0
    raises   InputError for a seed, split or index out of range
    """
    check_seed(seed)
    if split not in SPLIT_CODES:
        raise InputError(f"split {split!r} does not exist; choose from: {', '.join(SPLIT_CODES)}")
    if indices.size and indices.min() < 0:
        raise InputError(f"index {indices.min()} is out of range, sequences count from 0")
    shape = (len(indices), config.digits.high)
    draws = Draws(
        num_digits=np.empty(len(indices), np.int32),
        num_frames=np.empty(len(indices), np.int32),
        glyph_index=np.empty(shape, np.int32),
        start=np.zeros((*shape, 2)),
        direction=np.zeros((*shape, 2)),
        speed_px=np.zeros(shape),
    )
    with np.errstate(over="ignore"):  # the hash wraps; NumPy warns where the kernel is not jitted
        kernels.draw_block(
            np.uint64(seed),
            np.uint64(SPLIT_CODES[split]),
            np.ascontiguousarray(indices, np.int64),
            _bounds(config.digits),
            _bounds(config.frames),
            np.array(glyphs.splits[split], np.int64),
            _bounds(config.speed),
            draws.num_digits,
            draws.num_frames,
            draws.glyph_index,
            draws.start,
            draws.direction,
            draws.speed_px,
        )
    return draws


def check_seed(seed: int) -> None:
    """Refuse a seed out of range with an InputError, before any work starts."""
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed: {seed} is out of range, allowed are 0..{MAX_SEED}")


def _bounds(value: IntRange | FloatRange) -> NDArray[np.int64] | NDArray[np.float64]:
    if isinstance(value, IntRange):
        return np.array([value.low, value.high], np.int64)
    return np.array([value.low, value.high], np.float64)
