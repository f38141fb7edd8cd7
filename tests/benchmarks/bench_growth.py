"""How each cost grows: with sequences, digits, canvas and processes; a curve and a CSV file each.

Rendering is one thread and CPU time, all else is time on the wall. What is small is measured with
what starting it takes.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from bench_generate import Taken, generate
from bench_render import numpy_bounce, ours, unseen_digits
from bench_stream import streaming
from matplotlib.ticker import FuncFormatter, LogLocator
from measure import Candidate, Size, alternate, in_new_process, num_cores, spaced, status_mb

from mmgen.presets import load_config
from trainer.plot import Plot, add_legend, as_small_png, new_figure
from trainer.result_files import as_csv

DIGITS = (1, 2, 4, 8)
CANVASES = (32, 64, 128, 256)
MOST_PROCESSES = 8
STEPS = 30  # of training; the first ten start up


class Growth(NamedTuple):
    """What something costs at each of some places: name of a curve -> a value at each."""

    name: str
    title: str
    along: str
    cost: str
    places: tuple[int, ...]
    curves: dict[str, list[float]]


def rendered(size: Size, digits: int, canvas: int) -> tuple[float, float, float]:
    """Return us a sequence: ours, with all annotations, and the NumPy loop."""
    assignments = [f"digits={digits}", f"canvas={canvas}"]
    config = load_config("srivastava", assignments=assignments)
    glyphs, rng = unseen_digits(), np.random.default_rng(0)
    few = max(1, size.sequences // 128)
    times = alternate(
        ours(config, size.sequences // 8),
        ours(config, size.sequences // 8, truth=("box", "visible")),
        Candidate(lambda: numpy_bounce(glyphs, few, rng, digits, canvas), few),
        rounds=size.rounds,
    )
    frames, annotated, loop = (1e6 * median(taken.cpu) for taken in times)
    return frames, annotated, loop


def rendering(size: Size, name: str, along: str, places: tuple[int, ...]) -> Growth:
    names = ("frames", "frames and all annotations", "NumPy loop, frames")
    costs = [rendered(size, **{"digits": 2, "canvas": 64, name: place}) for place in places]
    curves = dict(zip(names, map(list, zip(*costs, strict=True)), strict=True))
    return Growth(
        f"growth_{name}", "Rendering srivastava", along, "µs of CPU a sequence", places, curves
    )


def stream_epoch(path: Path, size: Size, count: int) -> Taken:
    start = time.perf_counter()
    streaming(path, size, count).run()
    return Taken(time.perf_counter() - start, status_mb("VmHWM"))


def with_sequences(size: Size) -> Iterator[Growth]:
    """Generate sets of several sizes, and stream an epoch of each."""
    counts = tuple(size.sequences // 2 * 4**place for place in range(size.points))
    taken: dict[str, list[Taken]] = {"mmgen generate": [], "one epoch of the stream": []}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            path = Path(folder) / str(count)
            made = generate(path, count)
            read = in_new_process(stream_epoch, path, size, count)
            for all_of_one, one in zip(taken.values(), (made, read), strict=True):
                all_of_one.append(one)
    costs = {
        name: [1e6 * one.seconds / count for one, count in zip(of_one, counts, strict=True)]
        for name, of_one in taken.items()
    }
    peaks = {name: [one.peak_mb for one in of_one] for name, of_one in taken.items()}
    title, along = f"Sets of srivastava, {num_cores()} cores", "sequences in the set"
    yield Growth("growth_sequences", title, along, "µs a sequence", counts, costs)
    yield Growth("growth_memory", title, along, "peak memory with libraries, MB", counts, peaks)


def training_us(folder: Path, size: Size, ranks: int) -> float:
    """Train on some ranks of one thread each; return us a sequence."""
    run = folder / f"run-{ranks}"
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    fields = [f"hidden={size.hidden}", "batch_size=32", f"log_every={STEPS // 3}", "device=cpu"]
    sets = [word for field in fields for word in ("--set", field)]
    fit = [
        "-m",
        "--",
        "trainer",
        "fit",
        "live:srivastava",
        "--run",
        str(run),
        "--preset",
        "small",
        *sets,
    ]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, *fit, "--steps", str(STEPS)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, (run / "timing.jsonl").read_text().splitlines())
    return 1e6 / median([line["sequences_per_s"] for line in lines][1:])


def with_processes(size: Size) -> Growth:
    """Train under torchrun and generate by workers, as many as there are cores at most."""
    most = min(num_cores(), MOST_PROCESSES)
    ranks = tuple(2**power for power in range(most.bit_length()) if 2**power <= most)
    count = 8 * size.sequences
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained = [training_us(folder, size, rank) for rank in ranks]
        made = [
            1e6 * generate(folder / str(rank), count, "--workers", str(rank)).seconds / count
            for rank in ranks
        ]
    curves = {
        f"training, {size.hidden} units, batches of 32": trained,
        "mmgen generate": made,
    }
    title = "Ranks of one thread under torchrun, workers of mmgen generate"
    return Growth("growth_ranks", title, "ranks or workers", "µs a sequence", ranks, curves)


def growths(size: Size) -> Iterator[Growth]:
    yield from with_sequences(size)
    yield rendering(size, "digits", "digits a sequence", DIGITS[: size.points])
    yield rendering(size, "canvas", "height and width of the canvas, px", CANVASES[: size.points])
    yield with_processes(size)


def draw(growth: Growth) -> Plot:
    figure, axes = new_figure()
    for name, values in growth.curves.items():
        axes.plot(growth.places, values, marker="o", markersize=3, label=name)
    axes.set(xscale="log", yscale="log", xlabel=growth.along, ylabel=growth.cost)
    axes.set_xticks(growth.places, [spaced(place) for place in growth.places])
    axes.xaxis.minorticks_off()
    costs = [cost for values in growth.curves.values() for cost in values]
    axes.set_ylim(min(costs) / 2, 2 * max(costs))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:,.10g}".replace(",", " ")))
    axes.yaxis.minorticks_off()
    axes.grid(alpha=0.3)
    add_legend(figure, growth.title, columns=1)
    rows = zip(growth.places, *growth.curves.values(), strict=True)
    csv = as_csv(
        [growth.along, *growth.curves], ([place, *map(rounded, row)] for place, *row in rows)
    )
    alt = f"{growth.cost} against {growth.along}: {', '.join(growth.curves)}"
    return Plot(growth.name, growth.title, alt, as_small_png(figure), csv)


def rounded(value: float) -> float:
    return float(f"{value:.4g}")
