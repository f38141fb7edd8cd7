"""The classifier of `mmtrain classify --rows`: what it reaches, and what its training takes.

    python tests/benchmarks/bench_classify.py [--threads 2] [--seeds 5] [--small]

Every seed trains the protocol of the 2020 tutorial once: two epochs of all 60 000 MNIST training
images, read row by row, tested on the 10 000 test images. Beside it the step of a plain nn.LSTM as
in the tutorial's notebook: batch first, a state of zeros made anew. Its batch lies ready as float;
ours is drawn, gathered and turned from bytes. Both alternate, so that a busy machine slows both;
what to read is the ratio, the median of its rounds, of CPU time and of time on the wall. The table
goes to stdout and, with the machine's name, to results/bench_classify.md; --small only shows that
it works, and writes nothing.
"""

import argparse
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from trainer.classifier import ClassifyConfig
from trainer.classify import evaluate, train
from trainer.labelled import Rows
from trainer.log import RunLog

OUT = Path(__file__).parent / "results" / "bench_classify.md"
CPU = torch.device("cpu")
ROUNDS = 9
STEPS = 20  # a round

R = TypeVar("R")


class Notebook(nn.Module):
    """The classifier of the 2020 tutorial, as written."""

    def __init__(self, config: ClassifyConfig) -> None:
        super().__init__()
        self.shape = config.layers, config.hidden
        self.lstm = nn.LSTM(28, config.hidden, config.layers, batch_first=True)
        self.fc = nn.Linear(config.hidden, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        layers, hidden = self.shape
        h0, c0 = (torch.zeros(layers, x.size(0), hidden) for _ in range(2))
        out, _ = self.lstm(x, (h0, c0))
        return self.fc(out[:, -1, :])


def notebook_steps(config: ClassifyConfig, rows: Rows) -> Callable[[], None]:
    batch = next(rows.train(config.batch_size, 0))
    images, labels = batch.frames.float() / 255, batch.target
    model = Notebook(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)

    def take() -> None:
        for _ in range(STEPS):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return take


class Taken(NamedTuple):
    """Seconds that some work took."""

    cpu: float
    wall: float


def timed(work: Callable[[], R]) -> tuple[R, Taken]:
    cpu, wall = time.process_time(), time.monotonic()
    done = work()
    return done, Taken(time.process_time() - cpu, time.monotonic() - wall)


def seed_rows(cell: str, seeds: int, steps: int, rows: Rows, log: RunLog) -> Iterator[str]:
    shares = []
    for seed in range(seeds):
        training = partial(train, ClassifyConfig(cell=cell), rows, steps, seed, CPU, log)
        model, taken = timed(training)
        shares.append(100 * evaluate(model, rows).accuracy)
        yield f"| {cell} | {seed} | {shares[-1]:.2f} | {taken.wall:.1f} | {taken.cpu:.1f} |"
    if seeds > 1:
        yield f"| {cell} | mean | **{mean(shares):.2f}** | | |"


def step_line(rows: Rows, log: RunLog) -> str:
    config = ClassifyConfig()
    ours, theirs = partial(train, config, rows, STEPS, 0, CPU, log), notebook_steps(config, rows)
    rounds = [(timed(ours)[1], timed(theirs)[1]) for _ in range(ROUNDS + 1)][1:]  # one warms up
    cpu, wall = (
        median(getattr(other, kind) / getattr(one, kind) for one, other in rounds)
        for kind in Taken._fields
    )
    ours_ms, theirs_ms = (1e3 * median(both[who].cpu for both in rounds) / STEPS for who in (0, 1))
    return (
        f"A training step of {config.batch_size} images takes {ours_ms:.1f} ms of CPU time, that "
        f"of a plain nn.LSTM {theirs_ms:.1f} ms; its time / ours: CPU {cpu:.2f}, wall {wall:.2f} "
        f"(asked: 1; medians of {ROUNDS} alternating rounds of {STEPS} steps)."
    )


def machine(threads: int) -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = found.group(1) if found else platform.machine()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {threads} thread{'s' * (threads > 1)} on {name} "
        f"({os.cpu_count()} cores, load {os.getloadavg()[2]:.1f}), Python "
        f"{platform.python_version()}, torch {torch.__version__}."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seeds", type=int, default=5, help="of lstm; gru and rnn have one")
    parser.add_argument("--small", action="store_true", help="show that it works")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = Rows(num_classes=10)
    steps = 30 if options.small else 2 * 600
    lines = ["| cell | seed | right % | training s, wall | training s, CPU |"]
    lines.append("| --- | --: | --: | --: | --: |")
    print("\n".join(lines))
    with TemporaryDirectory() as folder:
        log = RunLog(Path(folder), steps, 100, quiet=True)
        for cell, seeds in (("lstm", options.seeds), ("gru", 1), ("rnn", 1)):
            for line in seed_rows(cell, seeds, steps, rows, log):
                lines.append(line)
                print(line, flush=True)
        lines += ["", step_line(rows, log)]
        print(lines[-1])
    if not options.small:
        table = "\n".join(lines)
        OUT.write_text(f"# bench_classify.py\n\n{machine(options.threads)}\n\n{table}\n")


if __name__ == "__main__":
    main()
