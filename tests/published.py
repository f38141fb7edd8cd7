"""The published Moving MNIST generators, each in the manner of its publication, fed with our draws.

They are written from the definitions and must never import mmgen: what they share with it are the
random numbers and nothing else. Each keeps its own arithmetic: where it starts, what frame 0 is,
the order of its checks, what a wall does, how a position becomes a pixel and digits one picture.
The picture of a digit that turns, grows or lies between pixels is OpenCV's.

T = 20 frames of H = W = 64, K digits of 28x28. Always (y, x), but where OpenCV wants (x, y).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]
Ink = NDArray[np.uint8]  # (28, 28), or a frame
Picture = NDArray[np.float32]

T, SIDE = 20, 64
TRAVEL = SIDE - 28
STEP = 0.1  # of the travel in a frame
WORD = 2**64
REBOUND_Y, REBOUND_X = 18, 19


@dataclass(frozen=True)
class Sequence:
    """What is random about one sequence; which of it a generator uses is its own affair.

    key           seed, split (0 train, 1 val, 2 test) and index: from these, a new start at a wall
    digits        K times uint8 (28, 28)
    start         (K, 2), a share of the travel in [0, 1); in `svg` whole px
    direction     (K, 2), of length 1; in `svg` whole px per frame
    speed_px, rotation, scale  (K,): px, degrees and factor per frame
    illumination  factor per frame
    """

    key: tuple[int, int, int]
    digits: list[Ink]
    start: Floats
    direction: Floats
    speed_px: Floats
    rotation: Floats
    scale: Floats
    illumination: float


def srivastava(sequence: Sequence) -> Ink:
    """Bounce all digits at once: emansim/unsupervised-videos, data_handler.py 334-445."""
    frames = np.zeros((T, SIDE, SIDE), np.float32)
    for frame, shares in zip(frames, _bounced_shares(sequence), strict=True):
        corners = (TRAVEL * shares).astype(np.int32)
        for digit, (top, left) in zip(sequence.digits, corners, strict=True):
            patch = frame[top : top + 28, left : left + 28]
            patch[:] = np.maximum(patch, digit.astype(np.float32) / 255)
    return _as_bytes(frames)


def srivastava_subpixel(sequence: Sequence) -> Picture:
    """Bounce in the same way, and draw each digit where it is instead of at whole px."""
    frames = np.zeros((T, SIDE, SIDE), np.float32)
    for frame, shares in zip(frames, _bounced_shares(sequence), strict=True):
        for digit, share in zip(sequence.digits, shares, strict=True):
            frame[:] = np.maximum(frame, _warped(digit.astype(np.float32), TRAVEL * share))
    return frames


def openstl(sequence: Sequence) -> Ink:
    """Bounce one digit after the other: chengtan9907/OpenSTL, dataloader_moving_mnist.py."""
    frames = np.zeros((T, SIDE, SIDE), np.float32)
    for k, digit in enumerate(sequence.digits):
        y, x = sequence.start[k].tolist()
        v_y, v_x = sequence.direction[k].tolist()
        bounce_y = bounce_x = 1
        for frame in frames:
            y += bounce_y * v_y * STEP
            x += bounce_x * v_x * STEP
            if x <= 0:
                x, bounce_x = 0.0, -bounce_x
            if x >= 1:
                x, bounce_x = 1.0, -bounce_x
            if y <= 0:
                y, bounce_y = 0.0, -bounce_y
            if y >= 1:
                y, bounce_y = 1.0, -bounce_y
            top, left = int(TRAVEL * y), int(TRAVEL * x)
            patch = frame[top : top + 28, left : left + 28]
            patch[:] = np.maximum(patch, digit.astype(np.float32))
    return _as_bytes(frames / np.float32(255))


def tfds(sequence: Sequence) -> Ink:
    """Fold straight lines into the canvas: tensorflow_datasets, video/moving_sequence.py."""
    moved = (sequence.direction * STEP) * np.arange(T)[:, None, None]
    shares = (sequence.start + moved) % 2
    corners = np.rint(np.minimum(2 - shares, shares) * TRAVEL).astype(int)
    alone = np.zeros((T, len(sequence.digits), SIDE, SIDE), np.uint8)
    for t, k in np.ndindex(alone.shape[:2]):
        top, left = corners[t, k]
        alone[t, k, top : top + 28, left : left + 28] = sequence.digits[k]
    brightest: Ink = alone.max(1)
    return brightest


def svg_deterministic(sequence: Sequence) -> Ink:
    """Move by whole px and turn round at a wall: edenton/svg, data/moving_mnist.py."""
    return _svg(sequence, is_deterministic=True)


def svg_stochastic(sequence: Sequence) -> Ink:
    """Move by whole px and draw a new velocity at a wall: edenton/svg, data/moving_mnist.py."""
    return _svg(sequence, is_deterministic=False)


def tencia(sequence: Sequence) -> Ink:
    """Look ahead and turn round before a wall 2 px outside: gist tencia/afb129122a64bde3bd0c."""
    rim = 2  # px around the canvas that take the parts of digits that nobody sees
    frames = np.zeros((T, SIDE + 2 * rim, SIDE + 2 * rim), int)
    for k, digit in enumerate(sequence.digits):
        at = [TRAVEL * start for start in sequence.start[k].tolist()]
        velocity = [sequence.speed_px[k] * v for v in sequence.direction[k].tolist()]
        for frame in frames:
            top, left = (rim + int(coordinate) for coordinate in at)
            frame[top : top + 28, left : left + 28] += digit
            for axis in (0, 1):
                ahead = at[axis] + velocity[axis]
                if ahead < -2 or ahead > TRAVEL + 2:
                    velocity[axis] = -velocity[axis]
                at[axis] += velocity[axis]
    return frames[:, rim:-rim, rim:-rim].clip(0, 255).astype(np.uint8)


def mnist_plus_plus(sequence: Sequence) -> Picture:
    """Turn, scale, dim and bounce by centres: sxjscience/HKO-7, movingmnist_iterator.py.

    Light can exceed 1, and with it the result 255.
    """
    light = np.ones(T)
    for t in range(1, T):
        light[t] = light[t - 1] * sequence.illumination ** -_sign(t)
    frames = np.zeros((T, SIDE, SIDE), np.float32)
    for k, digit in enumerate(sequence.digits):
        crop = cropped(digit).astype(np.float32)
        shift = sequence.start[k] * np.subtract(SIDE, crop.shape)
        velocity = sequence.speed_px[k] * sequence.direction[k]
        degrees, scale = 0.0, 1.0
        frames[0] = np.maximum(frames[0], _warped(crop, shift))
        for t in range(1, T):
            degrees += sequence.rotation[k]
            scale *= sequence.scale[k] ** _sign(t)
            shift = shift + velocity
            centre = shift + np.divide(crop.shape, 2)
            velocity = np.where((centre < 10) | (centre > SIDE - 10), -velocity, velocity)
            shift = shift + (centre.clip(10, SIDE - 10) - centre)
            seen = _warped(crop * np.float32(light[t]), shift, degrees, scale)
            frames[t] = np.maximum(frames[t], seen)
    return frames


def cropped(digit: Ink) -> Ink:
    """Cut a digit to the box of its ink brighter than 5."""
    rows, columns = np.nonzero(digit > 5)
    return digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _sign(t: int) -> int:
    """Return -1 in frames 1-4, 10-14, ..., where digits shrink or grow and dim, else 1."""
    return 2 * ((t // 5) % 2) - 1


def _bounced_shares(sequence: Sequence) -> Floats:
    """Return the positions (T, K, 2) of Srivastava et al. as shares of the travel."""
    y, x = sequence.start.T.copy()
    v_y, v_x = sequence.direction.T.copy()
    shares = np.empty((T, *sequence.start.shape))
    for t in range(T):
        y += v_y * STEP
        x += v_x * STEP
        for place, velocity in ((x, v_x), (y, v_y)):
            for is_past, wall in ((place <= 0, 0.0), (place >= 1, 1.0)):
                place[is_past] = wall
                velocity[is_past] *= -1
        shares[t] = np.stack([y, x], 1)
    return shares


def _svg(sequence: Sequence, *, is_deterministic: bool) -> Ink:
    frames = np.zeros((T, SIDE, SIDE), np.float32)
    for k, digit in enumerate(sequence.digits):
        larger = Image.fromarray(digit).resize((32, 32), Image.Resampling.BILINEAR)
        ink = np.asarray(larger).astype(np.float32)
        ink /= 255
        sy, sx = sequence.start[k].astype(int).tolist()
        dy, dx = sequence.direction[k].astype(int).tolist()
        for t, frame in enumerate(frames):
            # Before it is drawn, y first. A wall of x draws dy again too, perhaps back into the
            # wall that y has just met.
            if sy < 0 or sy >= SIDE - 32:
                sy, away = (0, (1, 5)) if sy < 0 else (SIDE - 32 - 1, (-4, 0))
                if is_deterministic:
                    dy = -dy
                else:
                    dy = _randint(sequence.key, REBOUND_Y, k, t, 0, *away)
                    dx = _randint(sequence.key, REBOUND_X, k, t, 0, -4, 5)
            if sx < 0 or sx >= SIDE - 32:
                sx, away = (0, (1, 5)) if sx < 0 else (SIDE - 32 - 1, (-4, 0))
                if is_deterministic:
                    dx = -dx
                else:
                    dx = _randint(sequence.key, REBOUND_X, k, t, 1, *away)
                    dy = _randint(sequence.key, REBOUND_Y, k, t, 1, -4, 5)
            frame[sy : sy + 32, sx : sx + 32] += ink
            sy += dy
            sx += dx
    frames[frames > 1] = 1
    return _as_bytes(frames)


def _randint(
    key: tuple[int, int, int], purpose: int, digit: int, frame: int, attempt: int,
    low: int, high: int,
) -> int:  # fmt: skip
    """Return an int in [low, high) from the hash of RENDERING.md, "Random numbers"."""
    state = 0
    for word in (*key, purpose * 2**32 + digit, frame * 2**32 + attempt):
        z = ((state ^ word) + 0x9E3779B97F4A7C15) % WORD
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
        state = z ^ (z >> 31)
    return low + state % (high - low)


def _warped(image: Picture, shift: Floats, degrees: float = 0.0, scale: float = 1.0) -> Picture:
    """Draw an image on the canvas, turned about its middle and scaled, its corner at `shift`."""
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    matrix[0, 2] += shift[1]
    matrix[1, 2] += shift[0]
    seen = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderValue=0)
    return seen.astype(np.float32)


def _as_bytes(frames: Picture) -> Ink:
    return np.rint(frames * 255).astype(np.uint8)
