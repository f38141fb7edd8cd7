"""The gradients of one step: of all parts of all ranks' batches, as if they were one.

Each loss is a sum over a part divided by what the whole batch has, so that parts and ranks add up.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.config import TrainConfig
from trainer.fused import FusedAutoencoder
from trainer.model import VideoAutoencoder
from trainer.noise import Noise
from trainer.optimizer import Updater
from trainer.step import decode, make_task, task_losses
from trainer.stream import Batch
from trainer.world import World

Counts = tuple[float | Tensor, float | Tensor]


def replicate(model: VideoAutoencoder, config: TrainConfig, world: World) -> nn.Module:
    """Let ranks add up a layer's gradients as soon as it is done; one rank needs no help."""
    if world.size == 1:
        return model
    device = next(model.parameters()).device
    # A decoder reads nothing before its first frame: of one frame, the plain model never uses some
    # weights. The fast one has them all in its graph, but where that frame takes no step either.
    uses_all = isinstance(model, FusedAutoencoder) and not config.model.copy_initial_state
    is_short = 1 in (config.data.num_reconstructed, config.data.predict)
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=is_short and not uses_all,
        gradient_as_bucket_view=True,
    )


def add_gradients(
    model: nn.Module,
    updater: Updater,
    batch: Batch,
    noise: Noise,
    config: TrainConfig,
    world: World,
    *,
    is_varied: bool,
) -> dict[str, Tensor]:
    """Take a rank's batch forwards and backwards; return its share of the losses, scalars.

    model      as `replicate` gives it: after this the gradients are those of all ranks
    batch      on the model's device
    noise      of the whole batch of all ranks
    is_varied  some sequences may have fewer frames than asked for
    """
    rows = len(batch.frames)
    part = rows // config.optimizer.accumulate
    before = world.rank * rows
    num_values = _count_values(batch, config, world, is_varied=is_varied)
    shares: dict[str, Tensor] = {}
    for first in range(0, rows, part):
        last = first + part
        counts = batch.num_frames[first:last] if is_varied else None
        task = make_task(batch.frames[first:last], counts, config.data)
        with nullcontext() if last == rows else _alone(model):
            decoded = decode(model, task, noise.rows(before + first, before + last), training=True)
            losses = task_losses(decoded, task, config, num_values)
            # Ranks take the mean of their gradients, and should the sum.
            whole = updater.scaled(_spoilt_unless_finite(losses.loss * world.size))
            whole.backward()  # type: ignore[no-untyped-call]
        for name, value in losses._asdict().items():
            if value is not None:
                shares[name] = value.detach() + shares.get(name, 0)
    return shares


def _count_values(batch: Batch, config: TrainConfig, world: World, *, is_varied: bool) -> Counts:
    """Count the values that the whole batch of all ranks has to reconstruct, and to predict."""
    data = config.data
    num_values = batch.frames[0, 0].numel()
    if not is_varied:
        one_frame = data.batch_size * num_values
        return data.num_reconstructed * one_frame, data.predict * one_frame
    reconstructed = batch.num_frames.clamp(max=data.num_reconstructed)
    predicted = (batch.num_frames - data.context).clamp(0, data.predict)
    here = torch.stack([reconstructed.sum(), predicted.sum()]) * num_values
    whole = world.sum(here).clamp(min=1)
    return whole[0], whole[1]


def _alone(model: nn.Module) -> Any:
    """Keep gradients from travelling to other ranks for a while."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _spoilt_unless_finite(loss: Tensor) -> Tensor:
    """Let the gradients of an infinite loss be no numbers, on every rank, so that all skip it."""
    return loss * torch.where(loss.isfinite(), 1.0, torch.nan)
