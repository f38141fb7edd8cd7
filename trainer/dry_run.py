"""`mmtrain fit --dry-run`: all that a run would check before its first step, and what it would be.

No model is allocated and nothing is written; measuring the machine's ceilings takes seconds.
"""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from trainer.address import Address
from trainer.build import build_model
from trainer.ceilings import measure_ceilings, written_s
from trainer.config import TrainConfig, parse_config
from trainer.initial_weights import read_weights
from trainer.roofline import StepCost, count_step, find_floor
from trainer.setup import Start, find_start, naming_misfit, open_checkpoint
from trainer.world import one_line_when_out_of_memory


@one_line_when_out_of_memory()
def dry_run(
    config: TrainConfig,
    data: Address | Mapping[str, float],
    run: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    init_from: Path | None = None,
) -> dict[str, Any]:
    """Say what `trainer.loop.fit` would do, called the same way; each rank may ask.

    returns  what `--json` prints: the config, sizes, bytes, the floor of a step, the first batch
    raises   InputError for whatever `fit` refuses before work starts
    """
    start = find_start(config, data, run, resume=resume, overwrite=overwrite, init_from=init_from)
    _check_weights(config, start)
    with closing(iter(start.stream)) as batches:
        first = next(batches)
    cost = _count(config, start)
    floor = find_floor(cost, measure_ceilings(start.device, start.precision))
    return {
        "config": config.model_dump(),
        "run": str(run),
        "data": dict(start.weighted),
        "init_from": None if start.init_from is None else str(start.init_from),
        "device": str(start.device),
        "precision": start.precision,
        "ranks": start.world.size,
        "parameters": cost.num_parameters,
        "memory_bytes": asdict(cost.memory) | {"total": cost.memory.total},
        "floor_s": asdict(floor) | {"total": floor.total},
        "first_batch": {
            "step": start.stream.step,
            "frames": list(first.frames.shape),
            "num_frames": [int(first.num_frames.min()), int(first.num_frames.max())],
        },
    }


def _check_weights(config: TrainConfig, start: Start) -> None:
    """Refuse weights of another shape, and set the stream where the run goes on."""
    with torch.device("meta"):  # shapes, and no memory
        model = build_model(config.model, start.stream.sequence_shape[1:])
    if start.init_from is not None:
        read_weights(model, start.init_from)
    if start.newest is not None:
        checkpoint = open_checkpoint(start.newest, start.stream)
        with naming_misfit(start.newest):
            model.load_state_dict(checkpoint["model"], assign=True)


def _count(config: TrainConfig, start: Start) -> StepCost:
    """Count a step of one rank."""
    fields = config.model_dump()
    fields["run"]["precision"] = start.precision
    fields["data"]["batch_size"] //= start.world.size
    return count_step(parse_config(fields), torch.Size(start.stream.sequence_shape[1:]).numel())


def as_text(result: dict[str, Any]) -> str:
    """Write a result as TOML that `--config` reads again; what is no field stands in comments."""
    memory, first, ranks = result["memory_bytes"], result["first_batch"], result["ranks"]
    shortest, longest = first["num_frames"]
    each = " of each rank" if ranks > 1 else ""
    others = ("copies", "gradients", "moments", "average", "activations")
    parts = [f"{name} {_gigabytes(memory[name])}" for name in others if memory[name]]
    data = ", ".join(f"{address}={weight:g}" for address, weight in result["data"].items())
    facts = [
        f"{result['run']}: trained on {data}",
        f"{result['parameters']:,} parameters on {result['device']}, products in "
        f"{result['precision']}; ranks: {ranks}",
        f"memory of a step{each}: {_gigabytes(memory['total'])} GB (weights "
        f"{_gigabytes(memory['weights'])}, {', '.join(parts)})",
        f"no step{each} takes less than {written_s(result['floor_s']['total'])} here",
        f"first batch{each}: step {first['step']}, uint8 {tuple(first['frames'])}, "
        f"{shortest if shortest == longest else f'{shortest} to {longest}'} frames a sequence",
    ]
    if result["init_from"] is not None:
        facts.append(f"first weights: {result['init_from']}")
    return "".join(f"# {fact}\n" for fact in facts) + _as_toml(result["config"])


def _as_toml(fields: dict[str, dict[str, Any]]) -> str:
    """Write the fields that are set; TOML has no word for those that are not."""
    lines = []
    for part, values in fields.items():
        lines += ["", f"[{part}]"]
        for name, value in values.items():
            unset = value is None
            lines.append(f"# {name} is unset" if unset else f"{name} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g}"
