"""Data sets on disk: what writing them takes, against plain scripts.

    python tests/benchmarks/bench_generate.py

`mmgen generate` writes the preset `srivastava` with all annotations, by one thread a core. The loop
beside it is one process: NumPy frames, and h5py with gzip level 1, chunks of one sequence; its
annotations are the fewer ones that such a loop has at hand. `store` is what is written of sequences
that lie in memory, by one thread: np.save has the frames alone, and returns before the disk has
them, ours is on disk with all annotations when it is timed.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from bench_render import SHAPE, numpy_bounce
from measure import (
    FULL,
    Candidate,
    Row,
    Size,
    alternate,
    faster,
    num_cores,
    print_table,
    smaller,
    status_mb,
)

import mmgen
from mmgen.generate import Block
from mmgen.glyphs import load_glyphs
from mmgen.shard.codecs import CODECS
from mmgen.shard.writer import ShardWriter

BLOCK = 500
ROUNDS = 2  # of what takes seconds each time


class Taken(NamedTuple):
    seconds: float
    peak_mb: float


def write_loop(folder: Path, num_sequences: int) -> None:
    """Write sequences as a plain script would."""
    glyphs = load_glyphs().images[:55_000]
    rng = np.random.default_rng(0)
    with h5py.File(folder / "loop.h5", "w") as file:
        shape = (num_sequences, *SHAPE)
        packed = {"compression": "gzip", "compression_opts": 1}
        stored = file.create_dataset("frames", shape, np.uint8, chunks=(1, *SHAPE), **packed)
        tracks, numbers = [], []
        for first in range(0, num_sequences, BLOCK):
            count = min(BLOCK, num_sequences - first)
            frames, track, picked = numpy_bounce(glyphs, count, rng)
            stored[first : first + count] = frames
            tracks.append(track.astype(np.float32))
            numbers.append(picked)
        position = np.concatenate(tracks, axis=2).transpose(2, 0, 3, 1)
        file.create_dataset("position", data=position, **packed)
        file.create_dataset("glyph_index", data=np.concatenate(numbers), **packed)


def generate(out: Path, num_sequences: int, *options: str) -> Taken:
    """Run the command."""
    counts = ["--train", str(num_sequences), "--val", "0", "--test", "0"]
    command = [sys.executable, "-m", "mmgen", "generate", str(out), "--json", *counts, *options]
    peak, start = 0.0, time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        with suppress(OSError, IndexError):  # it has just ended
            peak = status_mb("VmHWM", process.pid)
        time.sleep(0.01)
    assert process.returncode == 0, command
    return Taken(time.perf_counter() - start, peak)


def generate_and_forget(folder: Path, num_sequences: int) -> None:
    generate(folder / "set", num_sequences)
    shutil.rmtree(folder / "set")


def generate_rows(size: Size, folder: Path) -> Iterator[Row]:
    many, few = 24 * size.sequences, 2 * size.sequences
    command, loop = alternate(
        Candidate(lambda: generate_and_forget(folder, many), many),
        Candidate(lambda: write_loop(folder, few), few),
        rounds=min(size.rounds, ROUNDS),
    )
    name = f"`mmgen generate`, {num_cores()} cores"
    yield faster(name, command, "NumPy loop, h5py, gzip", loop, clock="wall")


def write_shard(path: Path, block: Block, codec: str) -> None:
    path.unlink(missing_ok=True)
    count, shape = len(block.frames), block.frames.shape[1:]
    with ShardWriter(path, count, shape, block.label.shape[1], {}, codec=codec) as writer:
        for first in range(0, count, BLOCK):
            part = {
                name: values[first : first + BLOCK]
                for name, values in vars(block).items()
                if values is not None
            }
            writer.write(part["frames"], part)
        writer.commit()


def save_array(path: Path, frames: np.ndarray) -> None:
    path.unlink(missing_ok=True)
    np.save(path, frames)


def store_rows(size: Size, folder: Path) -> Iterator[Row]:
    count = size.sequences
    block = mmgen.render("srivastava", count)
    plain = folder / "frames.npy"
    shards = {codec: folder / f"{codec}.h5" for codec in CODECS}
    saved, *written = alternate(
        Candidate(lambda: save_array(plain, block.frames), count),
        *(
            Candidate(lambda codec=codec, path=path: write_shard(path, block, codec), count)
            for codec, path in shards.items()
        ),
        rounds=size.rounds,
    )
    for codec, times in zip(shards, written, strict=True):
        yield faster(f"store, `{codec}`", times, "np.save", saved, clock="wall")
    for codec, path in shards.items():
        ours, theirs = (file.stat().st_size / count for file in (path, plain))
        yield smaller(f"stored, `{codec}`", ours, "np.save", theirs, "bytes a sequence")


def rows(size: Size) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        yield from store_rows(size, Path(name))
        yield from generate_rows(size, Path(name))


if __name__ == "__main__":
    print_table(rows(FULL))
