"""Sequences per second of the renderer against the plain NumPy loop, side by side in one run.

    python tests/benchmarks/bench_render.py

One thread, in memory, uint8, preset `srivastava` (2 digits, 20 x 64 x 64). The NumPy loop is the
shape of every published generator: a Python loop over frames and digits, np.maximum on a 28 x 28
patch. Rounds alternate, so that a busy machine slows both; the ratio is what to read.
"""

import platform
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray

import mmgen
from mmgen.glyphs import load_glyphs

SHAPE = (20, 64, 64)
ROUNDS = 9


def numpy_loop(glyphs: NDArray[np.uint8], num_sequences: int, rng: np.random.Generator) -> None:
    """Render in NumPy: trajectories as arrays over the batch, then a loop over every patch."""
    position = rng.random((2, num_sequences, 2))
    angle = rng.random((num_sequences, 2)) * 2 * np.pi
    step = 0.1 * np.stack([np.sin(angle), np.cos(angle)])
    corners = np.empty((SHAPE[0], *position.shape), np.int32)
    for corner in corners:
        position += step
        step[(position <= 0) | (position >= 1)] *= -1
        np.clip(position, 0, 1, out=position)
        corner[:] = 36 * position
    picked = rng.integers(len(glyphs), size=(num_sequences, 2))
    frames = np.zeros((num_sequences, *SHAPE), np.uint8)
    for n, sequence in enumerate(frames):
        for t, frame in enumerate(sequence):
            for k in range(2):
                top, left = corners[t, :, n, k]
                patch = frame[top : top + 28, left : left + 28]
                np.maximum(patch, glyphs[picked[n, k]], out=patch)


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    glyphs = load_glyphs().images[60_000:]
    rng = np.random.default_rng(0)
    blocks = {size: np.empty((size, *SHAPE), np.uint8) for size in (64, 2048)}
    candidates: dict[str, tuple[int, Callable[[], object]]] = {
        "NumPy loop": (200, lambda: numpy_loop(glyphs, 200, rng))
    }
    for size, out in blocks.items():
        candidates[f"mmgen, blocks of {size}"] = (
            size,
            lambda size=size, out=out: mmgen.render("srivastava", size, out=out),
        )
        candidates[f"zeroing, blocks of {size}"] = (size, lambda out=out: out.fill(0))
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(ROUNDS + 1):
        for name, (size, function) in candidates.items():
            rate = size / seconds(function)
            if number:  # the first round compiles and faults pages in
                rates[name].append(rate)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    loop = median(rates["NumPy loop"])
    for name, values in rates.items():
        print(
            f"{name:24} {median(values):10.0f} sequences/s {median(values) / loop:8.1f} x the loop"
        )


if __name__ == "__main__":
    main()
