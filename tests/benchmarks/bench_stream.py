"""Batches in random order, from shards and live, against a DataLoader over h5py and torchvision's.

    python tests/benchmarks/bench_stream.py

Shuffled batches, uint8, 20 x 64 x 64, one thread that reads beside the one that takes the batches,
everything in the page cache: what storage costs is not in here. A DataLoader's workers have one
open file each; their start, and that of torchvision's set, which reads all of its file, are not
counted. Times are on the wall.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  # with it h5py reads zstd and lz4
import numpy as np
import torch
from measure import (
    FULL,
    Candidate,
    Row,
    Size,
    alternate,
    faster,
    in_new_process,
    print_table,
    smaller,
    spaced,
    status_mb,
)
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import MovingMNIST

import mmgen
from mmgen.export import export_split
from mmgen.pipeline import generate_dataset
from mmgen.presets import load_config
from mmgen.shard.codecs import CODECS
from trainer.source import open_source
from trainer.stream import Memory, SequenceStream

SHAPE = (20, 64, 64)
LIVE = "live:srivastava"
WORKERS = 2


class Slices(Dataset[Tensor]):
    """What one writes first: each sequence a slice of an h5py dataset, the file kept open."""

    def __init__(self, folder: Path) -> None:
        (self.path,) = (folder / "train").glob("*.h5")
        self.frames: Any = None
        with h5py.File(self.path) as file:
            self.count = len(file["frames"])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        if self.frames is None:
            self.frames = h5py.File(self.path, locking=False)["frames"]
        return torch.from_numpy(self.frames[index])


def streaming(address: object, size: Size, num_sequences: int) -> Candidate:
    """Take batches from the stream, each dropped when the next one comes."""
    stream = SequenceStream(str(address), size.batch)
    num_batches = num_sequences // size.batch

    def run() -> None:
        with closing(iter(stream)) as batches:
            for _ in islice(batches, num_batches):
                pass

    return Candidate(run, num_batches * size.batch)


def copying(folder: Path, size: Size, num_sequences: int) -> Candidate:
    """Copy shuffled rows into the memory that the stream reads into."""
    rows = np.empty((num_sequences // 2, *SHAPE), np.uint8)
    open_source(str(folder), "train").read(np.arange(len(rows)), rows)
    memory = Memory(size.batch, SHAPE, is_pinned=False)
    rng = np.random.default_rng(0)
    num_batches = num_sequences // size.batch

    def run() -> None:
        for _ in range(num_batches):
            out = memory.take(size.batch).numpy()
            for place, row in enumerate(rng.integers(len(rows), size=size.batch).tolist()):
                np.copyto(out[place], rows[row])

    return Candidate(run, num_batches * size.batch)


def loading(dataset: Dataset[Tensor], size: Size, num_sequences: int, workers: int) -> Candidate:
    """Take batches from a DataLoader; the first, with which its workers start, is not counted."""
    num_batches = num_sequences // size.batch - 1

    def run() -> float:
        loader = DataLoader(dataset, size.batch, shuffle=True, num_workers=workers)
        batches = iter(loader)
        next(batches)
        start = time.perf_counter()
        for _ in islice(batches, num_batches):
            pass
        return time.perf_counter() - start

    return Candidate(run, num_batches * size.batch)


def make_set(path: Path, count: int, codec: str = "gzip") -> Path:
    config = load_config("srivastava")
    generate_dataset(path, config, {"train": count}, shard_size=count, codec=codec)
    return path


def make_torchvision_file(folder: Path, of_set: Path) -> Path:
    export_split(mmgen.open(of_set)["train"], folder, "npy")
    return folder


def shard_rows(size: Size, sets: dict[str, Path], count: int) -> Iterator[Row]:
    names = [f"stream of `{codec}` shards" for codec in sets]
    times = alternate(
        *(streaming(path, size, count) for path in sets.values()),
        *(loading(Slices(path), size, count // 2, WORKERS) for path in sets.values()),
        rounds=size.rounds,
    )
    way = f"h5py, DataLoader, {WORKERS} workers"
    for name, taken, theirs in zip(names, times, times[len(names) :], strict=False):
        yield faster(name, taken, way, theirs, clock="wall")


def memory_rows(size: Size, sets: dict[str, Path], in_memory: Path, count: int) -> Iterator[Row]:
    """Compare with torchvision's set, which lies in memory, and with what memory can do."""
    theirs = MovingMNIST(in_memory)
    plain, working, copied, live, *stored = alternate(
        loading(theirs, size, count, 0),
        loading(theirs, size, count, WORKERS),
        copying(sets["gzip"], size, count),
        streaming(LIVE, size, count),
        *(streaming(sets[codec], size, count) for codec in ("gzip", "none")),
        rounds=size.rounds,
    )
    names = (f"stream of `{LIVE}`", "stream of `gzip` shards", "stream of `none` shards")
    way = "torchvision.MovingMNIST in memory, DataLoader"
    for name, taken in zip(names, (live, *stored), strict=True):
        yield faster(name, taken, way, plain, clock="wall")
        yield faster(name, taken, f"{way}, {WORKERS} workers", working, clock="wall")
        if taken is not stored[0]:
            yield faster(name, taken, "rows copied in memory", copied, clock="wall")
    ours = in_new_process(stream_peak_mb, sets["gzip"], size, count)
    peak = in_new_process(torchvision_peak_mb, in_memory, size)
    name = f"an epoch of {spaced(count)} sequences, `gzip` shards"
    yield smaller(name, ours, "torchvision.MovingMNIST in memory", peak, "MB, peak")


def stream_peak_mb(path: Path, size: Size, count: int) -> float:
    """Return what an epoch needs at its fullest, beyond what this process had before."""
    before = status_mb("VmRSS")
    streaming(path, size, count).run()
    return status_mb("VmHWM") - before


def torchvision_peak_mb(folder: Path, size: Size) -> float:
    before = status_mb("VmRSS")
    for _ in DataLoader(MovingMNIST(folder), size.batch, shuffle=True):
        pass
    return status_mb("VmHWM") - before


def rows(size: Size) -> Iterator[Row]:
    torch.set_num_threads(1)
    count = 4 * size.sequences
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {codec: make_set(folder / codec, count, codec) for codec in CODECS}
        in_memory = make_torchvision_file(folder / "torchvision", sets["gzip"])
        yield from shard_rows(size, sets, count)
        yield from memory_rows(size, sets, in_memory, count)


if __name__ == "__main__":
    print_table(rows(FULL))
