"""Seconds of a training step, of evaluation and of a roll-out against the 2020 tutorial's code.

    python tests/benchmarks/bench_step.py [--device cuda] [--only train,use,memory,cells] [--small]

Both models have the same weights, 2 layers, 10 + 10 frames of 64 x 64; before anything is timed
their losses are compared. A CPU is one core with 512 units, CUDA has the preset tutorial.
Candidates alternate, so that a busy machine slows all; what to read are the ratios, each the median
of its rounds: of CPU time of the process, and of time on the wall. The tutorial's candidates get
their frames as float, ours as bytes, which it turns into float itself. The table goes to stdout
and, with the machine's name, to results/bench_step.md or bench_step_cuda.md; --small only shows
that it works, and writes nothing.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tutorial_model import TutorialModel, train_step

from trainer.bench import FRAME_SHAPE, Steps
from trainer.ceilings import timed_s
from trainer.config import TrainConfig, load_config
from trainer.model import to_values
from trainer.step import decode, make_task, task_losses
from trainer.world import float32_products, pick_precision

RESULTS = Path(__file__).parent / "results"
CONTEXT = 10
CELLS = ("lstm", "peephole", "gru", "rnn")
PARTS = ("train", "use", "memory", "cells")

# The ratios that are asked for: to the code as written, and where it has a fused Adam as well.
TARGETS = {
    ("cpu", 32, "fp32"): (3.0, 2.8),
    ("cpu", 128, "fp32"): (1.7, 1.7),
    ("cpu", 32, "bf16"): (5.0, 5.0),
    ("cpu", 128, "bf16"): (2.3, 2.3),
}
TARGET_OF_USE = 2.0
TARGET_OF_MEMORY = 1.0


class Plan(NamedTuple):
    device: torch.device
    hidden: int
    batches: tuple[int, ...]
    rollouts: tuple[int, ...]
    rounds: int
    repeats: int  # of a step between two looks at the clock

    def config(self, batch: int, precision: str = "fp32", cell: str = "lstm") -> TrainConfig:
        fields = {
            "hidden": self.hidden,
            "batch_size": batch,
            "precision": precision,
            "cell": cell,
            "device": self.device,
        }
        return load_config(assignments=[f"{name}={value}" for name, value in fields.items()])

    def frames(self, batch: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        shape = (batch, 2 * CONTEXT, *FRAME_SHAPE)
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(self.device)


def plan_of(device: str, *, is_small: bool) -> Plan:
    if is_small:
        return Plan(torch.device(device), 16, (4,), (10, 20), 2, 1)
    if device == "cuda":
        return Plan(torch.device(device), 2048, (128,), (10, 100), 10, 10)
    return Plan(torch.device(device), 512, (32, 128), (10, 100), 7, 1)


class Tutorial:
    """The tutorial's model and what its code does with it."""

    def __init__(self, config: TrainConfig, frames: Tensor, *, fused: bool) -> None:
        num_values = frames[0, 0].numel()
        self.model = TutorialModel(str(frames.device), num_values, config.model.hidden)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=5e-4, fused=fused or None)
        values = to_values(frames)
        self.past, self.future = (
            part.contiguous() for part in (values[:, :CONTEXT], values[:, CONTEXT:])
        )

    def train(self) -> None:
        train_step(self.model, self.optimizer, self.past, self.future)

    @torch.no_grad()
    def evaluate(self) -> tuple[Tensor, Tensor]:
        self.model.eval()
        return self.model(self.past, self.future)

    @torch.no_grad()
    def roll_out(self, num_frames: int) -> None:
        self.model.eval()
        self.model.roll_out(self.past, num_frames)


class Ours:
    """Our model, fused or plain, and the step of `mmtrain fit`."""

    def __init__(self, config: TrainConfig, frames: Tensor, *, plain: bool = False) -> None:
        self.config, self.frames = config, frames
        self.steps = Steps(config, frames.device, reference=plain)
        self.model = self.steps.model
        self.train = self.steps.take

    @torch.no_grad()
    def evaluate(self) -> tuple[Tensor, ...]:
        self.model.eval()
        task = make_task(self.frames, None, self.config.data)
        with float32_products(self.config.run.precision):
            decoded = decode(self.model, task, None, training=False)
        return task_losses(decoded, task, self.config)[1:]

    def roll_out(self, num_frames: int) -> None:
        with float32_products(self.config.run.precision):
            self.model.generate(self.frames[:, :CONTEXT], num_frames)


class Times(NamedTuple):
    cpu: list[float]
    wall: list[float]


def alternate(plan: Plan, runs: list[Callable[[], object]]) -> list[Times]:
    """Run candidates in turn; return seconds of each but of the first round, which warms up."""
    times = [Times([], []) for _ in runs]
    for _ in range(plan.rounds + 1):
        for run, taken in zip(runs, times, strict=True):
            start = time.process_time()
            wall = timed_s(lambda run=run: [run() for _ in range(plan.repeats)], plan.device)
            taken.cpu.append((time.process_time() - start) / plan.repeats)
            taken.wall.append(wall / plan.repeats)
    return [Times(taken.cpu[1:], taken.wall[1:]) for taken in times]


def row(what: str, against: str, ours: Times, other: Times, target: float | None = None) -> str:
    cpu, wall = (
        median(old / new for old, new in zip(before, after, strict=True))
        for before, after in zip(other, ours, strict=True)
    )
    asked = f"{target:g}" if target else ""
    milliseconds = [f"{1e3 * median(taken.wall):,.1f}" for taken in (ours, other)]
    return f"| {what} | {against} | {' | '.join(milliseconds)} | {cpu:.2f} | {wall:.2f} | {asked} |"


def precisions_of(plan: Plan) -> list[str]:
    """Return what the device multiplies in hardware."""
    if plan.device.type == "cuda":
        return ["fp32", "tf32", "bf16"]
    return ["fp32"] + ["bf16"] * (pick_precision("auto", plan.device) == "bf16")


def train_rows(plan: Plan) -> Iterator[str]:
    for batch in plan.batches:
        frames = plan.frames(batch)
        rivals = [Tutorial(plan.config(batch), frames, fused=fused) for fused in (False, True)]
        precisions = precisions_of(plan)
        ours = [Ours(plan.config(batch, precision), frames) for precision in precisions]
        check_equal(ours[0], rivals[0])
        written, fused, *times = alternate(plan, [one.train for one in (*rivals, *ours)])
        for precision, taken in zip(precisions, times, strict=True):
            asked = TARGETS.get((plan.device.type, batch, precision), (None, None))
            what = f"training step, B {batch}, {precision}"
            yield row(what, "tutorial as written", taken, written, asked[0])
            yield row(what, "tutorial, fused Adam", taken, fused, asked[1])


def use_rows(plan: Plan) -> Iterator[str]:
    batch = plan.batches[0]
    frames = plan.frames(batch)
    rival, ours = Tutorial(plan.config(batch), frames, fused=True), Ours(plan.config(batch), frames)
    check_equal(ours, rival)
    written, taken = alternate(plan, [rival.evaluate, ours.evaluate])
    yield row(f"evaluation, B {batch}, fp32", "tutorial", taken, written, TARGET_OF_USE)
    for num_frames in plan.rollouts:
        runs = [partial(one.roll_out, num_frames) for one in (rival, ours)]
        written, taken = alternate(plan, runs)
        what = f"roll-out of {num_frames} frames, B {batch}, fp32"
        yield row(what, "tutorial", taken, written, TARGET_OF_USE)


def cell_rows(plan: Plan) -> Iterator[str]:
    batch = plan.batches[0]
    frames = plan.frames(batch)
    for cell in CELLS:
        config = plan.config(batch, cell=cell)
        plain, fused = Ours(config, frames, plain=True), Ours(config, frames)
        slow, taken = alternate(plan, [plain.train, fused.train])
        yield row(f"training step, `{cell}`, B {batch}, fp32", "`--reference`", taken, slow)


def check_equal(ours: Ours, rival: Tutorial) -> None:
    """Let both have the same weights, and see that they mean the same."""
    ours.model.load_state_dict(rival.model.state_dict())
    losses, others = torch.stack(ours.evaluate()), torch.stack(rival.evaluate())
    rtol = 1e-3 if losses.is_cuda else 1e-5  # cuDNN takes TF32 unless it is told not to
    torch.testing.assert_close(losses, others, rtol=rtol, atol=0)
    rival.model.train()


def memory_rows(plan: Plan, arguments: list[str]) -> Iterator[str]:
    for batch in plan.batches:
        peaks = {}
        for name in ("ours", "tutorial"):
            command = [sys.executable, __file__, "--peak", name, "--batch", str(batch), *arguments]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            peaks[name] = float(json.loads(done.stdout))
        ours, other = peaks.values()
        yield (
            f"| peak memory of a step in MB, B {batch}, fp32 | tutorial as written | {ours:,.0f} | "
            f"{other:,.0f} | {other / ours:.2f} | | {TARGET_OF_MEMORY:g} |"
        )


def peak_mb(plan: Plan, name: str, batch: int) -> float:
    """Return what steps need at their fullest, beyond what this process had before."""
    config, frames = plan.config(batch), plan.frames(batch)
    before = status_mb("VmRSS")
    one = Ours(config, frames) if name == "ours" else Tutorial(config, frames, fused=False)
    for _ in range(3):
        one.train()
    if plan.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return status_mb("VmHWM") - before


def status_mb(field: str) -> float:
    # ru_maxrss would be that of the process that started this one, where that was larger.
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{field}:\s*(\d+) kB", status)[0]) * 1024 / 1e6


def machine(plan: Plan) -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = found.group(1) if found else platform.machine()
    where = f"one core of {name}"
    if plan.device.type == "cuda":
        where = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {name}"
    missing = "" if "bf16" in precisions_of(plan) else " The CPU has no bf16 instructions."
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {where}, Python {platform.python_version()}, torch "
        f"{torch.__version__}. {plan.hidden} units, dropout 0.1; medians of {plan.rounds} "
        f"alternating rounds.{missing}"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", default=",".join(PARTS), help="parts of the table")
    parser.add_argument("--small", action="store_true", help="show that it works")
    parser.add_argument("--out", type=Path, help="the table's file")
    parser.add_argument("--peak", choices=("ours", "tutorial"), help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    plan = plan_of(options.device, is_small=options.small)
    if options.peak:
        print(peak_mb(plan, options.peak, options.batch))
        return
    again = ["--device", options.device, *(["--small"] if options.small else [])]
    makers: dict[str, Callable[[], Any]] = {
        "train": lambda: train_rows(plan),
        "use": lambda: use_rows(plan),
        "memory": lambda: memory_rows(plan, again),
        "cells": lambda: cell_rows(plan),
    }
    lines = ["| what | against | ours ms | its ms | CPU time | wall | asked |"]
    lines.append("| --- | --- | --: | --: | --: | --: | --: |")
    print("\n".join(lines))
    for part in options.only.split(","):
        for line in makers[part]():
            lines.append(line)
            print(line, flush=True)
    name = "bench_step_cuda.md" if options.device == "cuda" else "bench_step.md"
    out = options.out or (None if options.small else RESULTS / name)
    if out:
        table = "\n".join(lines)
        out.write_text(f"# bench_step.py\n\n{machine(plan)}\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
