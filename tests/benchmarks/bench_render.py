"""Sequences per second of the renderer against plain loops.

    python tests/benchmarks/bench_render.py

One thread, in memory, uint8, 20 x 64 x 64. The loops have the shape of every published generator:
Python over frames and digits, NumPy or cv2 on a patch or a canvas.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from measure import FULL, Candidate, Row, Size, alone, alternate, faster, print_table, spaced
from numpy.typing import NDArray

import mmgen
from mmgen.config import GeneratorConfig
from mmgen.glyphs import load_glyphs
from mmgen.presets import PRESETS, load_config

NUM_FRAMES = 20
SHAPE = (NUM_FRAMES, 64, 64)
IN_CACHE = 16  # sequences, 1.3 MB
GLYPH = 28
Glyphs = NDArray[np.uint8]


def numpy_tracks(
    num_sequences: int, rng: np.random.Generator, num_digits: int = 2
) -> NDArray[np.float64]:
    """Return tracks in shares of the travel, float64 (T, 2, N, K)."""
    position = rng.random((2, num_sequences, num_digits))
    angle = rng.random((num_sequences, num_digits)) * 2 * np.pi
    step = 0.1 * np.stack([np.sin(angle), np.cos(angle)])
    track = np.empty((NUM_FRAMES, *position.shape))
    for at in track:
        position += step
        step[(position <= 0) | (position >= 1)] *= -1
        np.clip(position, 0, 1, out=position)
        at[:] = position
    return track


def numpy_bounce(
    glyphs: Glyphs,
    num_sequences: int,
    rng: np.random.Generator,
    num_digits: int = 2,
    canvas: int = 64,
) -> tuple[Glyphs, NDArray[np.float64], NDArray[np.int64]]:
    """Render `srivastava`, np.maximum on a 28 x 28 patch; return frames, tracks, glyph indices."""
    tracks = (canvas - GLYPH) * numpy_tracks(num_sequences, rng, num_digits)
    corners = tracks.astype(np.int32)
    picked = rng.integers(len(glyphs), size=(num_sequences, num_digits))
    frames = np.zeros((num_sequences, NUM_FRAMES, canvas, canvas), np.uint8)
    for n, sequence in enumerate(frames):
        for t, frame in enumerate(sequence):
            for k in range(num_digits):
                top, left = corners[t, :, n, k]
                patch = frame[top : top + GLYPH, left : left + GLYPH]
                np.maximum(patch, glyphs[picked[n, k]], out=patch)
    return frames, tracks, picked


def numpy_subpixel(glyphs: Glyphs, num_sequences: int, rng: np.random.Generator) -> None:
    """Render a bounce at fractions of a px: four shifted glyphs by their weights, float32."""
    places = 35 * numpy_tracks(num_sequences, rng)
    picked = rng.integers(len(glyphs), size=(num_sequences, 2))
    frames = np.zeros((num_sequences, *SHAPE), np.uint8)
    for n, sequence in enumerate(frames):
        bordered = np.pad(glyphs[picked[n]], ((0, 0), (1, 1), (1, 1))).astype(np.float32)
        for t, frame in enumerate(sequence):
            for k, glyph in enumerate(bordered):
                (top, y), (left, x) = (divmod(place, 1) for place in places[t, :, n, k].tolist())
                rows = (1 - y) * glyph[1:] + y * glyph[:-1]
                ink = (1 - x) * rows[:, 1:] + x * rows[:, :-1]
                patch = frame[int(top) : int(top) + 29, int(left) : int(left) + 29]
                np.maximum(patch, np.rint(ink).astype(np.uint8), out=patch)


def cv2_advanced(glyphs: Glyphs, num_sequences: int, rng: np.random.Generator) -> None:
    """Render `mnist++`: cv2.warpAffine of each crop onto a canvas, np.maximum, float32."""
    for _ in range(num_sequences):
        crops = []
        for number in rng.integers(len(glyphs), size=3):
            is_ink = glyphs[number] > 5
            crops.append(glyphs[number][np.ix_(is_ink.any(1), is_ink.any(0))].astype(np.float32))
        size = np.array([crop.shape for crop in crops])
        place = rng.random((3, 2)) * (64 - size)
        heading = rng.random(3) * 2 * np.pi
        velocity = rng.random((3, 1)) * 3.6 * np.stack([np.sin(heading), np.cos(heading)], 1)
        turn, growth = rng.uniform(-30, 30, 3), rng.uniform(1 / 1.1, 1.1, 3)
        dimming, light, angle, scale = rng.uniform(0.6, 1), 1.0, np.zeros(3), np.ones(3)
        frames = np.empty(SHAPE, np.uint8)
        for t, frame in enumerate(frames):
            canvas = np.zeros(SHAPE[1:], np.float32)
            if t:
                sense = 2 * (t // 5 % 2) - 1
                light, scale, angle = light * dimming**-sense, scale * growth**sense, angle + turn
                centre = place + velocity + size / 2
                velocity[(centre < 10) | (centre > 54)] *= -1
                place = centre.clip(10, 54) - size / 2
            for k, crop in enumerate(crops):
                height, width = crop.shape
                matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle[k], scale[k])
                matrix[:, 2] += place[k, ::-1]
                np.maximum(
                    canvas, cv2.warpAffine(crop * np.float32(light), matrix, SHAPE[1:]), out=canvas
                )
            frame[:] = (canvas + 0.5).clip(0, 255)


def ours(
    config: GeneratorConfig, total: int, block: int = IN_CACHE, truth: tuple[str, ...] = ()
) -> Candidate:
    """Render about `total` sequences, block by block into the same memory."""
    out = np.empty((block, config.frames.high, *config.frame_shape), np.uint8)
    times = max(1, total // block)

    def run() -> None:
        for first in range(0, times * block, block):
            mmgen.render(config, range(first, first + block), out=out, truth=truth)

    return Candidate(run, times * block)


def zeroing(total: int, block: int) -> Candidate:
    out = np.empty((block, *SHAPE), np.uint8)
    times = max(1, total // block)
    return Candidate(lambda: [out.fill(0) for _ in range(times)], times * block)


def unseen_digits() -> Glyphs:
    return load_glyphs().images[60_000:]


def classic_rows(size: Size) -> Iterator[Row]:
    glyphs, rng = unseen_digits(), np.random.default_rng(0)
    config, few = load_config("srivastava"), max(1, size.sequences // 32)
    for block in (IN_CACHE, size.sequences):
        frames, annotated, loop, zeroed = alternate(
            # As many as are zeroed: both begin in caches that the loop left.
            ours(config, size.sequences, block),
            ours(config, size.sequences, block, ("box", "visible")),
            Candidate(lambda: numpy_bounce(glyphs, few, rng), few),
            zeroing(size.sequences, block),
            rounds=size.rounds,
        )
        name = f"render `srivastava`, {spaced(block)} at a time"
        yield faster(name, frames, "NumPy loop", loop)
        yield faster(f"{name}, all annotations", annotated, "NumPy loop, without", loop)
        yield faster(name, frames, "zeroing the memory: no more is possible", zeroed)


def turned_rows(size: Size) -> Iterator[Row]:
    glyphs, rng = unseen_digits(), np.random.default_rng(0)
    total, few = max(1, size.sequences // 4), max(1, size.sequences // 40)
    subpixel = load_config("srivastava", assignments=["rounding=subpixel"])
    for name, config, way, loop in (
        ("render `mnist++`", load_config("mnist++"), "cv2.warpAffine loop", cv2_advanced),
        ("render `srivastava` at fractions of a px", subpixel, "NumPy loop", numpy_subpixel),
    ):
        frames, annotated, theirs = alternate(
            ours(config, total),
            ours(config, total, truth=("box", "visible")),
            Candidate(lambda loop=loop: loop(glyphs, few, rng), few),
            rounds=size.rounds,
        )
        yield faster(name, frames, way, theirs)
        yield faster(f"{name}, all annotations", annotated, f"{way}, without", theirs)


def preset_rows(size: Size) -> Iterator[Row]:
    """Say how fast each of the other presets is, frames alone."""
    names = [name for name in PRESETS if name not in ("srivastava", "mnist++")]
    candidates = [ours(load_config(name), size.sequences // 4) for name in names]
    for name, times in zip(names, alternate(*candidates, rounds=size.rounds), strict=True):
        yield alone(f"render `{name}`", times)


def rows(size: Size) -> Iterator[Row]:
    cv2.setNumThreads(1)
    yield from classic_rows(size)
    yield from turned_rows(size)
    yield from preset_rows(size)


if __name__ == "__main__":
    print_table(rows(FULL))
