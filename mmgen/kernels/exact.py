"""The hash behind every random number, what each number is for, sine and cosine. Fixed for ever.

Any change here changes every data set; so kernels in other files may call its functions, as they
may those of `lanes.py`, and of no other file.
"""

import numpy as np
from numba import config, njit

IS_JITTED = not config.DISABLE_JIT


def kernel(function):
    """Compile a function, and keep it on disk where there is a folder to write to."""
    # nogil: blocks render side by side in a thread pool. numba's own parallel loops are not used,
    # since its default threading layer aborts when two threads launch them at once.
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither beside this file, nor in a home, nor in NUMBA_CACHE_DIR
        return njit(**options)(function)


NUM_DIGITS = np.uint64(1)
NUM_FRAMES = np.uint64(2)
GLYPH = np.uint64(3)
START_Y = np.uint64(4)
START_X = np.uint64(5)
DIRECTION_Y = np.uint64(6)
DIRECTION_X = np.uint64(7)
SPEED = np.uint64(8)
ACCELERATION = np.uint64(9)
ROTATION = np.uint64(10)
SCALE = np.uint64(11)
ILLUMINATION = np.uint64(12)
APPEAR = np.uint64(13)
VANISH = np.uint64(14)
RADIUS = np.uint64(15)
SENSE = np.uint64(16)
GRAVITY = np.uint64(17)
REBOUND_Y = np.uint64(18)
REBOUND_X = np.uint64(19)
REBOUND_SPEED = np.uint64(20)
TURN = np.uint64(21)
TURN_ANGLE = np.uint64(22)
COLOR = np.uint64(23)
BACKGROUND_LEVEL = np.uint64(24)
BACKGROUND_NOISE = np.uint64(25)
CUT_Y = np.uint64(26)
CUT_X = np.uint64(27)
NOISE_LEVEL = np.uint64(28)
NOISE = np.uint64(29)
MISSING = np.uint64(30)

# Digit numbers of what moves and is no digit.
FIRST_DISTRACTOR = 1 << 16
OCCLUDER = 1 << 17

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_2_POW_MINUS_53 = 1.0 / 9007199254740992.0


@kernel
def absorb(state, word):
    """Mix one more uint64 word of the key into the state (finaliser of splitmix64)."""
    z = (state ^ word) + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@kernel
def draw_bits(sequence, purpose, digit, frame, attempt):
    """Return the 64 random bits of a key; `sequence` is the state after seed, split and index."""
    state = absorb(sequence, (purpose << np.uint64(32)) | np.uint64(digit))
    return absorb(state, (np.uint64(frame) << np.uint64(32)) | np.uint64(attempt))


@kernel
def unit(bits):
    """Turn 64 bits into a float64 in [0, 1)."""
    return np.float64(bits >> np.uint64(11)) * _2_POW_MINUS_53


@kernel
def draw_unit(sequence, purpose, digit, frame):
    """Draw a float64 in [0, 1)."""
    return unit(draw_bits(sequence, purpose, digit, frame, 0))


@kernel
def draw_integer(sequence, purpose, digit, frame, attempt, low, high):
    """Draw an int64 in low..high, both included; draws nothing where they are equal."""
    if low == high:
        return low
    bits = draw_bits(sequence, purpose, digit, frame, attempt)
    return low + np.int64(bits % np.uint64(high - low + 1))


@kernel
def draw_real(sequence, purpose, digit, frame, low, high):
    """Draw a float64 uniform on [low, high); draws nothing where they are equal."""
    if low == high:
        return low
    attempt = 0
    while True:
        value = low + unit(draw_bits(sequence, purpose, digit, frame, attempt)) * (high - low)
        if value < high:  # the sum may round up to high
            return value
        attempt += 1


@kernel
def draw_direction(sequence, purpose_y, purpose_x, digit, frame):
    """Draw a direction (y, x) of length 1 without sin and cos: a point of the disc, normalised."""
    attempt = 0
    while True:
        y = 2.0 * unit(draw_bits(sequence, purpose_y, digit, frame, attempt)) - 1.0
        x = 2.0 * unit(draw_bits(sequence, purpose_x, digit, frame, attempt)) - 1.0
        square = y * y + x * x
        if 0.0 < square <= 1.0:
            length = np.sqrt(square)
            return y / length, x / length
        attempt += 1


@kernel
def sin_cos(degrees):
    """Return sin and cos by polynomials of our own: libm's differ between machines."""
    quarter = np.floor(degrees / 90.0 + 0.5)
    r = (degrees - 90.0 * quarter) * 0.017453292519943295
    z = r * r
    s = -1.0 / 39916800.0 + z * (1.0 / 6227020800.0)
    s = -1.0 / 5040.0 + z * (1.0 / 362880.0 + z * s)
    s = r * (1.0 + z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * s)))
    c = 1.0 / 479001600.0 + z * (-1.0 / 87178291200.0)
    c = 1.0 / 40320.0 + z * (-1.0 / 3628800.0 + z * c)
    c = 1.0 + z * (-1.0 / 2.0 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * c)))
    turn = np.int64(quarter) & 3
    if turn == 0:
        return s, c
    if turn == 1:
        return c, -s
    if turn == 2:
        return -s, -c
    return -c, s
