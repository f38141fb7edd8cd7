"""Sequences per second, memory and bytes of `mmgen generate` against a plain loop, in one run.

    python tests/benchmarks/bench_generate.py [SEQUENCES, default 1000000] [FOLDER]

The command writes the preset `srivastava` with all annotations and its default codec, by one thread
a core. The loop is one process: NumPy frames, and h5py with gzip level 1, chunks of one sequence;
its annotations are the fewer ones that such a loop has at hand.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from bench_render import SHAPE, numpy_bounce

from mmgen.glyphs import load_glyphs

LOOP_SEQUENCES = 10_000
SMALL = 100_000
BLOCK = 500


def loop_seconds(folder: Path) -> float:
    """Write LOOP_SEQUENCES as a plain script would."""
    glyphs = load_glyphs().images[:55_000]
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    with h5py.File(folder / "loop.h5", "w") as file:
        shape = (LOOP_SEQUENCES, *SHAPE)
        packed = {"compression": "gzip", "compression_opts": 1}
        stored = file.create_dataset("frames", shape, np.uint8, chunks=(1, *SHAPE), **packed)
        tracks, numbers = [], []
        for first in range(0, LOOP_SEQUENCES, BLOCK):
            frames, track, picked = numpy_bounce(glyphs, BLOCK, rng)
            stored[first : first + BLOCK] = frames
            tracks.append(track.astype(np.float32))
            numbers.append(picked)
        position = np.concatenate(tracks, axis=2).transpose(2, 0, 3, 1)
        file.create_dataset("position", data=position, **packed)
        file.create_dataset("glyph_index", data=np.concatenate(numbers), **packed)
    return time.perf_counter() - start


def generated(folder: Path, num_sequences: int) -> tuple[float, float, float, float]:
    """Run the command; return seconds, CPU seconds, peak RSS in MB, bytes a sequence."""
    out = folder / str(num_sequences)
    splits = ["--train", str(num_sequences), "--val", "0", "--test", "0"]
    start = time.perf_counter()
    command = [sys.executable, "-m", "mmgen", "generate", str(out), "--json", *splits]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    assert status == 0
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shutil.rmtree(out)
    cpu = usage.ru_utime + usage.ru_stime
    return seconds, cpu, usage.ru_maxrss / 1e3, size / num_sequences


def main() -> None:
    large = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    folder = Path(tempfile.mkdtemp(dir=sys.argv[2] if len(sys.argv) > 2 else None))
    try:
        generated(folder, 1)  # compiles the kernels where no cache has them
        rates = []
        print(
            "| what | seconds | sequences/s | CPU us a sequence | peak RSS MB | bytes a sequence |"
        )
        print("| --- | --: | --: | --: | --: | --: |")
        for num_sequences in (SMALL, large):
            loop = loop_seconds(folder)
            rates.append(LOOP_SEQUENCES / loop)
            print(f"| loop, {LOOP_SEQUENCES:,} | {loop:.1f} | {rates[-1]:,.0f} | | | |")
            seconds, cpu, peak, size = generated(folder, num_sequences)
            rates.append(num_sequences / seconds)
            print(
                f"| `mmgen generate`, {num_sequences:,} | {seconds:.1f} | {rates[-1]:,.0f} | "
                f"{cpu / num_sequences * 1e6:.0f} | {peak:.0f} | {size:.0f} |"
            )
        print(
            f"\nThe command against the loop: {rates[1] / rates[0]:.1f}, {rates[3] / rates[2]:.1f}"
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
