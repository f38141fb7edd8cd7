"""Motions written as a step in NumPy: `follow` moves digits as the kernel `move` does.

What a motion itself must do is one step of all digits of a block. Starts, rounding, the torus,
digits that are not there, frames before the first step and straight on after the last are here.

Letters: N sequences, T frames, K digits a sequence.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmgen.config import GeneratorConfig
from mmgen.draws import Drawer, Draws
from mmgen.kernels import tracks
from mmgen.motions import MOTIONS, is_torus

if TYPE_CHECKING:
    from mmgen.motions import Step

_FARTHEST_PX = 1 << 30  # the painters count in int64, at 2^21 to a px


@dataclass(eq=False)
class Track:
    """The digits of a block between two frames; a step changes `position` and `velocity`.

    position  float64 (N, K, 2), top-left (y, x) of each patch in px, not rounded
    velocity  float64 (N, K, 2), (y, x) in px per frame
    low, high  float64 (N, K, 2), the walls: how far a position may go. Where high <= low there is
              no room, and what walls hold has no velocity, whatever a step says
    is_there  bool (N, K), False where a sequence has fewer digits
    config    the fields that are plain numbers, such as `period`
    """

    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    is_there: NDArray[np.bool_]
    config: GeneratorConfig
    key: np.uint64
    index: NDArray[np.int64]
    random_until: int

    def draw(self, purpose: int, t: int) -> NDArray[np.float64]:
        """Draw a number in [0, 1) for each digit at frame t, float64 (N, K).

        It depends on the seed, the split, the sequence, the digit, t and the purpose alone. It is
        NaN, which is less than nothing, where nothing is to be random any more: after the context,
        for those who foresee by the rules.

        purpose  what it is for, a number of its own: `RENDERING.md` has those that are taken
        """
        drawn = np.full(self.is_there.shape, np.nan)
        if t <= self.random_until:
            tracks.draw_units(self.key, self.index, np.uint64(purpose), t, drawn)
        return drawn

    def bounce(self) -> NDArray[np.bool_]:
        """Put what has crossed a wall onto it and turn it round; tell who met one, bool (N, K)."""
        has_room = self.high > self.low
        met = has_room & ((self.position < self.low) | (self.position > self.high))
        clamped = np.minimum(np.maximum(self.position, self.low), self.high)
        self.position = np.where(met, clamped, self.position)
        self.velocity = np.where(met, -self.velocity, self.velocity)
        return np.asarray(met.any(-1))


def follow(
    step: "Step",
    drawer: Drawer,
    config: GeneratorConfig,
    rules: tracks.Rules,
    index: NDArray[np.int64],
    drawn: Draws,
    moved: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]],
) -> None:
    """Move every digit by a step a frame, and straight on after `rules.straight_from`.

    index   int64 (N,), which sequences of the split
    moved   where it goes, as the kernel `move` has it: position and velocity float32 (N, T, K, 2),
            bounced bool (N, T, K)
    raises  ValueError for a step that leaves no number, or one that no painter can count to
    """
    track = _begin(drawer, config, rules, index, drawn)
    sides = np.array(config.canvas, np.float64) if is_torus(config.motion) else None
    rests = (track.high <= track.low) & (MOTIONS[config.motion].edges == "walls")
    track.velocity[rests] = 0  # so that the first step finds it so
    position, velocity, bounced = moved
    for t in range(bounced.shape[1]):
        met: NDArray[np.bool_] | bool = False
        if t > rules.straight_from:
            track.position = track.position + track.velocity
        elif t > 0 or rules.steps_first:
            met = step(track, t)
        _check(track, t)
        track.velocity = np.where(rests, 0, track.velocity)
        if sides is not None:
            track.position = track.position - sides * np.floor(track.position / sides)
            track.position[track.position >= sides] = 0.0
        position[:, t] = _rounded(track.position, rules)
        velocity[:, t] = track.velocity
        bounced[:, t] = met
    if sides is not None:  # rounding may reach the edge
        position[position >= sides] = 0
    _mark_absence(drawn, moved)


def _begin(
    drawer: Drawer,
    config: GeneratorConfig,
    rules: tracks.Rules,
    index: NDArray[np.int64],
    drawn: Draws,
) -> Track:
    """Put the digits at their starts, as `tracks._place` does in px."""
    is_there = drawn.glyph_index >= 0
    patches = drawer.patches
    size = patches.size[np.where(is_there, drawn.glyph_index - patches.first, 0)].astype(float)
    sides = np.array(config.canvas, np.float64)
    travel = sides - size
    low, high = np.full_like(travel, rules.margin), travel - rules.margin
    inset = max(rules.margin, 0.0)
    if rules.holds_centre:
        low, high = rules.margin - size / 2, sides - rules.margin - size / 2
        inset = 0.0
    position = drawn.start.copy()
    if rules.velocity == tracks.WHOLE_COMPONENTS:
        high = np.maximum(low, high - 1)
    else:
        position = inset + position * np.maximum(travel - 2 * inset, 0)
    return Track(
        position,
        drawn.direction * drawn.speed_px[..., None],
        low,
        high,
        is_there,
        config,
        drawer.key,
        index,
        rules.random_until,
    )


def _check(track: Track, t: int) -> None:
    """Refuse what no painter can count to."""
    for name in ("position", "velocity"):
        values = getattr(track, name)
        if values.shape != track.low.shape:
            expected = f"{values.shape}, expected is {track.low.shape}"
            raise ValueError(
                f"motion {track.config.motion}: its step leaves a {name} of {expected}"
            )
        is_fine: NDArray[np.bool_] = abs(values) < _FARTHEST_PX  # not so where it is NaN
        if not is_fine[track.is_there].all():
            raise ValueError(
                f"motion {track.config.motion}: its step into frame {t} leaves a {name} that is no "
                f"number of px below {_FARTHEST_PX}"
            )


def _rounded(position: NDArray[np.float64], rules: tracks.Rules) -> NDArray[np.float64]:
    if rules.rounding == tracks.TRUNCATE:
        return np.trunc(position) + 0.0  # not -0.0
    return np.rint(position) + 0.0 if rules.rounding == tracks.ROUND else position


def _mark_absence(
    drawn: Draws, moved: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]
) -> None:
    """Say where a digit is not there."""
    position, velocity, bounced = moved
    t = np.arange(bounced.shape[1])[:, None]
    last = np.minimum(drawn.quantity[..., tracks.OF_VANISH], drawn.num_frames[:, None])
    is_absent = t < drawn.quantity[:, None, :, tracks.OF_APPEAR]
    is_absent |= (t >= last[:, None]) | (drawn.glyph_index < 0)[:, None]
    position[is_absent] = velocity[is_absent] = np.nan
    bounced[is_absent] = False
