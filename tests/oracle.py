"""A Moving MNIST generator in plain loops: the answer the fast kernels must equal bit for bit.

It is written from the definition, not from the kernels, and must never import them. Python ints
and floats only (a float is IEEE float64), no libm but sqrt (correctly rounded everywhere), and no
uint8 arithmetic (it wraps). NumPy only holds the input and the result.

T frames, H, W canvas, K digits a sequence, N glyphs in the whole set of h by w pixels each.
Always (y, x). Inside, positions are shares of the travel (canvas minus glyph), from 0 to 1.

Motion: Srivastava et al., arXiv:1502.04681, as their code has it (emansim/unsupervised-videos,
data_handler.py 334-445). Hash: the finaliser and the increment of splitmix64, Steele et al. 2014.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD = 2**64  # the hash counts modulo this

NUM_DIGITS, NUM_FRAMES, GLYPH, START_Y, START_X, DIRECTION_Y, DIRECTION_X, SPEED = range(1, 9)


def mix64(z: int) -> int:
    """Scramble 64 bits: the finaliser of splitmix64."""
    z ^= z >> 30
    z = z * 0xBF58476D1CE4E5B9 % WORD
    z ^= z >> 27
    z = z * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def absorb(state: int, word: int) -> int:
    """Fold one more word of the key into the 64-bit state; a negative word is taken modulo 2^64."""
    return mix64(((state ^ (word % WORD)) + 0x9E3779B97F4A7C15) % WORD)


def draw(
    seed: int, split: int, index: int, purpose: int,
    digit: int = 0, frame: int = 0, attempt: int = 0,
) -> int:  # fmt: skip
    """Return the 64 random bits of one key; split is 0 train, 1 val, 2 test."""
    state = 0
    for word in (seed, split, index, purpose * 2**32 + digit, frame * 2**32 + attempt):
        state = absorb(state, word)
    return state


def unit(bits: int) -> float:
    """Turn 64 bits into a float in [0, 1): the upper 53 bits, so every value is exact."""
    return (bits >> 11) * 2.0**-53


def integer(bits: int, n: int) -> int:
    """Turn 64 bits into an int in [0, n)."""
    return bits % n


def draw_count(key: tuple[int, int, int], purpose: int, bounds: tuple[int, int]) -> int:
    """Return the number of digits or frames of sequence (seed, split, index), bounds inclusive.

    With low == high the remainder is 0 whatever the bits, as if nothing had been drawn.
    """
    low, high = bounds
    return low + integer(draw(*key, purpose), high - low + 1)


def draw_direction(key: tuple[int, int, int], digit: int) -> tuple[float, float]:
    """Return a direction (v_y, v_x) of length 1: the first point that falls in the unit disc.

    The published code takes sin and cos of a uniform angle; those differ between libms.
    """
    attempt = 0
    while True:
        a = 2.0 * unit(draw(*key, DIRECTION_Y, digit, 0, attempt)) - 1.0
        b = 2.0 * unit(draw(*key, DIRECTION_X, digit, 0, attempt)) - 1.0
        s = a * a + b * b
        if 0.0 < s <= 1.0:
            return a / math.sqrt(s), b / math.sqrt(s)
        attempt += 1


def draw_speed(key: tuple[int, int, int], digit: int, bounds: tuple[float, float]) -> float:
    """Return a speed in px per frame from [low, high), or low where both are equal."""
    low, high = float(bounds[0]), float(bounds[1])
    attempt = 0
    while low != high:
        value = low + unit(draw(*key, SPEED, digit, 0, attempt)) * (high - low)
        if value < high:  # rounding can reach high
            return value
        attempt += 1
    return low


def srivastava(
    glyphs: NDArray[np.uint8], labels: NDArray[np.uint8], pool: tuple[int, int],
    seed: int, split: int, index: int, *,
    canvas: tuple[int, int] = (64, 64), frames: tuple[int, int] = (20, 20),
    digits: tuple[int, int] = (2, 2), speed: tuple[float, float] = (3.6, 3.6),
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Generate one sequence: glyphs bounce off the walls, the brighter one shows.

    glyphs uint8 (N, h, w), no larger than the canvas; labels uint8 (N,); pool [first, last) of N;
    canvas (H, W) in px; frames and digits inclusive ranges; speed a range in px per frame.
    Returns, with T = frames[1] and K = digits[1]:
    frames uint8 (T, H, W), zero past num_frames; num_frames int32 (); index int64 ();
    label int16 (K,) and glyph_index int32 (K,), which counts in the whole set, -1 if absent;
    position float32 (T, K, 2), top-left in whole px; velocity float32 (T, K, 2), px per frame with
    which the digit leaves frame t; both NaN if absent or past num_frames.
    """
    key = (seed, split, index)
    num_frames = draw_count(key, NUM_FRAMES, frames)
    travel = (canvas[0] - glyphs.shape[1], canvas[1] - glyphs.shape[2])
    num_digits_max = digits[1]
    out: dict[str, NDArray[Any]] = {
        "frames": np.zeros((frames[1], *canvas), np.uint8),
        "num_frames": np.array(num_frames, np.int32),
        "label": np.full(num_digits_max, -1, np.int16),
        "glyph_index": np.full(num_digits_max, -1, np.int32),
        "position": np.full((frames[1], num_digits_max, 2), np.nan, np.float32),
        "velocity": np.full((frames[1], num_digits_max, 2), np.nan, np.float32),
        "index": np.array(index, np.int64),
    }
    for k in range(draw_count(key, NUM_DIGITS, digits)):
        glyph_index = pool[0] + integer(draw(*key, GLYPH, k), pool[1] - pool[0])
        out["glyph_index"][k] = glyph_index
        out["label"][k] = labels[glyph_index]
        position = [unit(draw(*key, START_Y, k)), unit(draw(*key, START_X, k))]
        direction = list(draw_direction(key, k))
        speed_px = draw_speed(key, k, speed)
        for t in range(num_frames):
            corner = [0, 0]
            for axis in (0, 1):
                step = speed_px / travel[axis] if travel[axis] > 0 else 0.0
                position[axis] += direction[axis] * step
                if position[axis] <= 0.0:  # the overshoot is lost, as published
                    position[axis], direction[axis] = 0.0, -direction[axis]
                if position[axis] >= 1.0:
                    position[axis], direction[axis] = 1.0, -direction[axis]
                corner[axis] = int(travel[axis] * position[axis])  # truncates
                leaving = direction[axis] * speed_px if travel[axis] > 0 else 0.0
                out["position"][t, k, axis] = corner[axis]
                out["velocity"][t, k, axis] = leaving
            for i, row in enumerate(glyphs[glyph_index].tolist()):
                for j, ink in enumerate(row):
                    y, x = corner[0] + i, corner[1] + j
                    out["frames"][t, y, x] = max(int(out["frames"][t, y, x]), ink)
    return out
