"""The oracle's dice and tracks: where a digit is in each frame, one step after the other.

t frames; axis 0 is y and 1 is x; `at` counts in units of `unit` px (1, or the whole travel).
"""

import itertools
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from oracle_picture import sin_cos

WORD = 2**64  # the hash counts modulo this
Purpose = IntEnum(
    "Purpose",
    "NUM_DIGITS NUM_FRAMES GLYPH START_Y START_X DIRECTION_Y DIRECTION_X SPEED ACCELERATION "
    "ROTATION SCALE ILLUMINATION APPEAR VANISH RADIUS SENSE GRAVITY REBOUND_Y REBOUND_X "
    "REBOUND_SPEED TURN TURN_ANGLE COLOR BACKGROUND_LEVEL BACKGROUND_NOISE CUT_Y CUT_X NOISE_LEVEL "
    "NOISE MISSING",
)

Fields = dict[str, Any]  # every field of a config: ranges (low, high), sides (H, W), else plain
Bounds = tuple[float, float]  # low, high
Moment = tuple[list[float], list[float], bool]  # position in px, velocity in px per frame, bounced


@dataclass(frozen=True)
class Dice:
    """The draws of one sequence, each a function of its key: no state anywhere."""

    seed: int
    split: int
    index: int
    random_until: float  # the last frame that draws anything of its own

    def bits(self, purpose: str, digit: int = 0, frame: int = 0, attempt: int = 0) -> int:
        state = 0
        place = Purpose[purpose] * 2**32 + digit, frame * 2**32 + attempt
        for word in (self.seed, self.split, self.index, *place):
            z = ((state ^ word) + 0x9E3779B97F4A7C15) % WORD
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
            state = z ^ (z >> 31)
        return state

    def unit(self, purpose: str, digit: int = 0, frame: int = 0, attempt: int = 0) -> float:
        return (self.bits(purpose, digit, frame, attempt) >> 11) * 2.0**-53

    def integer(
        self, purpose: str, bounds: Bounds, digit: int = 0, frame: int = 0, attempt: int = 0
    ) -> int:
        low, high = int(bounds[0]), int(bounds[1])
        if low == high:
            return low
        return low + self.bits(purpose, digit, frame, attempt) % (high - low + 1)

    def real(self, purpose: str, bounds: Bounds, digit: int = 0, frame: int = 0) -> float:
        low, high = bounds
        if low == high:
            return low
        for attempt in itertools.count():
            value = low + self.unit(purpose, digit, frame, attempt) * (high - low)
            if value < high:  # rounding can reach high
                break
        return value

    def velocity(self, fields: Fields, digit: int, frame: int = -1) -> tuple[list[float], float]:
        """Draw a direction (dy, dx) and a speed: the first, or those after a wall at `frame`."""
        names = ("DIRECTION_Y", "DIRECTION_X", "SPEED")
        if frame >= 0:
            names = ("REBOUND_Y", "REBOUND_X", "REBOUND_SPEED")
        frame, s = max(0, frame), fields["speed"][0]
        if fields["velocity"] == "whole-components":
            return [float(self.integer(name, (-s, s), digit, frame)) for name in names[:2]], 1.0
        for attempt in itertools.count():  # the first point that falls in the unit disc
            a, b = (2 * self.unit(name, digit, frame, attempt) - 1 for name in names[:2])
            if 0 < a * a + b * b <= 1:
                break
        r = math.sqrt(a * a + b * b)
        draw = self.integer if fields["velocity"] == "whole-speed" else self.real
        return [a / r, b / r], float(draw(names[2], fields["speed"], digit, frame))


@dataclass
class Axis:
    """A track along y or x: what holds it, and its state. Where it is stuck it does not move."""

    rule: str  # the motion, or "ahead"
    side: int
    low: float
    high: float
    unit: float
    is_stuck: bool
    in_shares: bool
    at: float
    direction: float = 0.0

    def __post_init__(self) -> None:
        self.start = self.at

    def head(self, direction: float) -> None:
        self.direction = 0.0 if self.is_stuck else direction

    def advance(self, speed: float) -> int:
        """Take a step; return the wall it met: -1 low, 1 high, 0 none."""
        if self.is_stuck:
            return 0
        self.at += self.direction * (speed / self.unit)
        if self.rule == "wrap":
            self.at -= self.side * math.floor(self.at / self.side)
            self.at = 0.0 if self.at >= self.side else self.at
        if self.rule in ("wrap", "leave", "ahead"):
            return 0
        wall = 0
        if self.at < self.low or (self.in_shares and self.at == self.low):
            self.at, self.direction, wall = self.low, -self.direction, -1
        if self.at > self.high or (self.in_shares and self.at == self.high):
            self.at, self.direction, wall = self.high, -self.direction, 1
        return wall

    def reflect(self, speed: float, drawn: float, num_steps: int, accelerates: bool) -> int:
        """Take step `num_steps`, folding the line into the walls; return 1 if it met one."""
        if self.is_stuck:
            return 0
        s, step, cell = self.high - self.low, speed / self.unit, 0
        if accelerates:
            u, forth = self.at + self.direction * step, self.direction
        else:
            u, forth = self.start + (drawn * step) * num_steps, drawn
            before = self.start + (drawn * step) * (num_steps - 1)
            cell = math.floor((before - self.low) / s)
        r = (u - self.low) - 2 * s * math.floor((u - self.low) / (2 * s))
        self.at, self.direction = self.low + r, forth
        if r > s:
            self.at, self.direction = self.low + (2 * s - r), -forth
        return int(math.floor((u - self.low) / s) != cell)

    def look_ahead(self, speed: float) -> bool:
        """Turn round, and say so, where the next step would pass a wall."""
        to = self.at + self.direction * speed
        is_past = not self.is_stuck and (to < self.low or to > self.high)
        self.direction = -self.direction if is_past else self.direction
        return is_past


def make_axis(dice: Dice, fields: Fields, digit: int, axis: int, size: int) -> Axis:
    """Return one axis at the start; size is the patch's side along it."""
    side, margin, motion = fields["canvas"][axis], fields["margin"], fields["motion"]
    rule = "ahead" if motion == "bounce" and fields["bounce"] == "ahead" else motion
    is_whole = fields["velocity"] == "whole-components"
    travel, name = side - size, ("START_Y", "START_X")[axis]
    low, high = margin, travel - margin
    if fields["walls"] == "centre":
        low, high = margin - size / 2, side - margin - size / 2
    if is_whole:
        high = max(low, high - 1)
    is_stuck, room = high <= low and motion not in ("wrap", "leave"), max(0, travel)
    inset = max(0, margin) if fields["walls"] == "edge" else 0
    if is_whole:
        first = int(inset)
        at = float(dice.integer(name, (first, max(first, travel - 1 - first)), digit))
    elif rule in ("bounce", "reflect") and fields["walls"] == "edge" and margin == 0:
        at = dice.unit(name, digit)
        return Axis(rule, side, 0.0, 1.0, float(room), is_stuck, True, at)
    else:
        at = inset + dice.unit(name, digit) * max(0.0, travel - 2.0 * inset)
    return Axis(rule, side, low, high, 1.0, is_stuck, False, at)


def track(
    dice: Dice, fields: Fields, digit: int, size: tuple[int, int], num_frames: int,
    straight_from: float = math.inf,
) -> list[Moment]:  # fmt: skip
    """Return the moment of each frame for a patch of `size`, positions not yet rounded."""
    motion, axes = fields["motion"], [make_axis(dice, fields, digit, n, size[n]) for n in (0, 1)]
    drawn, speed = dice.velocity(fields, digit)
    if motion == "circle":
        moments = circle(dice, fields, digit, axes, drawn, speed, num_frames)
        return along_the_tangent(moments, straight_from)
    acceleration = dice.real("ACCELERATION", fields["acceleration"], digit)
    if motion == "gravity":  # here the direction is the velocity
        drawn, speed = [part * speed for part in drawn], 1.0
    for axis, part in zip(axes, drawn, strict=True):
        axis.head(part)
    first_step, looks_ahead = int(fields["first_frame"] == "start"), axes[0].rule == "ahead"
    moments: list[Moment] = []
    for t in range(num_frames):
        if t > straight_from:
            for axis in axes:
                axis.rule = "wrap" if motion == "wrap" else "leave"
                axis.advance(speed)
            position = [axis.unit * axis.at for axis in axes]
            moments.append((position, moments[-1][1], False))
            continue
        bounced = False
        if t == first_step == 0 and looks_ahead:
            bounced = any([axis.look_ahead(speed) for axis in axes])  # noqa: C419, both look
        if t >= first_step:
            if motion == "reflect":
                so_far = t - first_step + 1, acceleration != 0
                walls = [axes[n].reflect(speed, drawn[n], *so_far) for n in (0, 1)]
            else:
                walls = [axis.advance(speed) for axis in axes]
            bounced |= any(walls)
            if motion == "stochastic" and any(walls) and t <= dice.random_until:
                speed = rebound(dice, fields, digit, t, axes, walls, speed)
            if motion == "gravity":
                axes[0].head(axes[0].direction + dice.real("GRAVITY", fields["gravity"]))
            speed = max(0.0, speed + acceleration)
        if looks_ahead:
            turned = any([axis.look_ahead(speed) for axis in axes])  # noqa: C419, both look
            bounced |= turned and t >= first_step
        if motion == "turn":
            turn(dice, fields, digit, t, axes)
        position = [axis.unit * axis.at for axis in axes]
        moments.append((position, [axis.direction * speed for axis in axes], bounced))
    return moments


def rebound(
    dice: Dice, fields: Fields, digit: int, t: int, axes: list[Axis], walls: list[int], speed: float
) -> float:
    """Give a digit a new velocity, away from the walls it met; return its new speed."""
    if fields["velocity"] != "whole-components":
        direction, speed = dice.velocity(fields, digit, t)
        for axis, part, wall in zip(axes, direction, walls, strict=True):
            axis.head(-wall * abs(part) if wall else part)
        return speed
    s = int(fields["speed"][0])
    for met, wall in enumerate(walls):
        for n, name in enumerate(("REBOUND_Y", "REBOUND_X") if wall else ()):
            away = (1, s) if wall < 0 else (-s, -1)
            bounds = away if n == met else (-s, s)
            axes[n].head(float(dice.integer(name, bounds, digit, t, met)))
    return speed


def turn(dice: Dice, fields: Fields, digit: int, t: int, axes: list[Axis]) -> None:
    """Steer by a random angle, at random frames."""
    if t <= dice.random_until and dice.unit("TURN", digit, t) < fields["turn_chance"]:
        sin, cos = sin_cos(dice.real("TURN_ANGLE", fields["turn_angle"], digit, t))
        dy, dx = axes[0].direction, axes[1].direction
        axes[0].head(dy * cos - dx * sin)
        axes[1].head(dx * cos + dy * sin)


def circle(
    dice: Dice, fields: Fields, digit: int,
    axes: list[Axis], phase: list[float], speed: float, num_frames: int,
) -> list[Moment]:  # fmt: skip
    """Go round a circle that fits between the walls."""
    largest = min((axis.high - axis.low) / 2 for axis in axes)
    radius = dice.real("RADIUS", fields["radius"], digit) * largest
    centre = [
        axis.low + radius + dice.unit(name, digit) * (axis.high - axis.low - 2 * radius)
        for axis, name in zip(axes, ("START_Y", "START_X"), strict=True)
    ]
    if radius <= 0:
        return [(centre, [0.0, 0.0], False)] * num_frames
    q = min(1.0, speed / (2 * radius))
    cos, sin = 1 - 2 * q * q, 2 * q * math.sqrt(1 - q * q)
    if dice.unit("SENSE", digit) >= 0.5:
        sin = -sin
    moments: list[Moment] = []
    for t in range(-1, num_frames):
        py, px = phase
        after = [py * cos + px * sin, px * cos - py * sin]
        if t >= 0:
            on_circle = zip(axes, centre, phase, strict=True)
            position = [min(max(c + radius * p, axis.low), axis.high) for axis, c, p in on_circle]
            velocity = [radius * (after[n] - phase[n]) for n in (0, 1)]
            moments.append((position, velocity, False))
        if t >= 0 or fields["first_frame"] == "step":
            phase = after
    return moments


def along_the_tangent(moments: list[Moment], straight_from: float) -> list[Moment]:
    """Leave a circle after frame `straight_from`."""
    for t in range(1, len(moments)):
        if t > straight_from:
            at, velocity, _ = moments[t - 1]
            moments[t] = [at[n] + velocity[n] for n in (0, 1)], velocity, False
    return moments
