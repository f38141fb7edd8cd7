"""Sequences per second and GB of each preset, rendered live and read out of shards.

    python tests/benchmarks/bench_shards_or_live.py [FOLDER]

Batches of 128 of one stream and its one reader thread, which is what a loop gets; shards are of the
default codec, shuffled, in the page cache, so that what a disk costs is not in here. `written` is
`mmgen generate`'s work in one thread, done once. Rounds alternate, so that a busy machine slows
both. The table goes to stdout, to results/bench_shards_or_live.csv, and with the machine's name to
the .md beside it; `python docs/make_difficulty.py --tables` puts it into the pages.
"""

import csv
import io
import platform
import re
import sys
import tempfile
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import median

from mmgen.pipeline import generate_dataset
from mmgen.presets import PRESETS, load_config
from trainer.stream import SequenceStream

RESULTS = Path(__file__).parent / "results" / "bench_shards_or_live"
BATCH = 128
STORED = 32 * BATCH
BATCHES = 64  # taken in each round: long enough that the two read ahead at its start are little
ROUNDS = 5
COLUMNS = ("preset", "live", "shards", "written", "GB per million")


def streamed(address: str) -> float:
    """Take the batches of a stream, each dropped when the next one comes; sequences per second."""
    with closing(iter(SequenceStream(address, BATCH))) as batches:
        next(batches)  # threads are started, shards opened and compared with the manifest
        start = time.perf_counter()
        for _ in islice(batches, BATCHES):
            pass
        return BATCHES * BATCH / (time.perf_counter() - start)


def row(preset: str, folder: Path) -> dict[str, str]:
    """Measure one preset; rates are sequences per second, sizes 1e9 bytes per million sequences."""
    config = load_config(preset)
    generate_dataset(folder / "warm", config, {"train": BATCH}, workers=1)  # compiles, once
    stored = folder / "stored"
    start = time.perf_counter()
    generate_dataset(stored, config, {"train": STORED}, workers=1)
    written = STORED / (time.perf_counter() - start)
    size = sum(path.stat().st_size for path in stored.rglob("*") if path.is_file())
    rounds = [(streamed(f"live:{preset}"), streamed(str(stored))) for _ in range(ROUNDS)]
    live, shards = (median(rates) for rates in zip(*rounds, strict=True))
    rates = (f"{rate:,.0f}".replace(",", " ") for rate in (live, shards, written))
    values = (preset, *rates, f"{size / STORED / 1e3:.1f}")
    return dict(zip(COLUMNS, values, strict=True))


def rows(folder: Path) -> list[dict[str, str]]:
    """Measure every preset; their sets are made in the folder."""
    return [row(preset, folder / preset) for preset in PRESETS]


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        found = rows(Path(folder))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    RESULTS.with_suffix(".csv").write_text(text.getvalue(), encoding="utf-8")
    lines = [COLUMNS, ("---", *["--:"] * 4), *(tuple(line.values()) for line in found)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    machine = f"{model[1] if model else platform.machine()}, Python {platform.python_version()}"
    RESULTS.with_suffix(".md").write_text(
        f"# Shards or live\n\n`python tests/benchmarks/bench_shards_or_live.py` on {machine}; "
        f"sequences per second, one reader thread.\n\n{table}",
        encoding="utf-8",
    )
    print(table)


if __name__ == "__main__":
    main()
