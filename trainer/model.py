"""The LSTM autoencoder of Srivastava et al. 2015 (arXiv:1502.04681), as the 2020 tutorial has it.

An encoder reads the context; its final state starts two decoders: one unrolls the context backwards
from the last frame to the first (reconstruction), one what follows (prediction). A decoder's first
input is zero; after that it reads its own linear output, with the gradient going through it.

Written in plain products over the parameters of nn.LSTM and nn.Linear, which keep the tutorial's
names in a state dict: nn.LSTM called for one step at a time is 2.6 times slower on a CPU. Knows no
device, rank or file.

Letters: B batch, T frames, D values a frame (H * W, or H * W * 3, channels last), U hidden units.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.config import ModelConfig
from trainer.products import product

State = list[tuple[Tensor, Tensor]]  # a layer's output h and cell c, each (B, U)


class Decoded(NamedTuple):
    """What both decoders say, in the order of time, linear and unclipped."""

    reconstruction: Tensor  # (B, T, D)
    prediction: Tensor  # (B, steps, D)


class VideoAutoencoder(nn.Module):
    """Encoder, reconstruction decoder and prediction decoder.

    config       sizes and dropout
    frame_shape  (H, W) or (H, W, 3)
    """

    def __init__(self, config: ModelConfig, frame_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        self.frame_shape = tuple(frame_shape)
        num_values = torch.Size(frame_shape).numel()
        self.encoder = Encoder(config, num_values)
        self.reconstruct_decoder = Decoder(config, num_values)
        self.predict_decoder = Decoder(config, num_values)

    def round_products(self, dtype: torch.dtype | None) -> None:
        """Choose what the factors of matrix products are rounded to; weights and state stay.

        dtype  torch.bfloat16 for example; None multiplies the weights as they are
        """
        for part in (self.encoder, self.reconstruct_decoder, self.predict_decoder):
            part.product_dtype = dtype

    def forward(self, context: Tensor, steps: int) -> Decoded:
        """Decode context frames (B, T, D) and `steps` frames after them."""
        state = self.encoder(context)
        backwards = self.reconstruct_decoder(state, context.shape[1])  # (B, T, D)
        return Decoded(backwards.flip(1), self.predict_decoder(state, steps))

    @torch.inference_mode()
    def generate(self, context: Tensor, steps: int) -> Tensor:
        """Predict what follows: uint8 (B, T, H, W) -> float (B, steps, H, W), not clipped."""
        if steps < 1:
            raise ValueError(f"steps is {steps}, allowed is 1 or more")
        with _evaluating(self):
            state = self.encoder(self._on_my_device(context))
            decoded: Tensor = self.predict_decoder(state, steps)
        return self._as_frames(decoded)

    @torch.inference_mode()
    def reconstruct(self, context: Tensor) -> Tensor:
        """Encode and decode the context: uint8 (B, T, H, W) -> float (B, T, H, W), not clipped."""
        with _evaluating(self):
            state = self.encoder(self._on_my_device(context))
            backwards: Tensor = self.reconstruct_decoder(state, context.shape[1])
        return self._as_frames(backwards.flip(1))

    def _as_frames(self, values: Tensor) -> Tensor:
        return values.reshape(*values.shape[:2], *self.frame_shape)

    def _on_my_device(self, frames: Tensor) -> Tensor:
        frames = torch.as_tensor(frames)
        if frames.dtype != torch.uint8 or tuple(frames.shape[2:]) != self.frame_shape:
            raise ValueError(
                f"frames must be uint8 (B, T, {', '.join(map(str, self.frame_shape))}), "
                f"are {frames.dtype} {tuple(frames.shape)}"
            )
        return to_values(frames.to(next(self.parameters()).device))


class Encoder(nn.Module):
    """An LSTM stack that reads frames and hands its state on."""

    def __init__(self, config: ModelConfig, num_values: int) -> None:
        super().__init__()
        self.lstm = _lstm(config, num_values)
        self.product_dtype: torch.dtype | None = None

    def forward(self, frames: Tensor) -> State:
        """Read frames (B, T, D); return every layer's last state."""
        layers = _layers(self.lstm, self.product_dtype)
        inputs, state = frames, []
        for number, layer in enumerate(layers):
            # Nothing of the input product depends on the recurrence: one product for all frames.
            gates = layer.from_input(inputs)  # (B, T, 4U)
            h = c = gates.new_zeros(len(gates), self.lstm.hidden_size)
            outputs = []
            for t in range(gates.shape[1]):
                h, c = _cell(gates[:, t] + layer.from_state(h) + layer.bias, c)
                outputs.append(h)
            state.append((h, c))
            if number + 1 < len(layers):
                inputs = self._dropped(torch.stack(outputs, 1))  # (B, T, U)
        return state

    def _dropped(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.lstm.dropout, self.training)


class Decoder(nn.Module):
    """An LSTM stack that starts from a state and reads its own linear output."""

    def __init__(self, config: ModelConfig, num_values: int) -> None:
        super().__init__()
        self.lstm = _lstm(config, num_values)
        self.fc = nn.Linear(config.hidden, num_values)
        self.product_dtype: torch.dtype | None = None

    def forward(self, state: State, steps: int) -> Tensor:
        """Unroll `steps` frames from every layer's state; return (B, steps, D)."""
        layers = _layers(self.lstm, self.product_dtype)
        read_out = product(self.fc.weight, self.product_dtype)
        state = list(state)
        frames: list[Tensor] = []
        for t in range(steps):
            for number, layer in enumerate(layers):
                h, c = state[number]
                gates = layer.from_state(h) + layer.bias  # (B, 4U)
                if number > 0:
                    below = F.dropout(state[number - 1][0], self.lstm.dropout, self.training)
                    gates = gates + layer.from_input(below)
                elif t > 0:  # the first input is zero, and zero adds nothing
                    gates = gates + layer.from_input(frames[-1])
                state[number] = _cell(gates, c)
            frames.append(read_out(state[-1][0]) + self.fc.bias)  # (B, D)
        return torch.stack(frames, 1)


class _Layer(NamedTuple):
    """One LSTM layer's products: input (.., I) -> (.., 4U), state (B, U) -> (B, 4U)."""

    from_input: Callable[[Tensor], Tensor]
    from_state: Callable[[Tensor], Tensor]
    bias: Tensor  # (4U,)


def to_values(frames: Tensor) -> Tensor:
    """Turn uint8 frames (B, T, H, W) or (B, T, H, W, 3) into float32 (B, T, D) in [0, 1]."""
    return frames.flatten(2).float().div_(255)


def _lstm(config: ModelConfig, num_values: int) -> nn.LSTM:
    # nn.LSTM warns of dropout on a single layer, which has nothing between layers to drop.
    dropout = config.dropout if config.layers > 1 else 0.0
    return nn.LSTM(num_values, config.hidden, config.layers, batch_first=True, dropout=dropout)


def _layers(lstm: nn.LSTM, dtype: torch.dtype | None) -> list[_Layer]:
    return [
        _Layer(
            product(getattr(lstm, f"weight_ih_l{number}"), dtype),
            product(getattr(lstm, f"weight_hh_l{number}"), dtype),
            getattr(lstm, f"bias_ih_l{number}") + getattr(lstm, f"bias_hh_l{number}"),
        )
        for number in range(lstm.num_layers)
    ]


def _cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Apply an LSTM cell to summed gates (B, 4U), in torch's order: input, forget, new, output."""
    i, f, g, o = gates.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
