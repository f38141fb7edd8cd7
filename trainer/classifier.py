"""The many-to-one recurrent classifier: what a sequence shows, said after its last frame.

The layers are torch's own. On a CPU its LSTM runs in oneDNN: a training step on 100 images took
40 ms of a busy EPYC's core, against 57 with the layers of `fused.py`, whose savings are those of
large layers and of decoders.

Letters: B batch, T frames, C classes, U hidden units.
"""

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmgen.fields import Float, Frozen, Integer
from trainer.model import to_values

_LAYERS: dict[str, Callable[[int, int, int], nn.RNNBase]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
}


class ClassifyConfig(Frozen):
    """All choices of `mmtrain classify`: defaults are those of the 2020 tutorial."""

    cell: Literal["lstm", "gru", "rnn"] = Field("lstm", description="as torch has them")
    hidden: Integer = Field(128, ge=1, description="units of each recurrent layer")
    layers: Integer = Field(2, ge=1, description="recurrent layers")
    num_classes: Integer = Field(10, ge=2, le=256, description="labels are 0..num_classes - 1")
    batch_size: Integer = Field(100, ge=1, description="sequences of one optimizer step")
    lr: Float = Field(0.01, gt=0, allow_inf_nan=False, description="Adam's learning rate")
    epochs: Integer = Field(2, ge=1, description="passes over what is trained on")
    steps: Integer | None = Field(None, ge=1, description="optimizer steps; unset: by epochs")
    seed: Integer = Field(0, ge=0, lt=2**62, description="weights and order of the first training")
    seeds: Integer = Field(1, ge=1, description="trainings, each with the seed after the last one")
    device: str = Field("auto", description="auto (CUDA when it is there), cpu, cuda or cuda:N")


class Classifier(nn.Module):
    """Recurrent layers, and a read-out of what the last of them says after the last frame.

    num_values  H * W of a frame, or H * W * 3
    """

    def __init__(self, config: ClassifyConfig, num_values: int) -> None:
        super().__init__()
        self.recurrent = _LAYERS[config.cell](num_values, config.hidden, config.layers)
        self.fc = nn.Linear(config.hidden, config.num_classes)

    def forward(self, frames: Tensor, num_frames: Tensor) -> Tensor:
        """Return a logit for each class, (B, C).

        frames      uint8 (B, T, H, W) or (B, T, H, W, 3); (B, T, D) where they are rows of an image
        num_frames  int (B,), how many each sequence has; what is behind them is not looked at
        """
        h, _ = self.recurrent(to_values(frames).transpose(0, 1))  # (T, B, U)
        every = torch.arange(len(frames), device=frames.device)
        logits: Tensor = self.fc(h[num_frames.long() - 1, every])
        return logits
