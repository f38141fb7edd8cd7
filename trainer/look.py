"""A look at val while training: the errors of the decoders on its first sequences, and no more.

Every rank scores its part; the sums come together, so that all ranks know the same numbers.

Letters: B sequences at a time, T frames.
"""

import math

import torch
from torch import Tensor

from trainer import losses
from trainer.config import TrainConfig
from trainer.lengths import has_short
from trainer.model import VideoAutoencoder
from trainer.source import Source
from trainer.step import decode, make_task
from trainer.stream import in_order
from trainer.world import World

_BATCH = 64

Scores = dict[str, dict[str, float | None]]


@torch.inference_mode()
def look_at(
    model: VideoAutoencoder,
    source: Source,
    config: TrainConfig,
    num_sequences: int,
    world: World,
) -> Scores:
    """Score the first sequences of a split, decoders on their own output.

    returns  {"prediction": {"mse", "ce"}, "reconstruction": ...}, without the decoders that the
             model has not: means over the frames that exist, mse summed over a frame's pixels, ce
             in nats per frame; None where not finite
    """
    device = next(model.parameters()).device
    model.eval()
    sums = torch.zeros(2, 3, dtype=torch.float64, device=device)  # of mse, ce, frames
    is_varied = has_short(source, config)
    first, last = (num_sequences * rank // world.size for rank in (world.rank, world.rank + 1))
    for read in in_order(source, last - first, _BATCH, first=first):
        batch = read.to(device)
        task = make_task(batch.frames, batch.num_frames if is_varied else None, config.data)
        decoded = decode(model, task, None, training=False)
        if decoded.prediction is not None:
            sums[0] += _sums(model, decoded.prediction, task.future, task.has_future)
        if decoded.reconstruction is not None:
            sums[1] += _sums(
                model, decoded.reconstruction, task.reconstruction, task.has_reconstruction
            )
    heads = {"prediction": config.model.predicts, "reconstruction": config.model.reconstructs}
    return {
        head: {"mse": _mean(mse, count), "ce": _mean(ce, count)}
        for (head, is_there), (mse, ce, count) in zip(
            heads.items(), world.sum(sums).tolist(), strict=True
        )
        if is_there
    }


def _sums(model: VideoAutoencoder, output: Tensor, target: Tensor, exists: Tensor | None) -> Tensor:
    """Return squared error and cross-entropy over all frames that exist, and their number."""
    if exists is None:
        exists = torch.ones(target.shape[:2], dtype=torch.bool, device=target.device)
    errors = (
        losses.squared_error(model.emit(output), target),
        losses.output_cross_entropy(output, target, is_logit=model.config.output == "sigmoid"),
    )
    sums = [torch.where(exists, error, 0).double().sum() for error in errors]
    return torch.stack([*sums, exists.double().sum()])


def _mean(total: float, count: float) -> float | None:
    mean = total / max(count, 1)
    return mean if math.isfinite(mean) else None
