"""`mmtrain bench`: a step as it runs here, beside what it must do at least on this machine."""

import platform
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from trainer.build import build_model
from trainer.ceilings import measure_ceilings, timed_s, written_s
from trainer.config import TrainConfig
from trainer.gradients import add_gradients
from trainer.graph import make_step
from trainer.noise import Noise, draw_noise, step_generator
from trainer.optimizer import Updater
from trainer.roofline import StepCost, count_step, find_floor
from trainer.schedule import share_shown
from trainer.stream import Batch
from trainer.world import (
    World,
    float32_products,
    one_line_when_out_of_memory,
    pick_device,
    pick_precision,
    product_dtype,
)

FRAME_SHAPE = (64, 64)
# A measurement is of this many steps: a CUDA device works off a queue, as it does in training.
_STEPS_AT_ONCE = {"cpu": 1, "cuda": 10}
_MEASUREMENTS = (2, 20)  # at least, at most; fewer than at most once this long:
_ENOUGH_S = 10.0

_PARTS = {
    "serial": "products, frame after frame",
    "batched": "products of all frames at once",
    "gradients": "gradients of the weights",
    "optimizer": "optimizer",
    "activations": "activations",
    "total": "all",
}


@one_line_when_out_of_memory()
def bench(
    config: TrainConfig, *, reference: bool = False, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Count a step of a config, measure the device's ceilings, then some real steps.

    reference  take the plain model's step instead of the fused one
    say        is told what is going to happen, and how long it takes at least
    returns    what `--json` prints: sizes, macs, bytes, ceilings, floor and measured seconds
    """
    device = pick_device(config.run.device)
    precision = pick_precision(config.run.precision, device)
    run = config.run.model_copy(update={"precision": precision})
    config = config.model_copy(update={"run": run})
    cost = count_step(config, torch.Size(FRAME_SHAPE).numel())
    say(
        f"{cost.num_parameters:,} parameters, {_giga(cost.flop)} Gflop a step, "
        f"{_giga(cost.memory.total)} GB of memory; measuring the ceilings of {device}"
    )
    ceilings = measure_ceilings(device, precision)
    floor = find_floor(cost, ceilings)
    least = (1 + _MEASUREMENTS[0]) * _STEPS_AT_ONCE[device.type]
    say(f"floor {written_s(floor.total)} a step; measuring {least} steps or more")
    torch.manual_seed(config.run.seed)
    measured = _measure(Steps(config, device, reference=reference, say=say), device)
    step_s = median(measured)
    return {
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "precision": precision,
        "step": "reference" if reference else "fused",
        "parameters": cost.num_parameters,
        "frame_shape": list(FRAME_SHAPE),
        "batch_size": config.data.batch_size,
        "macs": {
            "forward_with_zeros": cost.plain_macs,
            "forward": cost.forward_macs,
            "backward_data": cost.data_macs,
            "backward_weight": cost.weight_macs,
        },
        "parts": _parts(cost),
        "memory_bytes": asdict(cost.memory) | {"total": cost.memory.total},
        "ceilings": asdict(ceilings),
        "floor_s": asdict(floor) | {"total": floor.total},
        "step_s": {"median": step_s, "min": min(measured), "measurements": len(measured)},
        "sequences_per_s": config.data.batch_size / step_s,
        "times_the_floor": step_s / floor.total,
    }


def print_result(result: dict[str, Any]) -> None:
    """Print a result as a table, and in words what was measured."""
    from rich.console import Console
    from rich.table import Table

    batch, parameters = result["batch_size"], result["parameters"]
    table = Table(title=f"A step of {batch} sequences, {parameters:,} parameters")
    for column in ("", "Gflop", "GB", "floor"):
        table.add_column(column, justify="right" if column else "left")
    for part, name in _PARTS.items():
        counted = result["parts"][part]
        numbers = (_giga(counted["flop"]), _giga(counted["bytes"]))
        table.add_row(name, *numbers, written_s(result["floor_s"][part]))
    Console().print(table)
    ceilings, memory, measured = result["ceilings"], result["memory_bytes"], result["step_s"]
    print(
        f"{result['device']}, CPU threads: {result['threads']}; products "
        f"{_giga(ceilings['flop_per_s'])} Gflop/s in {result['precision']}, memory "
        f"{_giga(ceilings['bytes_per_s'])} GB/s\n"
        f"memory of a step {_giga(memory['total'])} GB, activations "
        f"{_giga(memory['activations'])} GB of it\n"
        f"measured {written_s(measured['median'])} a step ({result['step']}, median of "
        f"{measured['measurements']}): {result['times_the_floor']:.2f} times the floor, "
        f"{result['sequences_per_s']:,.1f} sequences/s"
    )


class Steps:
    """The steps that `fit` takes, on one batch of random bytes that lies on the device."""

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        *,
        reference: bool,
        say: Callable[[str], None] = print,
    ) -> None:
        self.config, self.step = config, 0
        self.model = build_model(config.model, FRAME_SHAPE, reference=reference).to(device)
        self.model.round_products(product_dtype(config.run.precision))
        self.updater = Updater(self.model, config.optimizer, config.run.precision)
        batch, num_frames = config.data.batch_size, config.data.context + config.data.predict
        frames = torch.randint(256, (batch, num_frames, *FRAME_SHAPE), dtype=torch.uint8)
        counts = torch.full((batch,), num_frames, dtype=torch.int32)
        self.batch = Batch(frames, counts, torch.arange(batch)).to(device)
        self._take = make_step(self._take_plainly, self.updater, device, say)

    def take(self) -> None:
        """Take the next step; a CUDA device may still be at it when this returns."""
        self.step += 1
        config, frames = self.config, self.batch.frames
        generator = step_generator(config.run.seed, self.step, frames.device)
        share = share_shown(config.optimizer, self.step - 1)
        sizes = (len(frames), frames[0, 0].numel())
        noise = draw_noise(config.model, config.data, *sizes, share, generator)
        self.model.train()
        with float32_products(config.run.precision):
            self._take(self.batch, noise, config.optimizer.lr)

    def _take_plainly(
        self, batch: Batch, noise: Noise, rate: float | Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        losses = add_gradients(
            self.model, self.updater, batch, noise, self.config, World(), is_varied=False
        )
        return losses, self.updater.update(rate)


def _measure(steps: Steps, device: torch.device) -> list[float]:
    """Take steps; return the seconds of one, by measurement."""
    at_once = _STEPS_AT_ONCE[device.type]

    def take_some() -> None:
        for _ in range(at_once):
            steps.take()

    take_some()  # what is built or loaded at first use
    measured: list[float] = []
    at_least, at_most = _MEASUREMENTS
    start = time.monotonic()
    while len(measured) < at_least or (
        len(measured) < at_most and time.monotonic() - start < _ENOUGH_S
    ):
        measured.append(timed_s(take_some, device) / at_once)
    return measured


def _parts(cost: StepCost) -> dict[str, dict[str, int]]:
    batched = 2 * (cost.macs - cost.serial_macs)
    return {
        "serial": {"flop": 2 * cost.serial_macs, "bytes": sum(cost.serial_bytes)},
        "batched": {"flop": batched, "bytes": 0},
        "gradients": {"flop": 0, "bytes": cost.gradient_bytes},
        "optimizer": {"flop": 0, "bytes": cost.optimizer_bytes},
        "activations": {"flop": 0, "bytes": cost.activation_bytes},
        "total": {"flop": cost.flop, "bytes": cost.num_bytes},
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", names.read_text()) if names.exists() else None
    return found.group(1) if found else platform.machine()


def _giga(number: float) -> str:
    billions = number / 1e9
    return f"{billions:,.0f}" if billions >= 1000 else f"{billions:.3g}"
