"""Every benchmark, one table of ratios to the others' way of doing it, and how each cost grows.

    python tests/benchmarks/bench_all.py [--out FOLDER] [--tiny]

This is `make bench`: minutes on two quiet cores. It writes table.md and growth_*.png and .csv into
results/; --tiny only shows that all of it works, in another FOLDER.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import bench_classify
import bench_generate
import bench_growth
import bench_render
import bench_score
import bench_step
import bench_stream
from measure import FULL, HEADER, TINY, Row, Size, cpu_name, num_cores, versions

from mmgen.shard.manifest import write_atomic
from trainer.plot import Plot, write_plot

RESULTS = Path(__file__).parent / "results"
BENCHES: tuple[Callable[[Size], Iterable[Row]], ...] = (
    bench_render.rows,
    bench_generate.rows,
    bench_stream.rows,
    bench_step.rows,
    bench_classify.rows,
    bench_score.rows,
)
# What takes too long to be measured anew each time, and where its results say their machine.
APART = {
    "bench_learning.md": "what preset `small` and the 2020 tutorial's code learn in how much time",
    "bench_classify.md": "what the row classifier reaches in two epochs",
}


def measure(size: Size) -> tuple[list[Row], list[Plot]]:
    """Run every benchmark; print each row as it is known."""
    rows, began = [], time.monotonic()
    print(HEADER)
    for bench in BENCHES:
        for row in bench(size):
            print(row, flush=True)
            rows.append(row)
        print(f"{bench.__module__}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    plots = [bench_growth.draw(growth) for growth in bench_growth.growths(size)]
    print(f"bench_growth: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return rows, plots


def machine() -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{cpu_name()}, {num_cores()} cores, {memory:.0f} GiB, {platform.system()}; {versions()}"


def page(rows: list[Row], plots: list[Plot], size: Size, about: str) -> str:
    table = "\n".join(map(str, rows))
    pictures = "\n\n".join(
        f"![{plot.alt}]({plot.name}.png)\n\n{plot.title}: [the numbers]({plot.name}.csv)."
        for plot in plots
    )
    apart = "\n".join(
        f"- [{name}]({name}): {what}. {machine_line(RESULTS / name)}"
        for name, what in APART.items()
    )
    return f"""# Side by side

`make bench`: {about}

Both ways of a row were measured in turn, in the same minutes: medians of {size.rounds} rounds,
fewer where one takes seconds; the ratio is the median of the rounds' own ratios, above 1 in our
favour. One thread and its CPU time, unless a row names cores or workers. What is stored or
streamed is timed by the clock on the wall;
a stream reads in one thread beside the one that takes its batches. Sequences are 20 x 64 x 64
bytes. Files lie in the page cache: what a disk costs is not in here, but that `store` waits for
it, which np.save does not. What each way does is in the file that measures it,
tests/benchmarks/bench_*.py.

{HEADER}
{table}

## How each cost grows

Both axes are logarithmic. What is small is measured with what starting it takes.

{pictures}

## Measured apart

{apart}
"""


def machine_line(path: Path) -> str:
    """Return the first line of a result that is no title."""
    return next(line for line in path.read_text(encoding="utf-8").splitlines()[1:] if line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the table goes")
    parser.add_argument("--tiny", action="store_true", help="show that it works")
    options = parser.parse_args()
    if options.tiny and options.out == RESULTS:
        parser.error("--tiny measures nothing: name another --out")
    size = TINY if options.tiny else FULL
    load, began = os.getloadavg()[0], time.monotonic()
    rows, plots = measure(size)
    about = (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}. Load before it {load:.1f}, at its end "
        f"{os.getloadavg()[0]:.1f}; it took {(time.monotonic() - began) / 60:.0f} minutes."
    )
    write_atomic(options.out / "table.md", page(rows, plots, size, about))
    for plot in plots:
        write_plot(options.out, plot)


if __name__ == "__main__":
    main()
