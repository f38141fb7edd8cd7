"""A training step, evaluation and a roll-out against the 2020 tutorial's code, in milliseconds.

    python tests/benchmarks/bench_step.py [--device cuda] [--only train,use,memory,cells] [--small]
                                          [--out FILE]

Both models have the same weights, 2 layers, 10 + 10 frames of 64 x 64; before anything is timed
their losses are compared. A CPU is one core with 512 units, CUDA has the preset tutorial. On a CPU
CPU time is compared, on CUDA time on the wall. The tutorial's candidates get their frames as float,
ours as bytes, which it turns into float itself. `cells` compares every cell's step with that of the
plain model (`--reference`). The table goes to stdout, and with the machine's name to FILE.
"""

import argparse
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from measure import (
    CPU,
    FULL,
    HEADER,
    TINY,
    Candidate,
    Row,
    Size,
    Times,
    alternate,
    cpu_name,
    faster,
    in_new_process,
    smaller,
    status_mb,
    versions,
)
from torch import Tensor
from tutorial_model import TutorialModel, train_step

from trainer.bench import FRAME_SHAPE, Steps
from trainer.config import TrainConfig, load_config
from trainer.model import to_values
from trainer.step import decode, make_task, task_losses
from trainer.world import float32_products, pick_precision

CONTEXT = 10
CELLS = ("lstm", "peephole", "gru", "rnn")
ROUNDS = 3  # of what takes seconds each time


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

    def alternate(self, *runs: Callable[[], object]) -> list[Times]:
        def repeat(run: Callable[[], object]) -> Callable[[], object]:
            return lambda: [run() for _ in range(self.repeats)]

        candidates = [Candidate(repeat(run), self.repeats) for run in runs]
        return alternate(*candidates, rounds=self.rounds, device=self.device)

    def compare(self, what: str, ours: Times, way: str, theirs: Times, of: str = "step") -> Row:
        clock = "wall" if self.device.type == "cuda" else "cpu"
        return faster(what, ours, way, theirs, f"ms a {of}", clock)


def plan_of(device: torch.device, size: Size) -> Plan:
    if size == TINY:
        return Plan(device, size.hidden, (4,), (10, 20), 1, 1)
    if device.type == "cuda":
        return Plan(device, 2048, (128,), (10, 100), 10, 10)
    return Plan(device, size.hidden, (32, size.batch), (10, 100), min(size.rounds, ROUNDS), 1)


class Tutorial:
    """The tutorial's model and what its code does with it."""

    def __init__(self, config: TrainConfig, frames: Tensor, *, fused: bool = False) -> None:
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


def precisions_of(plan: Plan) -> list[str]:
    """Return what the device multiplies in hardware."""
    if plan.device.type == "cuda":
        return ["fp32", "tf32", "bf16"]
    return ["fp32"] + ["bf16"] * (pick_precision("auto", plan.device) == "bf16")


def train_rows(plan: Plan) -> Iterator[Row]:
    for batch in plan.batches:
        frames = plan.frames(batch)
        rivals = [Tutorial(plan.config(batch), frames, fused=fused) for fused in (False, True)]
        precisions = precisions_of(plan)
        ours = [Ours(plan.config(batch, precision), frames) for precision in precisions]
        check_equal(ours[0], rivals[0])
        written, fused, *times = plan.alternate(*(one.train for one in (*rivals, *ours)))
        for precision, taken in zip(precisions, times, strict=True):
            what = f"training step of {batch} sequences, {precision}"
            yield plan.compare(what, taken, "2020 tutorial, as written", written)
            yield plan.compare(what, taken, "2020 tutorial, fused Adam", fused)


def use_rows(plan: Plan) -> Iterator[Row]:
    batch = plan.batches[0]
    frames = plan.frames(batch)
    rival, ours = Tutorial(plan.config(batch), frames, fused=True), Ours(plan.config(batch), frames)
    check_equal(ours, rival)
    way = "2020 tutorial"
    written, taken = plan.alternate(rival.evaluate, ours.evaluate)
    yield plan.compare(f"losses of {batch} sequences, fp32", taken, way, written, "batch")
    for num_frames in plan.rollouts:
        written, taken = plan.alternate(
            *(partial(one.roll_out, num_frames) for one in (rival, ours))
        )
        what = f"roll-out of {num_frames} frames, {batch} sequences, fp32"
        yield plan.compare(what, taken, way, written, "batch")


def cell_rows(plan: Plan) -> Iterator[Row]:
    batch = plan.batches[0]
    frames = plan.frames(batch)
    for cell in CELLS:
        config = plan.config(batch, cell=cell)
        plain, fused = Ours(config, frames, plain=True), Ours(config, frames)
        slow, taken = plan.alternate(plain.train, fused.train)
        what = f"training step of {batch} sequences, `{cell}`, fp32"
        yield plan.compare(what, taken, "`--reference`", slow)


def check_equal(ours: Ours, rival: Tutorial) -> None:
    """Let both have the same weights, and see that they mean the same."""
    ours.model.load_state_dict(rival.model.state_dict())
    losses, others = torch.stack(ours.evaluate()), torch.stack(rival.evaluate())
    rtol = 1e-3 if losses.is_cuda else 1e-5  # cuDNN takes TF32 unless it is told not to
    torch.testing.assert_close(losses, others, rtol=rtol, atol=0)
    rival.model.train()


def memory_rows(plan: Plan) -> Iterator[Row]:
    for batch in plan.batches:
        ours, theirs = (in_new_process(peak_mb, plan, kind, batch) for kind in (Ours, Tutorial))
        what = f"training step of {batch} sequences, fp32"
        yield smaller(what, ours, "2020 tutorial, as written", theirs, "MB, peak")


def peak_mb(plan: Plan, kind: type[Ours] | type[Tutorial], batch: int) -> float:
    """Return what steps need at their fullest, beyond what this process had before."""
    torch.set_num_threads(1)
    config, frames = plan.config(batch), plan.frames(batch)
    before = status_mb("VmRSS")
    one = kind(config, frames)
    for _ in range(3):
        one.train()
    if plan.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return status_mb("VmHWM") - before


PARTS = {"train": train_rows, "use": use_rows, "memory": memory_rows, "cells": cell_rows}


def rows(size: Size) -> Iterator[Row]:
    torch.set_num_threads(1)
    plan = plan_of(CPU, size)
    for name in ("train", "use", "memory"):
        yield from PARTS[name](plan)


def machine(plan: Plan) -> str:
    where = f"one core of {cpu_name()}"
    if plan.device.type == "cuda":
        where = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {cpu_name()}"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {where}; {versions()}. {plan.hidden} units, dropout 0.1; "
        f"medians of {plan.rounds} alternating rounds."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", default=",".join(PARTS), help="parts of the table")
    parser.add_argument("--small", action="store_true", help="show that it works")
    parser.add_argument("--out", type=Path, help="the table's file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan = plan_of(torch.device(options.device), TINY if options.small else FULL)
    lines = [HEADER]
    print(HEADER)
    for part in options.only.split(","):
        for row in PARTS[part](plan):
            lines.append(str(row))
            print(row, flush=True)
    if options.out:
        table = "\n".join(lines)
        options.out.write_text(f"# bench_step.py\n\n{machine(plan)}\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
