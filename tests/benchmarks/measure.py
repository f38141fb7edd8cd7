"""What the benchmarks share: candidates that alternate, rows of the table, the machine's name.

Candidates take turns, so that a busy machine slows all; what to read are the ratios, each the
median of its rounds.
"""

import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

CPU = torch.device("cpu")
HEADER = (
    "| what | ours | the others' way | theirs | ratio | unit |\n"
    "| --- | --: | --- | --: | --: | --- |"
)
PACKAGES = ("numpy", "numba", "h5py", "opencv-python-headless", "torch", "torchvision")

# From the seconds that a sequence or a step takes to what the table says, by its unit.
UNITS: dict[str, Callable[[float], float]] = {
    "sequences/s": lambda seconds: 1 / seconds,
    "ms a step": lambda seconds: 1e3 * seconds,
    "ms a batch": lambda seconds: 1e3 * seconds,
    "ms a sequence": lambda seconds: 1e3 * seconds,
}


class Size(NamedTuple):
    """How much is measured; `make bench` takes minutes on two cores at the first, tests the last.

    sequences  what every other number of sequences is made of
    points     of a curve
    """

    rounds: int
    sequences: int
    batch: int
    hidden: int
    points: int


FULL = Size(rounds=5, sequences=2048, batch=128, hidden=512, points=4)
TINY = Size(rounds=1, sequences=32, batch=16, hidden=16, points=1)


class Candidate(NamedTuple):
    """What is timed, and how many sequences or steps a call of it does."""

    run: Callable[[], object]
    amount: int = 1


class Times(NamedTuple):
    """Seconds a sequence or a step, round by round: of this process's CPU, and on the wall."""

    cpu: list[float]
    wall: list[float]


def alternate(*candidates: Candidate, rounds: int, device: torch.device = CPU) -> list[Times]:
    """Call candidates in turn; return the times of each but of the first round, which warms up."""
    times = [Times([], []) for _ in candidates]
    for _ in range(rounds + 1):
        for candidate, taken in zip(candidates, times, strict=True):
            cpu, start = time.process_time(), time.perf_counter()
            own_clock = candidate.run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            wall = time.perf_counter() - start
            taken.cpu.append((time.process_time() - cpu) / candidate.amount)
            taken.wall.append(
                (own_clock if isinstance(own_clock, float) else wall) / candidate.amount
            )
    return [Times(taken.cpu[1:], taken.wall[1:]) for taken in times]


class Row(NamedTuple):
    """A row of the table; a ratio above 1 is in our favour, whatever the unit."""

    what: str
    ours: float
    way: str
    theirs: float | None
    ratio: float | None
    unit: str

    def __str__(self) -> str:
        numbers = [
            "" if value is None else shown(value, digits)
            for value, digits in ((self.ours, 3), (self.theirs, 3), (self.ratio, 2))
        ]
        ours, theirs, ratio = numbers
        return f"| {self.what} | {ours} | {self.way} | {theirs} | {ratio} | {self.unit} |"


def shown(value: float, digits: int) -> str:
    """Round to significant digits, a space between thousands: 94 400, 4.6."""
    decimals = digits - 1 - math.floor(math.log10(value))
    return spaced(round(value, decimals), max(0, decimals))


def spaced(value: float, decimals: int = 0) -> str:
    return f"{value:,.{decimals}f}".replace(",", " ")


def faster(
    what: str, ours: Times, way: str, theirs: Times, unit: str = "sequences/s", clock: str = "cpu"
) -> Row:
    """Compare times of alternating rounds."""
    one, other = getattr(ours, clock), getattr(theirs, clock)
    ratio = median(old / new for old, new in zip(other, one, strict=True))
    return Row(what, UNITS[unit](median(one)), way, UNITS[unit](median(other)), ratio, unit)


def alone(what: str, ours: Times, unit: str = "sequences/s", clock: str = "cpu") -> Row:
    """Say a speed that nobody else has."""
    return Row(what, UNITS[unit](median(getattr(ours, clock))), "", None, None, unit)


def smaller(what: str, ours: float, way: str, theirs: float, unit: str) -> Row:
    return Row(what, ours, way, theirs, theirs / ours, unit)


def in_new_process(function: Callable[..., Any], *arguments: object) -> Any:
    """Call a function where nothing else has taken memory or threads yet."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def status_mb(field: str, process: int | str = "self") -> float:
    # ru_maxrss would be that of the process that started this one, where that was larger.
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(rf"{field}:\s*(\d+) kB", status)[0]) * 1024 / 1e6


def num_cores() -> int:
    return len(os.sched_getaffinity(0))


def cpu_name() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else platform.machine()


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # another build of it
            continue
    return ", ".join(found)


def print_table(rows: Iterable[Row]) -> None:
    print(HEADER)
    for row in rows:
        print(row, flush=True)
