"""The classifier of `mmtrain classify --rows`: what it reaches, and what its training takes.

    python tests/benchmarks/bench_classify.py [--threads 2] [--seeds 5] [--small]

Every seed trains the protocol of the 2020 tutorial once: two epochs of all 60 000 MNIST training
images, read row by row, tested on the 10 000 test images; that goes to stdout and, with the
machine's name, to results/bench_classify.md; --small only shows that it works, and writes nothing.

`rows`, for the table of all benchmarks, is its step beside that of a plain nn.LSTM as in the
tutorial's notebook: batch first, a state of zeros made anew. Its batch lies ready as float; ours is
drawn, gathered and turned from bytes.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import torch
from measure import CPU, Candidate, Row, Size, alternate, cpu_name, faster, num_cores, versions
from torch import Tensor, nn

from trainer.classifier import ClassifyConfig
from trainer.classify import evaluate, train
from trainer.labelled import Rows
from trainer.log import RunLog

OUT = Path(__file__).parent / "results" / "bench_classify.md"


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


def notebook_steps(config: ClassifyConfig, images: Rows, steps: int) -> Callable[[], None]:
    batch = next(images.train(config.batch_size, 0))
    values, labels = batch.frames.float() / 255, batch.target
    model = Notebook(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)

    def take() -> None:
        for _ in range(steps):
            loss = nn.functional.cross_entropy(model(values), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return take


def seed_rows(cell: str, seeds: int, steps: int, images: Rows, log: RunLog) -> Iterator[str]:
    shares = []
    for seed in range(seeds):
        cpu, start = time.process_time(), time.monotonic()
        model = train(ClassifyConfig(cell=cell), images, steps, seed, CPU, log)
        cpu, wall = time.process_time() - cpu, time.monotonic() - start
        shares.append(100 * evaluate(model, images).accuracy)
        yield f"| {cell} | {seed} | {shares[-1]:.2f} | {wall:.1f} | {cpu:.1f} |"
    if seeds > 1:
        yield f"| {cell} | mean | **{mean(shares):.2f}** | | |"


def rows(size: Size) -> Iterator[Row]:
    torch.set_num_threads(1)
    images, config = Rows(num_classes=10), ClassifyConfig()
    steps = max(1, size.sequences // 100)
    with TemporaryDirectory() as folder:
        log = RunLog(Path(folder), steps, steps, quiet=True)
        ours, theirs = alternate(
            Candidate(partial(train, config, images, steps, 0, CPU, log), steps),
            Candidate(notebook_steps(config, images, steps), steps),
            rounds=size.rounds,
        )
    what = f"training step of the row classifier, {config.batch_size} images"
    yield faster(what, ours, "2020 tutorial's nn.LSTM", theirs, "ms a step")


def machine(threads: int) -> str:
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {threads} thread{'s' * (threads > 1)} on {cpu_name()} "
        f"({num_cores()} cores, load {os.getloadavg()[2]:.1f}), {versions()}."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seeds", type=int, default=5, help="of lstm; gru and rnn have one")
    parser.add_argument("--small", action="store_true", help="show that it works")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = Rows(num_classes=10)
    steps = 30 if options.small else 2 * 600
    lines = ["| cell | seed | right % | training s, wall | training s, CPU |"]
    lines.append("| --- | --: | --: | --: | --: |")
    print("\n".join(lines))
    with TemporaryDirectory() as folder:
        log = RunLog(Path(folder), steps, 100, quiet=True)
        for cell, seeds in (("lstm", options.seeds), ("gru", 1), ("rnn", 1)):
            for line in seed_rows(cell, seeds, steps, images, log):
                lines.append(line)
                print(line, flush=True)
    if not options.small:
        table = "\n".join(lines)
        OUT.write_text(f"# bench_classify.py\n\n{machine(options.threads)}\n\n{table}\n")


if __name__ == "__main__":
    main()
