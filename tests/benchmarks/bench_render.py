"""Sequences per second of the renderer against plain loops, side by side in one run.

    python tests/benchmarks/bench_render.py

One thread, in memory, uint8, 20 x 64 x 64. The loops have the shape of every published generator:
Python over frames and digits, NumPy or cv2 on a patch or a canvas. Rounds alternate, so that a busy
machine slows both, and one thread is timed by the CPU time it takes; what to read are the ratios,
each the median of its rounds.
"""

import math
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import cv2
import numpy as np
from numpy.typing import NDArray

import mmgen
from mmgen.config import GeneratorConfig
from mmgen.generate import block_length
from mmgen.glyphs import load_glyphs
from mmgen.presets import load_config

SHAPE = (20, 64, 64)
SEQUENCE_BYTES = math.prod(SHAPE)
ROUNDS = 15
IN_CACHE, IN_RAM = 16, 2048  # 1.3 and 168 MB
Glyphs = NDArray[np.uint8]


def numpy_tracks(num_sequences: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return tracks of two digits in shares of the travel, float64 (T, 2, N, K)."""
    position = rng.random((2, num_sequences, 2))
    angle = rng.random((num_sequences, 2)) * 2 * np.pi
    step = 0.1 * np.stack([np.sin(angle), np.cos(angle)])
    track = np.empty((SHAPE[0], *position.shape))
    for at in track:
        position += step
        step[(position <= 0) | (position >= 1)] *= -1
        np.clip(position, 0, 1, out=position)
        at[:] = position
    return track


def numpy_bounce(
    glyphs: Glyphs, num_sequences: int, rng: np.random.Generator
) -> tuple[Glyphs, NDArray[np.float64], NDArray[np.int64]]:
    """Render `srivastava`, np.maximum on a 28 x 28 patch; return frames, tracks, glyph indices."""
    tracks = 36 * numpy_tracks(num_sequences, rng)
    corners = tracks.astype(np.int32)
    picked = rng.integers(len(glyphs), size=(num_sequences, 2))
    frames = np.zeros((num_sequences, *SHAPE), np.uint8)
    for n, sequence in enumerate(frames):
        for t, frame in enumerate(sequence):
            for k in range(2):
                top, left = corners[t, :, n, k]
                patch = frame[top : top + 28, left : left + 28]
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


def per_second(
    function: Callable[[], object], num_sequences: int, clock: Callable[[], float]
) -> float:
    """Run something once; return sequences per second."""
    start = clock()
    function()
    return num_sequences / (clock() - start)


def alternate(
    *candidates: tuple[Callable[[], object], int], clock: Callable[[], float] = time.thread_time
) -> list[list[float]]:
    """Run candidates in turn; return the rates of each but of the first round, which compiles."""
    rates = [
        [per_second(function, num_sequences, clock) for function, num_sequences in candidates]
        for _ in range(ROUNDS + 1)
    ]
    return [list(column) for column in zip(*rates[1:], strict=True)]


def ours(
    config: GeneratorConfig, block: int, truth: tuple[str, ...] = (), total: int = 0
) -> tuple[Callable[[], object], int]:
    """Render about `total` sequences, block by block into the same memory."""
    out = np.empty((block, *SHAPE), np.uint8)
    times = max(1, total // block)

    def run() -> None:
        for first in range(0, times * block, block):
            mmgen.render(config, range(first, first + block), out=out, truth=truth)

    return run, times * block


def zeroing(block: int) -> tuple[Callable[[], object], int]:
    out = np.empty((block, *SHAPE), np.uint8)
    times = max(1, IN_RAM // block)
    return lambda: [out.fill(0) for _ in range(times)], times * block


def in_threads(config: GeneratorConfig, num_threads: int) -> tuple[Callable[[], object], int]:
    """Render 4096 sequences in the blocks that `mmgen generate` takes, in a pool of threads."""
    jobs = [ours(config, block_length(config), total=IN_RAM // 2) for _ in range(4)]

    def run() -> None:
        with ThreadPoolExecutor(num_threads) as pool:
            list(pool.map(lambda job: job[0](), jobs))

    return run, sum(job[1] for job in jobs)


def show(name: str, rate: list[float], against: str, other: list[float]) -> None:
    ratio = median(one / two for one, two in zip(rate, other, strict=True))
    print(f"| {name} | {median(rate):,.0f} | {against} {median(other):,.0f} | {ratio:.2f} |")


def main() -> None:
    cv2.setNumThreads(1)
    glyphs = load_glyphs().images[60_000:]
    rng = np.random.default_rng(0)
    classic, advanced = load_config("srivastava"), load_config("mnist++")
    subpixel = load_config("srivastava", assignments=["rounding=subpixel"])
    everything = ("box", "visible")
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}\n")
    print("| what | sequences/s | against | ratio |\n| --- | --: | --: | --: |")
    total = IN_RAM  # as many as are zeroed: both begin in caches that the NumPy loop left
    for block in (IN_CACHE, IN_RAM):
        rates = alternate(
            ours(classic, block, total=total),
            zeroing(block),
            (lambda: numpy_bounce(glyphs, 60, rng), 60),
            ours(classic, block, ("box",), total),
            ours(classic, block, everything, total),
        )
        name = f"`srivastava`, blocks of {block}"
        show(name, rates[0], "zeroing", rates[1])
        show(name, rates[0], "NumPy loop", rates[2])
        show(f"{name}, all but `visible`", rates[3], "frames alone", rates[0])
        show(f"{name}, all annotations", rates[4], "frames alone", rates[0])
    for name, config, loop, label in (
        ("`mnist++`", advanced, cv2_advanced, "cv2 loop"),
        ("subpixel bounce", subpixel, numpy_subpixel, "NumPy loop"),
    ):
        rates = alternate(
            ours(config, IN_CACHE, total=120),
            (lambda loop=loop: loop(glyphs, 12, rng), 12),
            ours(config, IN_CACHE, ("box",), 120),
            ours(config, IN_CACHE, everything, 120),
        )
        show(name, rates[0], label, rates[1])
        show(f"{name}, all but `visible`", rates[2], "frames alone", rates[0])
        show(f"{name}, all annotations", rates[3], "frames alone", rates[0])
    rates = alternate(in_threads(classic, 2), in_threads(classic, 1), clock=time.perf_counter)
    show("`srivastava`, two threads", rates[0], "one", rates[1])
    rates = alternate(in_threads(advanced, 2), in_threads(advanced, 1), clock=time.perf_counter)
    show("`mnist++`, two threads", rates[0], "one", rates[1])


if __name__ == "__main__":
    main()
