"""The recipe, to be read top to bottom: draw a batch, take a step, log, look at val, save."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmgen import __version__
from trainer.address import Address
from trainer.best import Best, find_best, write_best
from trainer.board import Board
from trainer.checkpoint import (
    FORMAT,
    drop_checkpoints,
    list_checkpoints,
    save_checkpoint,
)
from trainer.config import RunConfig, TrainConfig, parse_config
from trainer.errors import RunError, Stopped
from trainer.gradients import add_gradients, replicate
from trainer.graph import make_step
from trainer.lengths import has_short
from trainer.log import RunLog
from trainer.look import look_at
from trainer.model import VideoAutoencoder
from trainer.noise import Noise, draw_noise, step_generator
from trainer.optimizer import Updater
from trainer.run_folder import held_folder
from trainer.schedule import learning_rate, share_shown
from trainer.setup import find_start, first_model, naming_misfit, open_checkpoint
from trainer.source import Source
from trainer.stopping import Stop
from trainer.stream import Batch, SequenceStream
from trainer.world import (
    World,
    float32_products,
    make_deterministic,
    one_line_when_out_of_memory,
    product_dtype,
)

_REASONS = ("SIGINT", "SIGTERM", "patience", "max-time")  # the first one that any rank has counts
_LOWER = "start again with a lower lr or a clip_norm, by --overwrite or as another --run"


@dataclass(frozen=True)
class Fitted:
    """How a call of `fit` ended.

    step   the last one taken
    ended  why there: all steps done, looks without a new best, or the time that was given is over
    val    the last look at val, {} where there is none: the step, and of each decoder mse and ce
    best   the best look
    """

    step: int
    ended: str  # steps, patience or max-time
    val: dict[str, Any]
    best: Best | None


@one_line_when_out_of_memory()
def fit(
    config: TrainConfig,
    data: Address | Mapping[str, float],
    run: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    init_from: Path | None = None,
    reference: bool = False,
    deterministic: bool = False,
    max_time_s: float | None = None,
    quiet: bool = False,
) -> Fitted:
    """Train on the split train of DATA, watch its val, leave everything in the folder `run`.

    Under torchrun each rank calls it, with the same arguments.

    data       an address, or {address: weight} of several, of which the first one's val is watched
    resume     go on from the newest checkpoint, or start where there is none
    overwrite  throw an earlier run in the folder away
    init_from  a checkpoint, or the 2020 tutorial's model.bin: the first weights
    reference  take the plain model instead of the fast one
    deterministic  on CUDA too, equal runs are equal bit for bit
    max_time_s  end with a checkpoint after this time
    raises     InputError before work starts; Stopped after a signal, with a checkpoint; RunError if
               too many steps in a row, or a look at val, are not finite
    """
    with Stop(max_time_s) as stop, ExitStack() as stack:
        if deterministic:
            make_deterministic()
        start = find_start(
            config, data, run, resume=resume, overwrite=overwrite, init_from=init_from
        )
        world, device, precision, stream = start.world, start.device, start.precision, start.stream
        model = first_model(config, start, reference=reference)
        model.to(device).round_products(product_dtype(precision))
        updater = Updater(model, config.optimizer, precision)

        stack.enter_context(world.joined(device))
        # Not before: a rank that waits for one that has failed must end when its launcher says so.
        stop.listen()
        stack.enter_context(float32_products(precision))
        # Nothing of an earlier run is thrown away before all this was possible.
        if world.is_first:
            stack.enter_context(held_folder(run, start.request, overwrite=overwrite))
        world.wait()
        saved = _restore_newest(run, model, updater, stream)
        log = _open_log(run, config, saved or config, stream.step, world, quiet=quiet)
        num_parameters = sum(parameter.numel() for parameter in model.parameters())
        ranks = f", {world.size} ranks" if world.size > 1 else ""
        log.say(f"{num_parameters:,} parameters on {device}{ranks}, products in {precision}")
        board = None
        if config.run.tensorboard and world.is_first:
            board = stack.enter_context(closing(Board(run, stream.step)))
        watched = start.watched
        job = Training(config, run, world, device, model, updater, stream, watched, log, board)
        return train(job, stop)


@dataclass(frozen=True)
class Training:
    """All that a run has in its hands while it trains."""

    config: TrainConfig
    run: Path
    world: World
    device: torch.device
    model: VideoAutoencoder
    updater: Updater
    stream: SequenceStream
    watched: Source | None  # val
    log: RunLog
    board: Board | None  # for TensorBoard; of several ranks only the first one may have it


def train(job: Training, stop: Stop) -> Fitted:
    """Take the steps that are left."""
    config, stream, updater, log = job.config, job.stream, job.updater, job.log
    model = replicate(job.model, config, job.world)
    is_varied = any(has_short(source, config) for source in stream.sources)

    def take(batch: Batch, noise: Noise, rate: float | Tensor) -> tuple[dict[str, Tensor], Tensor]:
        losses = add_gradients(model, updater, batch, noise, config, job.world, is_varied=is_varied)
        return losses, updater.update(rate)

    take_step = make_step(take, updater, job.device, log.say, ranks=job.world.size)
    ended = _why_end(job, stop)
    with closing(iter(stream)) as batches:
        while ended is None:
            batch = _next(batches, job)
            step = stream.step  # counts from 1: this step's number
            rate = learning_rate(config.optimizer, step - 1, config.run.steps)
            noise = _noise(job, step)
            job.model.train()
            losses, norm = take_step(batch, noise, rate)
            if _is_due(config.run, step, config.run.log_every):
                _log_step(job, losses, norm, rate)
            is_best = _is_due(config.run, step, config.run.eval_every) and _look(job)
            ended = _why_end(job, stop)
            if is_best or ended or step % config.run.checkpoint_every == 0:
                _save(job)
            # Asking how many steps were skipped waits for CUDA.
            elif job.device.type == "cpu" or step % config.run.max_skipped == 0:
                _stop_if_stuck(job)
            log.progress(step)
    log.end_bar()
    if ended in ("SIGINT", "SIGTERM"):
        saved = "its checkpoint is complete, " if stream.step else ""
        raise Stopped(
            f"{ended} ended the run after step {stream.step} of {config.run.steps}; {saved}go on "
            "with --resume"
        )
    return Fitted(stream.step, ended, _last_look(log), find_best(log.looks, config.best_metric))


def _next(batches: Iterator[Batch], job: Training) -> Batch:
    """Return the next batch, on its way to the device."""
    asked = time.monotonic()
    batch = next(batches)
    # While the device still has something to do, waiting for data costs nothing.
    if job.device.type != "cuda" or torch.cuda.current_stream(job.device).query():
        job.log.waited(time.monotonic() - asked)
    return batch.to(job.device)


def _noise(job: Training, step: int) -> Noise:
    config = job.config
    generator = step_generator(config.run.seed, step, job.device)
    share = share_shown(config.optimizer, step - 1)
    num_values = math.prod(job.model.frame_shape)
    return draw_noise(
        config.model, config.data, config.data.batch_size, num_values, share, generator
    )


def _is_due(config: RunConfig, step: int, every: int) -> bool:
    """Tell whether a line is written at a step; the last step has them all."""
    return step % every == 0 or step == config.steps


def _why_end(job: Training, stop: Stop) -> str | None:
    """Say why no step follows, the same on all ranks; None if one does."""
    if job.stream.step >= job.config.run.steps:
        return "steps"
    reason = stop.reason or ("patience" if _is_out_of_patience(job) else None)
    if not job.world.any(reason is not None):
        return None
    return next(why for why in _REASONS if job.world.any(reason == why))


def _is_out_of_patience(job: Training) -> bool:
    """Tell whether the looks say that it is enough; the first rank alone has them all."""
    patience = job.config.run.patience
    if patience is None or not job.world.is_first:
        return False
    best = find_best(job.log.looks, job.config.best_metric)
    return best is not None and best.looks_since >= patience


def _log_step(job: Training, losses: dict[str, Tensor], norm: Tensor, rate: float) -> None:
    step = job.stream.step
    values = job.world.sum(torch.stack([*losses.values()])).tolist()
    line: dict[str, Any] = {"step": step}
    line |= {name: _finite(value) for name, value in zip(losses, values, strict=True)}
    line |= {"lr": rate, "grad_norm": _finite(norm.item())}
    if job.config.model.decoder_input == "scheduled":
        line["share_shown"] = share_shown(job.config.optimizer, step - 1)
    if num_skipped := int(job.updater.num_skipped):
        line["skipped"] = num_skipped
    job.log.metrics(line)
    if job.board:
        job.board.curves(line)
    job.log.timing(step)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _look(job: Training) -> bool:
    """Look at val; tell whether it was the best look so far."""
    if job.watched is None:
        return False
    config, step = job.config, job.stream.step
    asked, there = config.run.eval_sequences, job.watched.count
    count = asked if there is None else min(asked, there)
    with job.updater.averaged():
        scores = look_at(job.model, job.watched, config, count, job.world)
        if job.board:
            job.board.rollouts(step, job.model, job.watched, config.data)
    for head, errors in scores.items():
        if errors["mse"] is None:
            raise RunError(f"step {step}: the {head} error on val is not finite; {_LOWER}")
    line = {"step": step, "val": scores}
    job.log.metrics(line)
    if job.board:
        job.board.curves(line)
    errors_said = ", ".join(f"{head} MSE {errors['mse']:.1f}" for head, errors in scores.items())
    job.log.say(f"step {step}/{config.run.steps}  val: {errors_said}")
    best = find_best(job.log.looks, config.best_metric)
    return best is not None and best.step == step


def _last_look(log: RunLog) -> dict[str, Any]:
    return {"step": log.looks[-1]["step"], **log.looks[-1]["val"]} if log.looks else {}


def _stop_if_stuck(job: Training) -> None:
    """End the run if nothing but skipped steps came since long."""
    in_a_row = int(job.updater.skipped_in_a_row)
    if in_a_row >= job.config.run.max_skipped:
        raise RunError(
            f"step {job.stream.step}: loss or gradient was not finite {in_a_row} steps in a row; "
            f"{_LOWER}"
        )


def _save(job: Training) -> None:
    """Write a checkpoint, then say which is the best, then drop what neither needs."""
    _stop_if_stuck(job)
    if not job.world.is_first:
        return
    job.log.sync()  # a checkpoint never outlives the lines before it
    if job.board:
        job.board.sync()
    checkpoint = {
        "format": FORMAT,
        "step": job.stream.step,
        "model": job.model.state_dict(),
        "optimizer": job.updater.state_dict(),
        "stream": job.stream.state_dict(),
        "config": job.config.model_dump(),
        "version": __version__,
        "frame_shape": list(job.model.frame_shape),
    }
    save_checkpoint(job.run, checkpoint)
    best = find_best(job.log.looks, job.config.best_metric)
    write_best(job.run, best)
    drop_checkpoints(job.run, job.config.run.keep_checkpoints, best.step if best else None)


def _restore_newest(
    run: Path, model: VideoAutoencoder, updater: Updater, stream: SequenceStream
) -> TrainConfig | None:
    """Go on from the newest checkpoint; return the config it was saved under, None without one."""
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        return None
    checkpoint = open_checkpoint(checkpoints[-1], stream)
    with naming_misfit(checkpoints[-1]):
        model.load_state_dict(checkpoint["model"])
        updater.load_state_dict(checkpoint["optimizer"])
    return parse_config(checkpoint["config"])


def _open_log(
    run: Path, config: TrainConfig, saved: TrainConfig, step: int, world: World, *, quiet: bool
) -> RunLog:
    """Open the log behind a step.

    saved  the config that the lines up to there are of
    """

    def stays(line: dict[str, Any]) -> bool:
        # What was written because its steps were over, a longer run does not have.
        every = saved.run.eval_every if "val" in line else saved.run.log_every
        return line["step"] % every == 0 or step >= config.run.steps

    log = RunLog(
        run,
        config.run.steps,
        config.data.batch_size,
        step,
        quiet=quiet,
        is_first=world.is_first,
        stays=stays,
    )
    if world.is_first:
        write_best(run, find_best(log.looks, config.best_metric))
    return log
