"""What is random about a sequence, and how its digits move: positions, angles, scales, light.

Letters: N sequences in a block, T frames, K digits a sequence, G glyphs of the split.
"""

from typing import NamedTuple

import numpy as np

from mmgen.kernels.exact import (
    ACCELERATION,
    APPEAR,
    BACKGROUND_LEVEL,
    COLOR,
    DIRECTION_X,
    DIRECTION_Y,
    GLYPH,
    GRAVITY,
    ILLUMINATION,
    MISSING,
    NOISE_LEVEL,
    NUM_DIGITS,
    NUM_FRAMES,
    RADIUS,
    REBOUND_SPEED,
    REBOUND_X,
    REBOUND_Y,
    ROTATION,
    SCALE,
    SENSE,
    SPEED,
    START_X,
    START_Y,
    TURN,
    TURN_ANGLE,
    VANISH,
    absorb,
    draw_bits,
    draw_direction,
    draw_integer,
    draw_real,
    draw_unit,
    kernel,
    sin_cos,
)

BOUNCE, REFLECT, STOCHASTIC, WRAP, LEAVE, CIRCLE, GRAVITATE, STEER, STEPPED = range(9)
MOTIONS = {
    "bounce": BOUNCE,
    "reflect": REFLECT,
    "stochastic": STOCHASTIC,
    "wrap": WRAP,
    "leave": LEAVE,
    "circle": CIRCLE,
    "gravity": GRAVITATE,
    "turn": STEER,
}  # all others are STEPPED, and not moved here
UNIFORM, WHOLE_SPEED, WHOLE_COMPONENTS = range(3)
TRUNCATE, ROUND, SUBPIXEL = range(3)

# Columns of `quantity` (N, K, 8), drawn for each digit, and of `shared` (N, 4), for each sequence.
OF_SPEED, OF_ACCELERATION, OF_ROTATION, OF_SCALE, OF_APPEAR, OF_VANISH, OF_RADIUS, OF_SENSE = range(
    8
)
OF_ILLUMINATION, OF_GRAVITY, OF_LEVEL, OF_NOISE = range(4)


class Rules(NamedTuple):
    """How digits move: the config's words as numbers."""

    motion: int
    velocity: int
    rounding: int
    looks_ahead: bool
    in_shares: bool  # of the travel; otherwise px
    steps_first: bool
    holds_centre: bool
    margin: float
    height: int
    width: int
    turn_chance: float
    turn_low: float
    turn_high: float
    speed_low: float
    speed_high: float
    period: int
    random_until: int
    straight_from: int


# Rules as a row of an array: a call takes 0.3 us for that, 3 us for the tuple (Xeon).
RULES = np.dtype(list(Rules.__annotations__.items()), align=True)


@kernel
def draw_block(
    key,
    index,
    counts,
    pool,
    labels,
    first_glyph,
    first_digit,
    size,
    bounds,
    shared_bounds,
    rules,
    num_digits,
    num_frames,
    glyph_index,
    label,
    start,
    direction,
    quantity,
    shared,
):
    """Draw everything random about the sequences `index` that no frame decides.

    key      uint64, the state after seed and split       index   int64 (N,)
    counts   int64 (2, 2), low..high of digits and frames
    pool     int32 (P,), places in the split's glyphs; the first of these is number `first_glyph`
    size     int32 (G, 2), height and width of each patch
    bounds, shared_bounds  float64 (7, 2), (4, 2), low..high
    labels   int16, of every glyph of the set
    num_digits, num_frames  int32 (N,)
    glyph_index, label  int32, int16 (N, K), -1 where there is no digit
    start      float64 (N, K, 2), (y, x) as a share of the travel; whole px for whole components
    direction  float64 (N, K, 2), (y, x), length 1; px per frame for whole components
    quantity   float64 (N, K, 8)      shared  float64 (N, 4)
    """
    for n in range(index.shape[0]):
        sequence = absorb(key, np.uint64(index[n]))
        num_digits[n] = draw_integer(sequence, NUM_DIGITS, 0, 0, 0, counts[0, 0], counts[0, 1])
        num_frames[n] = draw_integer(sequence, NUM_FRAMES, 0, 0, 0, counts[1, 0], counts[1, 1])
        for column, purpose in (
            (OF_ILLUMINATION, ILLUMINATION),
            (OF_GRAVITY, GRAVITY),
            (OF_NOISE, NOISE_LEVEL),
        ):
            low, high = shared_bounds[column, 0], shared_bounds[column, 1]
            shared[n, column] = draw_real(sequence, purpose, 0, 0, low, high)
        low, high = np.int64(shared_bounds[OF_LEVEL, 0]), np.int64(shared_bounds[OF_LEVEL, 1])
        shared[n, OF_LEVEL] = draw_integer(sequence, BACKGROUND_LEVEL, 0, 0, 0, low, high)
        for k in range(glyph_index.shape[1]):
            if k >= num_digits[n]:
                glyph_index[n, k] = label[n, k] = -1
                continue
            digit = first_digit + k
            place = draw_integer(sequence, GLYPH, digit, 0, 0, 0, pool.shape[0] - 1)
            glyph = pool[place]
            glyph_index[n, k] = first_glyph + glyph
            label[n, k] = labels[first_glyph + glyph]
            _draw_digit(sequence, digit, bounds, rules, quantity, n, k)
            if rules.velocity == WHOLE_COMPONENTS:
                fastest = np.int64(rules.speed_high)
                quantity[n, k, OF_SPEED] = 1.0
                for axis, side, begin, component in (
                    (0, rules.height, START_Y, DIRECTION_Y),
                    (1, rules.width, START_X, DIRECTION_X),
                ):
                    inset = np.int64(_inset(rules))
                    last = max(inset, side - size[glyph, axis] - 1 - inset)
                    start[n, k, axis] = draw_integer(sequence, begin, digit, 0, 0, inset, last)
                    whole = draw_integer(sequence, component, digit, 0, 0, -fastest, fastest)
                    direction[n, k, axis] = whole
            else:
                start[n, k, 0] = draw_unit(sequence, START_Y, digit, 0)
                start[n, k, 1] = draw_unit(sequence, START_X, digit, 0)
                y, x = draw_direction(sequence, DIRECTION_Y, DIRECTION_X, digit, 0)
                direction[n, k, 0] = y
                direction[n, k, 1] = x


@kernel
def _draw_digit(sequence, digit, bounds, rules, quantity, n, k):
    for column, purpose in (
        (OF_ACCELERATION, ACCELERATION),
        (OF_ROTATION, ROTATION),
        (OF_SCALE, SCALE),
        (OF_RADIUS, RADIUS),
    ):
        low, high = bounds[column, 0], bounds[column, 1]
        quantity[n, k, column] = draw_real(sequence, purpose, digit, 0, low, high)
    for column, purpose in ((OF_APPEAR, APPEAR), (OF_VANISH, VANISH)):
        low, high = np.int64(bounds[column, 0]), np.int64(bounds[column, 1])
        quantity[n, k, column] = draw_integer(sequence, purpose, digit, 0, 0, low, high)
    quantity[n, k, OF_SPEED] = _draw_speed(sequence, SPEED, digit, 0, rules)
    quantity[n, k, OF_SENSE] = 1.0
    if rules.motion == CIRCLE and draw_unit(sequence, SENSE, digit, 0) >= 0.5:
        quantity[n, k, OF_SENSE] = -1.0


@kernel
def _draw_speed(sequence, purpose, digit, frame, rules):
    low, high = rules.speed_low, rules.speed_high
    if rules.velocity == WHOLE_SPEED:
        whole = draw_integer(sequence, purpose, digit, frame, 0, np.int64(low), np.int64(high))
        return np.float64(whole)
    return draw_real(sequence, purpose, digit, frame, low, high)


@kernel
def draw_colors(key, index, color):
    """Draw a bright colour for each digit: uint8 (N, K, 3), the largest of the three is 255."""
    for n in range(index.shape[0]):
        sequence = absorb(key, np.uint64(index[n]))
        for k in range(color.shape[1]):
            largest = 0
            for channel in range(3):
                color[n, k, channel] = draw_bits(sequence, COLOR, k, 0, channel) % np.uint64(256)
                largest = max(largest, np.int64(color[n, k, channel]))
            for channel in range(3):
                value = np.int64(color[n, k, channel])
                color[n, k, channel] = (
                    (value * 255 + largest // 2) // largest if largest > 0 else 255
                )


@kernel
def draw_missing(key, index, chance, random_until, is_missing):
    """Draw which frames are missing: bool (N, T)."""
    for n in range(index.shape[0]):
        sequence = absorb(key, np.uint64(index[n]))
        for t in range(is_missing.shape[1]):
            is_missing[n, t] = t <= random_until and draw_unit(sequence, MISSING, 0, t) < chance


@kernel
def draw_units(key, index, purpose, frame, drawn):
    """Draw a number in [0, 1) for each digit at a frame: float64 (N, K)."""
    for n in range(drawn.shape[0]):
        sequence = absorb(key, np.uint64(index[n]))
        for k in range(drawn.shape[1]):
            drawn[n, k] = draw_unit(sequence, purpose, k, frame)


# Rows of a digit's state, (6, 2): by axis.
_AT, _DIRECTION, _LOW, _HIGH, _UNIT, _SIDE = range(6)


@kernel
def move(
    key,
    index,
    num_frames,
    glyph_index,
    first_glyph,
    size,
    start,
    direction,
    quantity,
    shared,
    rules,
    position,
    velocity,
    bounced,
):
    """Move every digit by the rules of its motion, and straight on after `rules.straight_from`.

    position  float32 (N, T, K, 2), top-left (y, x) in px, rounded; NaN where there is no digit
    velocity  float32 (N, T, K, 2), px per frame with which the digit leaves the frame
    bounced   bool (N, T, K), met a wall in the step into the frame
    """
    state = np.empty((6, 2))
    for n in range(position.shape[0]):
        sequence = absorb(key, np.uint64(index[n]))
        for k in range(position.shape[2]):
            last = 0
            if glyph_index[n, k] >= 0:
                last = num_frames[n]
                ruled = min(last, rules.straight_from + 1)
                glyph = glyph_index[n, k] - first_glyph
                _place(state, size, glyph, start, direction, n, k, rules)
                speed = quantity[n, k, OF_SPEED]
                if rules.motion == CIRCLE:
                    _circle(state, ruled, start, quantity, rules, position, velocity, bounced, n, k)
                    speed = 1.0
                elif rules.motion == REFLECT and quantity[n, k, OF_ACCELERATION] == 0.0:
                    _reflect(state, ruled, speed, rules, position, velocity, bounced, n, k)
                else:
                    forces = speed, quantity[n, k, OF_ACCELERATION], shared[n, OF_GRAVITY]
                    speed = _walk(
                        *(sequence, k, state, ruled, forces, rules),
                        *(position, velocity, bounced, n, k),
                    )
                _go_straight(state, speed, ruled, last, rules, position, velocity, bounced, n, k)
            _mark_absence(last, quantity, position, velocity, bounced, n, k)


@kernel
def move_classic(
    num_frames,
    glyph_index,
    first_glyph,
    size,
    start,
    direction,
    quantity,
    rules,
    position,
    velocity,
    bounced,
):
    """Do as `move` for the classic rule: `bounce` in shares of the travel, without acceleration.

    An axis at a time, which is 3 times as fast, and compiles in a moment.
    """
    state = np.empty((6, 2))
    for n in range(position.shape[0]):
        for k in range(position.shape[2]):
            last = 0
            if glyph_index[n, k] >= 0:
                last = num_frames[n]
                _place(state, size, glyph_index[n, k] - first_glyph, start, direction, n, k, rules)
                speed = quantity[n, k, OF_SPEED]
                _bounce(state, last, speed, rules, position, velocity, bounced, n, k)
            _mark_absence(last, quantity, position, velocity, bounced, n, k)


@kernel
def _mark_absence(num_frames, quantity, position, velocity, bounced, n, k):
    """Say where a digit of a sequence of `num_frames` (0: there is no digit) is not there."""
    first = np.int64(min(quantity[n, k, OF_APPEAR], num_frames))
    last = np.int64(min(quantity[n, k, OF_VANISH], num_frames))
    _mark_absent(position, velocity, bounced, n, k, 0, first)
    _mark_absent(position, velocity, bounced, n, k, last, position.shape[1])


@kernel
def _mark_absent(position, velocity, bounced, n, k, first, last):
    """Say that a digit is not there in the frames first..last."""
    for t in range(first, last):
        position[n, t, k, 0] = position[n, t, k, 1] = np.nan
        velocity[n, t, k, 0] = velocity[n, t, k, 1] = np.nan
        bounced[n, t, k] = False


@kernel
def _inset(rules):
    """Return how far from the canvas's edges digits start, in px: between their walls."""
    return 0.0 if rules.holds_centre else max(rules.margin, 0.0)


@kernel
def _place(state, size, glyph, start, direction, n, k, rules):
    """Put a digit at its start, between its walls."""
    has_walls = rules.motion != WRAP and rules.motion != LEAVE
    for axis in range(2):
        side = np.float64(rules.height if axis == 0 else rules.width)
        length = np.float64(size[glyph, axis])
        travel = side - length
        low, high = rules.margin, travel - rules.margin
        if rules.holds_centre:
            low, high = rules.margin - length / 2.0, side - rules.margin - length / 2.0
        if rules.velocity == WHOLE_COMPONENTS:
            high = max(low, high - 1.0)
        inset = _inset(rules)
        state[_AT, axis] = inset + start[n, k, axis] * max(travel - 2.0 * inset, 0.0)
        if rules.velocity == WHOLE_COMPONENTS:
            state[_AT, axis] = start[n, k, axis]
        state[_UNIT, axis] = 1.0
        state[_SIDE, axis] = side
        state[_DIRECTION, axis] = direction[n, k, axis]
        if has_walls and high <= low:
            state[_DIRECTION, axis] = 0.0
        elif rules.in_shares:
            state[_AT, axis] = start[n, k, axis]
            state[_UNIT, axis] = travel
            low, high = 0.0, 1.0
        state[_LOW, axis] = low
        state[_HIGH, axis] = high


@kernel
def _store(state, rules, speed, position, velocity, n, t, k):
    """Write down where the digit is and how it leaves."""
    for axis in range(2):
        at = _rounded(state[_UNIT, axis] * state[_AT, axis], rules)
        if rules.motion == WRAP and at >= state[_SIDE, axis]:
            at = np.float32(0.0)
        position[n, t, k, axis] = at
        velocity[n, t, k, axis] = np.float32(state[_DIRECTION, axis] * speed)


@kernel
def _rounded(at, rules):
    """Round a position as the rules say."""
    if rules.rounding == TRUNCATE:
        return np.float32(np.float64(np.int64(at)))
    if rules.rounding == ROUND:
        return np.float32(_to_even(at))
    return np.float32(at)


@kernel
def _to_even(value):
    """Round half to even."""
    below = np.floor(value)
    rest = value - below
    if rest > 0.5 or (rest == 0.5 and below - 2.0 * np.floor(below / 2.0) == 1.0):
        below += 1.0
    return below


@kernel
def _walk(sequence, digit, state, num_frames, forces, rules, position, velocity, bounced, n, k):
    """Step by step: every motion but the circle and the reflection in closed form.

    forces   speed in px per frame, its change per frame, gravity
    returns  the speed at the end, to which the direction then belongs
    """
    speed, faster, gravity = forces
    if rules.motion == GRAVITATE:
        for axis in range(2):
            state[_DIRECTION, axis] *= speed
        speed = 1.0
    has_turned = rules.looks_ahead and rules.steps_first and _look_ahead(state, speed)
    for t in range(num_frames):
        has_bounced = False
        if t > 0 or rules.steps_first:
            _step(state, speed, rules)
            if rules.motion == REFLECT:
                has_bounced = _fold(state)
            elif rules.motion != WRAP and rules.motion != LEAVE and not rules.looks_ahead:
                has_bounced, speed = _meet_walls(sequence, digit, t, state, speed, rules)
            speed = max(0.0, speed + faster)
            if rules.motion == GRAVITATE and state[_HIGH, 0] > state[_LOW, 0]:
                state[_DIRECTION, 0] += gravity
        if rules.motion == STEER and t <= rules.random_until:
            _steer(sequence, digit, t, state, rules)
        if rules.looks_ahead:
            turns = _look_ahead(state, speed) and (t > 0 or rules.steps_first)
            has_bounced = turns or (t == 0 and has_turned)
        _store(state, rules, speed, position, velocity, n, t, k)
        bounced[n, t, k] = has_bounced
    return speed


@kernel
def _step(state, speed, rules):
    """Take one step straight on, which on a torus may lead once round."""
    for axis in range(2):
        step = speed / state[_UNIT, axis]
        state[_AT, axis] += state[_DIRECTION, axis] * step
    if rules.motion == WRAP:
        for axis in range(2):
            side = state[_SIDE, axis]
            state[_AT, axis] -= side * np.floor(state[_AT, axis] / side)
            if state[_AT, axis] >= side:
                state[_AT, axis] = 0.0


@kernel
def _go_straight(state, speed, first, num_frames, rules, position, velocity, bounced, n, k):
    """Step on from frame `first` through whatever was a wall, with nothing to turn the digit."""
    for t in range(first, num_frames):
        _step(state, speed, rules)
        _store(state, rules, speed, position, velocity, n, t, k)
        bounced[n, t, k] = False


@kernel
def _look_ahead(state, speed):
    """Turn round before a step that would leave the walls; tell whether that was needed."""
    turned = False
    for axis in range(2):
        if state[_HIGH, axis] <= state[_LOW, axis]:
            continue
        ahead = state[_AT, axis] + state[_DIRECTION, axis] * (speed / state[_UNIT, axis])
        if ahead < state[_LOW, axis] or ahead > state[_HIGH, axis]:
            state[_DIRECTION, axis] = -state[_DIRECTION, axis]
            turned = True
    return turned


@kernel
def _fold(state):
    """Reflect a step that has crossed walls back between them; tell whether it met any."""
    met = False
    for axis in range(2):
        low, span = state[_LOW, axis], state[_HIGH, axis] - state[_LOW, axis]
        if span <= 0.0:
            continue
        from_low = state[_AT, axis] - low
        met = met or np.floor(from_low / span) != 0.0
        from_low -= 2.0 * span * np.floor(from_low / (2.0 * span))
        if from_low > span:
            from_low = 2.0 * span - from_low
            state[_DIRECTION, axis] = -state[_DIRECTION, axis]
        state[_AT, axis] = low + from_low
    return met


@kernel
def _meet_walls(sequence, digit, t, state, speed, rules):
    """Clamp to the walls; turn round, or draw a new velocity. Returns (met a wall, speed)."""
    is_random = rules.motion == STOCHASTIC and t <= rules.random_until
    sides = 0, 0
    for axis in range(2):
        low, high = state[_LOW, axis], state[_HIGH, axis]
        if high <= low:
            continue
        at = state[_AT, axis]
        side = 0
        if at < low or (rules.in_shares and at == low):
            state[_AT, axis] = low
            side = -1
        elif at > high or (rules.in_shares and at == high):
            state[_AT, axis] = high
            side = 1
        if side == 0:
            continue
        state[_DIRECTION, axis] = -state[_DIRECTION, axis]
        sides = (side, sides[1]) if axis == 0 else (sides[0], side)
        if is_random and rules.velocity == WHOLE_COMPONENTS:
            _draw_components(sequence, digit, t, state, axis, side, rules)
    met = sides[0] != 0 or sides[1] != 0
    if met and is_random and rules.velocity != WHOLE_COMPONENTS:
        y, x = draw_direction(sequence, REBOUND_Y, REBOUND_X, digit, t)
        speed = _draw_speed(sequence, REBOUND_SPEED, digit, t, rules)
        _head(state, 0, y, sides[0])
        _head(state, 1, x, sides[1])
    return met, speed


@kernel
def _head(state, axis, component, side):
    """Set a component of the direction; away from the wall on that side, if there is one."""
    if state[_HIGH, axis] <= state[_LOW, axis]:
        return
    if side != 0:
        component = -side * abs(component)
    state[_DIRECTION, axis] = component


@kernel
def _draw_components(sequence, digit, t, state, axis, side, rules):
    """Draw whole components anew: away from the wall along `axis`, any along the other."""
    fastest = np.int64(rules.speed_high)
    for other, purpose in ((0, REBOUND_Y), (1, REBOUND_X)):
        low, high = -fastest, fastest
        if other == axis:
            low, high = (1, fastest) if side < 0 else (-fastest, -1)
        if state[_HIGH, other] > state[_LOW, other] and low <= high:
            drawn = draw_integer(sequence, purpose, digit, t, axis, low, high)
            state[_DIRECTION, other] = np.float64(drawn)


@kernel
def _steer(sequence, digit, t, state, rules):
    """Turn the direction by a random angle, by chance."""
    if draw_unit(sequence, TURN, digit, t) >= rules.turn_chance:
        return
    angle = draw_real(sequence, TURN_ANGLE, digit, t, rules.turn_low, rules.turn_high)
    s, c = sin_cos(angle)
    y, x = state[_DIRECTION, 0], state[_DIRECTION, 1]
    _head(state, 0, y * c - x * s, 0)
    _head(state, 1, x * c + y * s, 0)


@kernel
def _bounce(state, num_frames, speed, rules, position, velocity, bounced, n, k):
    """Step, clamp and flip along each axis."""
    for t in range(num_frames):
        bounced[n, t, k] = False
    for axis in range(2):
        at, unit = state[_AT, axis], state[_UNIT, axis]
        low, high = state[_LOW, axis], state[_HIGH, axis]
        is_held = high <= low
        step = state[_DIRECTION, axis] * (speed / unit)
        leaving = np.float32(state[_DIRECTION, axis] * speed)
        for t in range(num_frames):
            if t > 0 or rules.steps_first:
                at += step
                if (at <= low or at >= high) and not is_held:
                    at = low if at <= low else high
                    step, leaving = -step, -leaving
                    bounced[n, t, k] = True
            position[n, t, k, axis] = _rounded(unit * at, rules)
            velocity[n, t, k, axis] = leaving


@kernel
def _reflect(state, num_frames, speed, rules, position, velocity, bounced, n, k):
    """Reflect exactly, in closed form: fold the straight line into the room between the walls."""
    for t in range(num_frames):
        bounced[n, t, k] = False
    for axis in range(2):
        low, span = state[_LOW, axis], state[_HIGH, axis] - state[_LOW, axis]
        begin, heading = state[_AT, axis], state[_DIRECTION, axis]
        step = heading * (speed / state[_UNIT, axis])
        for t in range(num_frames):
            number = t + 1 if rules.steps_first else t
            along = begin + step * np.float64(number)
            sign = 1.0
            if span > 0.0 and number > 0:
                from_low = along - low
                before = begin + step * np.float64(number - 1) - low
                if np.floor(from_low / span) != np.floor(before / span):
                    bounced[n, t, k] = True
                from_low -= 2.0 * span * np.floor(from_low / (2.0 * span))
                if from_low > span:
                    from_low = 2.0 * span - from_low
                    sign = -1.0
                along = low + from_low
            state[_AT, axis] = along
            state[_DIRECTION, axis] = heading * sign
            position[n, t, k, axis] = _rounded(state[_UNIT, axis] * along, rules)
            velocity[n, t, k, axis] = np.float32(heading * sign * speed)


@kernel
def _circle(state, num_frames, start, quantity, rules, position, velocity, bounced, n, k):
    """Go round a circle of one's own by equal chords: the speed is the chord's length.

    The state is left as for a step along the chord with speed 1.
    """
    widest = min(state[_HIGH, 0] - state[_LOW, 0], state[_HIGH, 1] - state[_LOW, 1]) / 2.0
    radius = max(0.0, quantity[n, k, OF_RADIUS] * widest)
    cos, sin = 1.0, 0.0
    if radius > 0.0:
        half = min(1.0, quantity[n, k, OF_SPEED] / (2.0 * radius))
        cos = 1.0 - 2.0 * half * half
        sin = quantity[n, k, OF_SENSE] * (2.0 * half * np.sqrt(1.0 - half * half))
    y, x = state[_DIRECTION, 0], state[_DIRECTION, 1]
    if rules.steps_first:
        y, x = y * cos + x * sin, x * cos - y * sin
    for t in range(num_frames):
        bounced[n, t, k] = False
        next_y, next_x = y * cos + x * sin, x * cos - y * sin
        for axis, phase, after in ((0, y, next_y), (1, x, next_x)):
            low, high = state[_LOW, axis], state[_HIGH, axis]
            centre = low + radius + start[n, k, axis] * (high - low - 2.0 * radius)
            at = min(max(centre + radius * phase, low), high)
            state[_AT, axis] = at
            state[_DIRECTION, axis] = radius * (after - phase)
            position[n, t, k, axis] = _rounded(at, rules)
            velocity[n, t, k, axis] = np.float32(state[_DIRECTION, axis])
        y, x = next_y, next_x


@kernel
def deform(glyph_index, position, quantity, shared, rules, angle, scale, light):
    """Turn, scale and light every digit.

    angle  float32 (N, T, K), degrees in [-180, 180)    scale  float32 (N, T, K), 1 = unscaled
    light  int64 (N, T), 4096 = unlit: one for all digits of a sequence
    """
    for n in range(position.shape[0]):
        bright = 1.0
        factor = shared[n, OF_ILLUMINATION]
        for t in range(position.shape[1]):
            if factor == 1.0:
                light[n, t] = 4096
                continue
            if t > 0:
                is_growing = (t // rules.period) % 2 == 1
                bright = bright / factor if is_growing else bright * factor
            light[n, t] = np.int64(min(np.floor(4096.0 * bright + 0.5), 65535.0))
        for k in range(position.shape[2]):
            if glyph_index[n, k] < 0:
                angle[n, :, k] = np.nan
                scale[n, :, k] = np.nan
                continue
            size, degrees = 1.0, 0.0
            factor, rotation = quantity[n, k, OF_SCALE], quantity[n, k, OF_ROTATION]
            for t in range(position.shape[1]):
                if t > 0 and factor != 1.0:
                    is_growing = (t // rules.period) % 2 == 1
                    size = size * factor if is_growing else size / factor
                if rotation != 0.0:
                    degrees = rotation * np.float64(t)
                    degrees -= 360.0 * np.floor((degrees + 180.0) / 360.0)
                is_absent = np.isnan(position[n, t, k, 0])
                angle[n, t, k] = np.nan if is_absent else np.float32(degrees)
                scale[n, t, k] = np.nan if is_absent else np.float32(size)


@kernel
def follow_classic(
    key,
    index,
    counts,
    pool,
    labels,
    first_glyph,
    size,
    bounds,
    shared_bounds,
    rules,
    num_frames,
    glyph_index,
    label,
    position,
    velocity,
    bounced,
    angle,
    scale,
):
    """Do what `draw_block`, `move_classic` and `deform` do, in one call; rules  RULES (1,)."""
    num_sequences, longest, most = bounced.shape
    num_digits = np.empty(num_sequences, np.int32)
    start = np.zeros((num_sequences, most, 2))
    direction = np.zeros((num_sequences, most, 2))
    quantity = np.zeros((num_sequences, most, 8))
    shared = np.empty((num_sequences, 4))
    light = np.empty((num_sequences, longest), np.int64)
    draw_block(
        key,
        index,
        counts,
        pool,
        labels,
        first_glyph,
        0,
        size,
        bounds,
        shared_bounds,
        rules[0],
        num_digits,
        num_frames,
        glyph_index,
        label,
        start,
        direction,
        quantity,
        shared,
    )
    move_classic(
        num_frames,
        glyph_index,
        first_glyph,
        size,
        start,
        direction,
        quantity,
        rules[0],
        position,
        velocity,
        bounced,
    )
    deform(glyph_index, position, quantity, shared, rules[0], angle, scale, light)
