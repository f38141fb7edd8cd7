"""The random numbers of a sequence: a pure function of (seed, split, index), whatever the config.

A draw hashes its key with no state anywhere (`RENDERING.md` has the hash), so item i is the same in
any order, block or process. Purposes are constants fixed for ever; config values never enter the
key and what is fixed draws nothing, so a new field changes no existing sequence, a longer sequence
begins with the shorter one, one more digit leaves the others alone, and two configs share their
random numbers.

Letters: N sequences, K digits a sequence.
"""

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmgen.config import GeneratorConfig
from mmgen.errors import InputError
from mmgen.fields import FloatRange, IntRange
from mmgen.glyphs import GlyphSet
from mmgen.kernels import tracks
from mmgen.kernels.exact import FIRST_DISTRACTOR, IS_JITTED, OCCLUDER, absorb
from mmgen.patches import check_canvas, make_patches

SPLIT_CODES = {"train": 0, "val": 1, "test": 2}
MAX_SEED = 2**63 - 1
NEVER = 1 << 62  # later than any frame

_VELOCITIES = {
    "uniform": tracks.UNIFORM,
    "whole-speed": tracks.WHOLE_SPEED,
    "whole-components": tracks.WHOLE_COMPONENTS,
}
_ROUNDINGS = {"truncate": tracks.TRUNCATE, "round": tracks.ROUND, "subpixel": tracks.SUBPIXEL}


F = TypeVar("F", bound=Callable[..., Any])


def hash_may_wrap(function: F) -> F:
    """Silence NumPy about the hash's overflow where that is not compiled (NUMBA_DISABLE_JIT)."""
    return function if IS_JITTED else np.errstate(over="ignore")(function)


@dataclass(frozen=True)
class Draws:
    """What is random about N sequences but for what single frames decide, in float64.

    num_digits, num_frames  int32 (N,)
    glyph_index  int32 (N, K), place in the whole glyph set, -1 where there is no digit
    label        int16 (N, K), of that glyph, or -1
    start        float64 (N, K, 2), (y, x) as a share of the travel, [0, 1); whole px where the
                 velocity has whole components
    direction    float64 (N, K, 2), (y, x), length 1; px per frame for whole components
    quantity     float64 (N, K, 8), shared float64 (N, 4): the columns that properties name
    """

    num_digits: NDArray[np.int32]
    num_frames: NDArray[np.int32]
    glyph_index: NDArray[np.int32]
    label: NDArray[np.int16]
    start: NDArray[np.float64]
    direction: NDArray[np.float64]
    quantity: NDArray[np.float64]
    shared: NDArray[np.float64]

    @property
    def speed_px(self) -> NDArray[np.float64]:
        """Speed in px per frame (N, K); 1 for whole components."""
        return self.quantity[..., tracks.OF_SPEED]

    @property
    def rotation(self) -> NDArray[np.float64]:
        """Degrees per frame (N, K)."""
        return self.quantity[..., tracks.OF_ROTATION]

    @property
    def scale(self) -> NDArray[np.float64]:
        """Factor per frame (N, K)."""
        return self.quantity[..., tracks.OF_SCALE]

    @property
    def illumination(self) -> NDArray[np.float64]:
        """Factor per frame (N,)."""
        return self.shared[..., tracks.OF_ILLUMINATION]


class Drawer:
    """Draws sequences of one (config, glyph set, seed, split), as often as wanted.

    raises  InputError for a seed or split out of range, or classes without a glyph
    """

    @hash_may_wrap
    def __init__(self, config: GeneratorConfig, glyphs: GlyphSet, seed: int, split: str) -> None:
        check_seed(seed)
        if split not in SPLIT_CODES:
            raise InputError(
                f"split {split!r} does not exist; choose from: {', '.join(SPLIT_CODES)}"
            )
        if config.crop == "patch":
            height, width = config.glyph_size or glyphs.images.shape[1:]
            check_canvas(config, (height, width))  # before resizing, which takes long
        self.patches = make_patches(glyphs, split, config.classes, config.glyph_size, config.crop)
        self.labels = glyphs.labels.astype(np.int16)
        self.key = np.uint64(0)
        for word in (seed, SPLIT_CODES[split]):
            self.key = np.uint64(absorb(self.key, np.uint64(word)))
        self.counts = np.array([_pair(config.digits), _pair(config.frames)], np.int64)
        self.bounds = np.array(
            [
                _pair(config.speed),
                _pair(config.acceleration),
                _pair(config.rotation),
                _pair(config.scale),
                _pair(config.appear),
                _pair(config.vanish),
                _pair(config.radius) if config.motion == "circle" else (0, 0),
            ],
            np.float64,
        )
        self.shared_bounds = np.array(
            [
                _pair(config.illumination),
                _pair(config.gravity) if config.motion == "gravity" else (0, 0),
                _pair(config.background_level),
                _pair(config.noise),
            ],
            np.float64,
        )

    def draw(self, index: NDArray[np.int64], rules: tracks.Rules) -> Draws:
        """Draw the digits of the sequences `index`, int64 (N,)."""
        return self._draw(index, rules, self.counts, self.bounds, 0)

    def draw_distractors(
        self, index: NDArray[np.int64], rules: tracks.Rules, num_distractors: int
    ) -> Draws:
        """Draw the moving patches of each sequence."""
        return self._draw_extras(index, rules, num_distractors, FIRST_DISTRACTOR)

    def draw_occluder(self, index: NDArray[np.int64], rules: tracks.Rules) -> Draws:
        """Draw the occluder of each sequence."""
        return self._draw_extras(index, rules, 1, OCCLUDER)

    def _draw_extras(
        self, index: NDArray[np.int64], rules: tracks.Rules, number: int, first: int
    ) -> Draws:
        counts = self.counts.copy()
        counts[0] = number
        bounds = np.zeros_like(self.bounds)
        bounds[tracks.OF_VANISH] = NEVER
        return self._draw(index, rules, counts, bounds, first)

    def _draw(
        self,
        index: NDArray[np.int64],
        rules: tracks.Rules,
        counts: NDArray[np.int64],
        bounds: NDArray[np.float64],
        first_digit: int,
    ) -> Draws:
        draws = empty_draws(len(index), int(counts[0, 1]))
        tracks.draw_block(
            self.key,
            index,
            counts,
            self.patches.pool,
            self.labels,
            self.patches.first,
            first_digit,
            self.patches.size,
            bounds,
            self.shared_bounds,
            rules,
            draws.num_digits,
            draws.num_frames,
            draws.glyph_index,
            draws.label,
            draws.start,
            draws.direction,
            draws.quantity,
            draws.shared,
        )
        return draws


def empty_draws(num_sequences: int, num_digits: int) -> Draws:
    """Return room for draws; what belongs to no digit stays 0."""
    return Draws(
        np.empty(num_sequences, np.int32),
        np.empty(num_sequences, np.int32),
        np.empty((num_sequences, num_digits), np.int32),
        np.empty((num_sequences, num_digits), np.int16),
        np.zeros((num_sequences, num_digits, 2)),
        np.zeros((num_sequences, num_digits, 2)),
        np.zeros((num_sequences, num_digits, 8)),
        np.empty((num_sequences, 4)),
    )


@hash_may_wrap
def draw(
    config: GeneratorConfig, glyphs: GlyphSet, seed: int, split: str, indices: Iterable[int]
) -> Draws:
    """Draw the sequences `indices` of a split, glyphs with replacement from the split's own pool.

    indices  which sequences, from 0
    raises   InputError for a seed, split or index out of range
    """
    return Drawer(config, glyphs, seed, split).draw(as_index(indices), make_rules(config))


def make_rules(
    config: GeneratorConfig, random_until: int | None = None, straight_from: int | None = None
) -> tracks.Rules:
    """Turn the words of a config, and from when on less happens, into the numbers of kernels."""
    if straight_from is not None and not 0 <= straight_from < NEVER:
        raise ValueError(f"straight_from: {straight_from} is no frame, they count from 0")
    is_folded = config.motion == "reflect" or (
        config.motion == "bounce" and config.bounce == "clamp"
    )
    return tracks.Rules(
        motion=tracks.MOTIONS.get(config.motion, tracks.STEPPED),
        velocity=_VELOCITIES[config.velocity],
        rounding=_ROUNDINGS[config.rounding],
        looks_ahead=config.motion == "bounce" and config.bounce == "ahead",
        in_shares=is_folded
        and config.walls == "edge"
        and config.margin == 0
        and config.velocity != "whole-components",
        steps_first=config.first_frame == "step",
        holds_centre=config.walls == "centre",
        margin=float(config.margin),
        height=config.canvas[0],
        width=config.canvas[1],
        turn_chance=float(config.turn_chance),
        turn_low=float(config.turn_angle.low),
        turn_high=float(config.turn_angle.high),
        speed_low=float(config.speed.low),
        speed_high=float(config.speed.high),
        period=config.period,
        random_until=NEVER if random_until is None else operator.index(random_until),
        straight_from=NEVER if straight_from is None else operator.index(straight_from),
    )


def as_index(indices: Iterable[int]) -> NDArray[np.int64]:
    """Return indices as kernels take them, int64 (N,); InputError for one out of range."""
    try:
        if isinstance(indices, range):  # many times as fast
            index = np.arange(indices.start, indices.stop, indices.step, dtype=np.int64)
            smallest = min(indices[0], indices[-1]) if indices else 0
        else:
            index = _copied(indices)
            smallest = int(index.min()) if index.size else 0
    except OverflowError as error:
        raise InputError(f"an index is out of range, allowed are 0..{MAX_SEED}") from error
    if smallest < 0:
        raise InputError(f"index {smallest} is out of range, sequences count from 0")
    return index


def _copied(indices: Iterable[int]) -> NDArray[np.int64]:
    """Copy indices: whoever asks may reuse an array of theirs for the next batch."""
    if isinstance(indices, np.ndarray) and indices.dtype == np.int64 and indices.ndim == 1:
        return np.array(indices, np.int64)
    return np.fromiter(map(operator.index, indices), np.int64)


def check_seed(seed: int) -> None:
    """Refuse a seed out of range with an InputError, before any work starts."""
    if not 0 <= operator.index(seed) <= MAX_SEED:
        raise InputError(f"seed: {seed} is out of range, allowed are 0..{MAX_SEED}")


def _pair(value: IntRange | FloatRange) -> tuple[float, float]:
    return value.low, value.high
