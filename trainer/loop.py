"""The recipe, to be read top to bottom: draw a batch, take a step, log, look at val, save."""

import math
import os
import time
from collections.abc import Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmgen.shard.cache import ShardCache
from trainer.checkpoint import (
    FORMAT,
    save_checkpoint,
)
from trainer.config import RunConfig, TrainConfig
from trainer.errors import InputError, RunError
from trainer.evaluation import check_lengths, evaluate
from trainer.log import RunLog, read_jsonl
from trainer.model import VideoAutoencoder
from trainer.noise import Noise, draw_noise, step_generator
from trainer.run_folder import check_folder, prepare_folder
from trainer.schedule import learning_rate, share_shown
from trainer.source import (
    Address,
    Source,
    absolute,
    as_weighted,
    find_source,
)
from trainer.step import decode, make_task, task_losses
from trainer.stream import SequenceStream
from trainer.world import (
    one_line_when_out_of_memory,
    pick_device,
    pick_precision,
    product_dtype,
)


@one_line_when_out_of_memory()
def fit(
    config: TrainConfig,
    data: Address | Mapping[str, float],
    run: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train on the split train of DATA, watch its val, leave everything in the folder `run`.

    data       an address, or {address: weight} of several, of which the first one's val is watched
    resume     go on from the newest checkpoint, or start where there is none
    overwrite  throw an earlier run in the folder away
    returns    the last look at val: mse and ce of prediction and reconstruction, and the step
    raises     InputError before work starts; RunError if the loss is not finite any more
    """
    device = pick_device(config.run.device)
    precision = pick_precision(config.run.precision, device)
    weighted = as_weighted(data)
    stream = SequenceStream(
        weighted,
        config.data.batch_size,
        seed=config.run.seed,
        readers=_num_readers(),
        pin_memory=device.type == "cuda",
        cache=ShardCache(max_bytes=int(config.run.cache_gb * 1e9)),
    )
    for source in stream.sources:
        check_lengths(source, config.data)
    watched = _watched(stream.sources[0], config)
    check_folder(run, config, resume=resume, overwrite=overwrite)

    torch.manual_seed(config.run.seed)
    model = VideoAutoencoder(config.model, stream.sequence_shape[1:]).to(device)
    model.round_products(product_dtype(precision))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    named = {absolute(address): weight for address, weight in weighted.items()}
    # Nothing of an earlier run is thrown away before all this was possible.
    checkpoint = prepare_folder(run, config, named, overwrite=overwrite)
    if checkpoint:
        _restore(checkpoint, model, optimizer, stream, device)
    steps, batch_size = config.run.steps, config.data.batch_size
    log = RunLog(run, steps, stream.step, quiet=quiet, is_due=partial(_is_due, config.run))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    log.say(f"{num_parameters:,} parameters on {device}, products in {precision}")
    looked: dict[str, Any] = {}

    batches = iter(stream)
    while stream.step < steps:
        asked = time.monotonic()
        batch = next(batches)
        if _is_idle(device):
            log.waited(time.monotonic() - asked)
        step = stream.step  # counts from 1: this step's number
        rate = learning_rate(config.optimizer, step - 1, steps)
        generator = step_generator(config.run.seed, step, device)
        share = share_shown(config.optimizer, step - 1)
        num_values = batch.frames[0, 0].numel()
        noise = draw_noise(config.model, config.data, batch_size, num_values, share, generator)
        losses = train_step(model, optimizer, batch.to(device).frames, config, rate, noise)
        is_saved = step % config.run.checkpoint_every == 0 or step == steps
        is_logged = _is_due(config.run, {"step": step})
        if is_saved or is_logged:
            numbers = {name: value.item() for name, value in losses.items()}
            _stop_unless_finite("loss", numbers["loss"], step)
        if is_logged:
            log.metrics({"step": step, **numbers, "lr": rate})
            log.timing(step, batch_size)
            log.step(step, numbers["loss"], batch_size)
        if _is_due(config.run, {"step": step, "val": {}}):
            looked = _look(model, watched, config, step, log)
        if is_saved:
            log.sync()  # a checkpoint never outlives the lines before it
            _save(run, config, model, optimizer, stream, device)
    batches.close()
    return looked or _last_look(run)


def _num_readers() -> int:
    """Return how many threads read: half the cores, four at most: each holds a batch."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // 2))


def _is_idle(device: torch.device) -> bool:
    """Tell whether the device has done all it was given: else waiting for data cost nothing."""
    return device.type != "cuda" or torch.cuda.current_stream(device).query()


def _is_due(config: RunConfig, line: dict[str, Any]) -> bool:
    """Tell whether a line of metrics.jsonl is one that this config writes."""
    every = config.eval_every if "val" in line else config.log_every
    step: int = line["step"]
    return step % every == 0 or step == config.steps


def train_step(
    model: VideoAutoencoder,
    optimizer: torch.optim.Optimizer,
    frames: Tensor,
    config: TrainConfig,
    rate: float,
    noise: Noise | None = None,
) -> dict[str, Tensor]:
    """Take one optimizer step on uint8 frames (B, T, H, W); return the losses, scalars."""
    task = make_task(frames, None, config.data)
    model.train()
    losses = task_losses(decode(model, task, noise, training=True), task, config)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    losses.loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    named = losses._asdict().items()
    return {name: value.detach() for name, value in named if value is not None}


def _watched(train: Source, config: TrainConfig) -> Source | None:
    """Return the split that is looked at while training, None if the set has none."""
    val = find_source(train.address, "val")
    if val is None:
        return None
    check_lengths(val, config.data)
    if val.sequence_shape[1:] != train.sequence_shape[1:]:
        raise InputError(
            f"{train.address}: frames of val are {val.sequence_shape[1:]}, of train "
            f"{train.sequence_shape[1:]}"
        )
    return val


def _look(
    model: VideoAutoencoder, watched: Source | None, config: TrainConfig, step: int, log: RunLog
) -> dict[str, Any]:
    if watched is None:
        return {}
    asked = config.run.eval_sequences
    count = asked if watched.count is None else min(asked, watched.count)
    scores = evaluate(model, watched, config.data, count, baselines=False)
    short = {
        name: {metric: scores[name][metric] for metric in ("mse", "ce")}
        for name in ("prediction", "reconstruction")
        if scores[name] is not None
    }
    for name, values in short.items():
        _stop_unless_finite(f"{name} error on val", values["mse"], step)
    log.metrics({"step": step, "val": short})
    log.say(
        f"step {step}/{config.run.steps}  val: prediction MSE {short['prediction']['mse']:.1f}, "
        f"reconstruction MSE {short['reconstruction']['mse']:.1f}"
    )
    return {"step": step, **short}


def _last_look(run: Path) -> dict[str, Any]:
    """Return what a finished run saw last."""
    for line in reversed(read_jsonl(run / "metrics.jsonl")):
        if "val" in line:
            return {"step": line["step"], **line["val"]}
    return {}


def _stop_unless_finite(name: str, value: float | None, step: int) -> None:
    if value is None or not math.isfinite(value):
        written = "not finite" if value is None else value
        raise RunError(
            f"the {name} is {written} at step {step}; lower lr and start again with --overwrite, "
            "or another --run"
        )


def _save(
    run: Path,
    config: TrainConfig,
    model: VideoAutoencoder,
    optimizer: torch.optim.Optimizer,
    stream: SequenceStream,
    device: torch.device,
) -> None:
    checkpoint = {
        "format": FORMAT,
        "step": stream.step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": _rng_state(device),
        "stream": stream.state_dict(),
        "config": config.model_dump(),
        "version": _version(),
        "frame_shape": list(model.frame_shape),
    }
    save_checkpoint(run, checkpoint, config.run.keep_checkpoints)


def _restore(
    checkpoint: dict[str, Any],
    model: VideoAutoencoder,
    optimizer: torch.optim.Optimizer,
    stream: SequenceStream,
    device: torch.device,
) -> None:
    if tuple(checkpoint["frame_shape"]) != model.frame_shape:
        raise InputError(
            f"the run was trained on frames {tuple(checkpoint['frame_shape'])}, the data set now "
            f"has {model.frame_shape}"
        )
    stream.load_state_dict(checkpoint["stream"])
    try:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        torch.set_rng_state(checkpoint["rng"]["cpu"])
        if device.type == "cuda" and "cuda" in checkpoint["rng"]:
            torch.cuda.set_rng_state(checkpoint["rng"]["cuda"], device)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"the checkpoint of step {checkpoint['step']} does not fit its run "
            f"({type(error).__name__}); remove it, or overwrite the run"
        ) from error


def _rng_state(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _version() -> str:
    try:
        return version("moving-mnist")
    except PackageNotFoundError:  # a checkout that is not installed
        return "unknown"
