"""One batch through the model: what is shown, what is asked, and the loss.

Letters: B batch, T frames of a sequence, R reconstructed, P predicted, D values a frame.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.config import DataConfig, TrainConfig
from trainer.model import Decoded, last_frames, to_values
from trainer.noise import Noise


@dataclass(frozen=True)
class Task:
    """What a model is shown of a batch and asked for, float32 in [0, 1].

    context         (B, context, D)
    reconstruction  (B, R, D), the last R frames of the context
    future          (B, P, D)
    lengths         int64 (B,), frames of the context there are; None where all have all
    has_reconstruction, has_future
                    bool (B, R) and (B, P), which frames exist; None where all do
    """

    context: Tensor
    reconstruction: Tensor
    future: Tensor
    lengths: Tensor | None = None
    has_reconstruction: Tensor | None = None
    has_future: Tensor | None = None


def make_task(frames: Tensor, num_frames: Tensor | None, data: DataConfig) -> Task:
    """Cut uint8 frames (B, T, H, W), or (B, T, H, W, 3), into what is shown and what is asked.

    num_frames  int (B,), frames of each sequence; None where all have context + predict at least
    """
    last = data.context + data.predict
    values = to_values(frames[:, :last])
    missing = last - values.shape[1]
    if missing > 0:  # the longest sequence of the set ends before
        values = F.pad(values, (0, 0, 0, missing))
    context, future = values[:, : data.context], values[:, data.context :]
    kept, lengths = data.num_reconstructed, None
    has_reconstruction = has_future = None
    if num_frames is not None:
        lengths = num_frames.clamp(max=data.context).long()
        has_reconstruction = _exist(lengths, kept)
        has_future = _exist(num_frames - data.context, data.predict)
    reconstruction = last_frames(context.transpose(0, 1), kept, lengths).transpose(0, 1)
    return Task(context, reconstruction, future, lengths, has_reconstruction, has_future)


def _exist(counts: Tensor, frames: int) -> Tensor:
    return torch.arange(frames, device=counts.device) < counts[:, None]


def decode(model: nn.Module, task: Task, noise: Noise | None, *, training: bool) -> Decoded:
    """Run a VideoAutoencoder, or what wraps one, on a task; true frames only while training."""
    decoded: Decoded = model(
        task.context,
        task.future.shape[1],
        num_reconstructed=task.reconstruction.shape[1],
        lengths=task.lengths,
        future=task.future if training else None,
        noise=noise,
    )
    return decoded


class Losses(NamedTuple):
    """What is minimised, and its parts before their weights; scalars, None of absent decoders."""

    loss: Tensor
    reconstruction_loss: Tensor | None
    prediction_loss: Tensor | None


def task_losses(
    decoded: Decoded,
    task: Task,
    config: TrainConfig,
    num_values: tuple[float | Tensor, float | Tensor] | None = None,
) -> Losses:
    """Return the losses of a batch, or of a part of one.

    num_values  what the sums over (reconstructed, predicted) values are divided by, where the mean
                is of a larger batch than this part; None for the values that exist here
    """
    optimizer = config.optimizer
    means = num_values or (None, None)
    parts = [
        None if output is None else _loss(output, target, exists, config, mean)
        for output, target, exists, mean in (
            (decoded.reconstruction, task.reconstruction, task.has_reconstruction, means[0]),
            (decoded.prediction, task.future, task.has_future, means[1]),
        )
    ]
    weights = (optimizer.reconstruct_weight, optimizer.predict_weight)
    weighted = [
        weight * part for weight, part in zip(weights, parts, strict=True) if part is not None
    ]
    return Losses(torch.stack(weighted).sum(), *parts)


def _loss(
    output: Tensor,
    target: Tensor,
    exists: Tensor | None,
    config: TrainConfig,
    num_values: float | Tensor | None,
) -> Tensor:
    """Return squared error or cross-entropy, summed or per value, over the frames that exist."""
    if config.optimizer.loss == "ce":
        measure = partial(F.binary_cross_entropy_with_logits, output, target)
    else:
        emitted = output.sigmoid() if config.model.output == "sigmoid" else output
        measure = partial(F.mse_loss, emitted, target)
    there: int | Tensor
    if exists is None:
        total, there = measure(reduction="sum"), target.numel()
    else:  # no choosing of rows: how many there are would have to come back from the device
        total = (measure(reduction="none").sum(-1) * exists).sum()
        there = (exists.sum() * target.shape[-1]).clamp(min=1)
    if config.optimizer.loss_reduction == "sum":
        return total
    return total / (there if num_values is None else num_values)
