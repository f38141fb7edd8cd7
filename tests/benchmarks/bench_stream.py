"""Sequences per second of the stream against memory and a DataLoader, side by side in one run.

    python tests/benchmarks/bench_stream.py [--sequences N] [--folder FOLDER]

Shuffled batches of 128, uint8, 20 x 64 x 64, one reader thread, everything in the page cache:
what storage costs is not in here. Rounds alternate, so that a busy machine slows all; what to read
are the ratios, each the median of its rounds. The table goes to stdout and, with the machine's
name, to results/bench_stream.md.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmgen.pipeline import generate_dataset
from mmgen.presets import load_config
from trainer.source import open_source
from trainer.stream import Memory, SequenceStream

RESULTS = Path(__file__).parent / "results" / "bench_stream.md"
SHAPE = (20, 64, 64)
BATCH = 128
BATCHES = 48
ROUNDS = 7
STORED = 16_384  # sequences of each codec's set
SHARD = 8192
SMALL = 10_000
CODECS = ("gzip", "zstd", "lz4", "none")

Candidate = tuple[Callable[[], object], int]


class Slices(Dataset[Tensor]):
    """What one writes first: each sequence a slice of an h5py dataset, files kept open."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted((folder / "train").glob("*.h5"))
        self.files: dict[int, Any] = {}

    def __len__(self) -> int:
        return STORED

    def __getitem__(self, index: int) -> Tensor:
        number, row = divmod(index, SHARD)
        if number not in self.files:
            self.files[number] = h5py.File(self.paths[number])["frames"]
        return torch.from_numpy(self.files[number][row])


def streaming(address: str) -> Candidate:
    """Take batches from the stream, each dropped when the next one comes."""
    stream = SequenceStream(address, BATCH)

    def run() -> None:
        with closing(iter(stream)) as batches:
            for _ in islice(batches, BATCHES):
                pass

    return run, BATCHES * BATCH


class Fresh(Memory):
    """What one writes first: new memory for every batch."""

    def take(self, num_sequences: int) -> Tensor:
        return torch.empty((num_sequences, *SHAPE), dtype=torch.uint8)


def streaming_into_fresh(address: str) -> Candidate:
    run, num_sequences = streaming(address)

    def patched() -> None:
        with patch("trainer.stream.Memory", Fresh):
            run()

    return patched, num_sequences


def copying(rows: np.ndarray) -> Candidate:
    """Copy shuffled rows into the memory that the stream reads into."""
    memory = Memory(BATCH, SHAPE, is_pinned=False)
    rng = np.random.default_rng(0)

    def run() -> None:
        for _ in range(BATCHES):
            out = memory.take(BATCH).numpy()
            for place, row in enumerate(rng.integers(len(rows), size=BATCH).tolist()):
                np.copyto(out[place], rows[row])

    return run, BATCHES * BATCH


def loading(folder: Path, num_batches: int = 32) -> Candidate:
    """Take batches from a DataLoader with 2 workers; their start is not counted."""

    def run() -> float:
        dataset = Slices(folder)
        loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=2)
        batches = iter(loader)
        next(batches)
        start = time.perf_counter()
        for _ in islice(batches, num_batches):
            pass
        return time.perf_counter() - start

    return run, num_batches * BATCH


def alternate(*candidates: Candidate) -> list[list[float]]:
    """Run candidates in turn; return the rates of each but of the first round, which warms up."""
    rates = []
    for _ in range(ROUNDS + 1):
        rates.append([])
        for function, num_sequences in candidates:
            start = time.perf_counter()
            own_clock = function()
            seconds = own_clock if isinstance(own_clock, float) else time.perf_counter() - start
            rates[-1].append(num_sequences / seconds)
    return [list(column) for column in zip(*rates[1:], strict=True)]


def row(name: str, rate: list[float], against: str, other: list[float]) -> str:
    ratio = median(one / two for one, two in zip(rate, other, strict=True))
    return f"| {name} | {median(rate):,.0f} | {against} {median(other):,.0f} | {ratio:.2f} |"


def speeds(folder: Path) -> list[str]:
    """Measure every codec, and live data."""
    sets = {codec: make_set(folder / codec, STORED, codec) for codec in CODECS}
    rows = np.empty((4096, *SHAPE), np.uint8)
    open_source(str(sets["gzip"]), "train").read(np.arange(4096), rows)
    rates = alternate(
        copying(rows),
        streaming_into_fresh("live:srivastava"),
        loading(sets["gzip"]),
        streaming("live:srivastava"),
        *(streaming(str(path)) for path in sets.values()),
    )
    copied, fresh, loaded, live = rates[:4]
    lines = []
    for codec, rate in zip(sets, rates[4:], strict=True):
        lines.append(row(f"stream, `{codec}`", rate, "copied rows", copied))
        if codec == "gzip":
            lines.append(row(f"stream, `{codec}`", rate, "DataLoader over h5py", loaded))
    lines.append(row("stream, `live:srivastava`", live, "copied rows", copied))
    lines.append(row("stream, `live:srivastava`", live, "into fresh memory", fresh))
    return lines


def make_set(path: Path, count: int, codec: str = "gzip") -> Path:
    config = load_config("srivastava")
    generate_dataset(path, config, {"train": count}, shard_size=SHARD, codec=codec)
    return path


def peak_mb(path: Path, count: int) -> float:
    """Stream an epoch in a process of its own; return its peak RSS."""
    command = [sys.executable, __file__, "--stream", str(path), "--sequences", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def stream_epoch(path: str, count: int) -> None:
    with closing(iter(SequenceStream(path, BATCH))) as batches:
        for _ in islice(batches, count // BATCH):
            pass
    # ru_maxrss would be that of the process that started this one, where that was larger.
    status = Path("/proc/self/status").read_text()
    print(int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 1024)


def machine() -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = model.group(1) if model else platform.machine()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {name}, {len(os.sched_getaffinity(0))} cores, Python "
        f"{platform.python_version()}, NumPy {np.__version__}, torch {torch.__version__}, h5py "
        f"{h5py.__version__}. Page cache warm; medians of {ROUNDS} alternating rounds."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sequences", type=int, default=1_000_000, help="of the large set")
    parser.add_argument("--folder", type=Path, help="where the sets go; a temporary one")
    parser.add_argument("--stream", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stream:
        stream_epoch(options.stream, options.sequences)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        lines = speeds(folder)
        peaks = {
            count: peak_mb(make_set(folder / str(count), count), count)
            for count in (SMALL, options.sequences)
        }
    few, many = peaks.values()
    lines.append(
        f"| peak RSS in MB, an epoch of {options.sequences:,} | {many:,.0f} | "
        f"of {SMALL:,} {few:,.0f} | {many / few:.2f} |"
    )
    table = "| what | sequences/s | against | ratio |\n| --- | --: | --: | --: |\n" + "\n".join(
        lines
    )
    print(table)
    RESULTS.write_text(f"# bench_stream.py\n\n{machine()}\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
