"""What a training step draws: dropout, and which frames a scheduled decoder is shown.

All of it is drawn before the step, for the whole batch of all ranks, by a generator that the seed
and the step's number start: so a step is a function of its weights, its batch and this, the same
for any number of ranks, and resuming needs no state of a generator.

Letters: T frames, B sequences, D values a frame, U units.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from trainer.config import DataConfig, ModelConfig


@dataclass(frozen=True)
class StackNoise:
    """What multiplies the values of one stack: 0, or 1 / (1 - dropout). None where nothing does.

    input     (T, B, D), what the first layer reads; of a decoder's first frame nothing is read
    between   (T, B, U) of each layer but the first, what it reads from the layer below
    output    (T, B, U), the last layer's h before the read-out
    is_shown  bool (T, B, 1), whether a scheduled decoder reads the true frame before this one
    """

    input: Tensor | None = None
    between: tuple[Tensor | None, ...] = ()
    output: Tensor | None = None
    is_shown: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "StackNoise":
        """Change each tensor there is."""

        def changed(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        between = tuple(changed(tensor) for tensor in self.between)
        return StackNoise(
            changed(self.input), between, changed(self.output), changed(self.is_shown)
        )


@dataclass(frozen=True)
class Noise:
    """The noise of a step, by stack."""

    encoder: StackNoise = StackNoise()
    reconstruct: StackNoise = StackNoise()
    predict: StackNoise = StackNoise()

    def map(self, change: Callable[[Tensor], Tensor]) -> "Noise":
        """Change each tensor there is."""
        return Noise(*(part.map(change) for part in (self.encoder, self.reconstruct, self.predict)))

    def rows(self, first: int, last: int) -> "Noise":
        """Return the noise of the sequences `first` to `last` - 1 of the batch."""
        return self.map(lambda tensor: tensor[:, first:last])


def step_generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Return the generator of one step's noise, the same wherever and whenever it is asked for."""
    key = blake2b(f"noise {seed} {step}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(key) >> 1)


def draw_noise(
    model: ModelConfig,
    data: DataConfig,
    batch: int,
    num_values: int,
    share_shown: float,
    generator: torch.Generator,
) -> Noise:
    """Draw the noise of one step on the generator's device; what is switched off costs nothing.

    batch        sequences, over all ranks      num_values  D
    share_shown  of the true frames that a scheduled decoder reads, 0..1
    """

    def kept(rate: float, *shape: int) -> Tensor | None:
        if not rate:
            return None
        mask = torch.empty(shape, device=generator.device)
        return mask.bernoulli_(1 - rate, generator=generator).div_(1 - rate)

    def stack(frames: int, *, is_decoder: bool) -> StackNoise:
        reads = not (is_decoder and model.decoder_input == "unconditional")
        is_scheduled = is_decoder and model.decoder_input == "scheduled"
        drawn = torch.empty(frames, batch, 1, device=generator.device) if is_scheduled else None
        return StackNoise(
            kept(model.input_dropout, frames, batch, num_values) if reads else None,
            tuple(
                kept(model.dropout, frames, batch, model.hidden) for _ in range(model.layers - 1)
            ),
            kept(model.output_dropout, frames, batch, model.hidden) if is_decoder else None,
            None if drawn is None else drawn.uniform_(generator=generator) < share_shown,
        )

    nothing = StackNoise()
    reconstructed = data.num_reconstructed
    return Noise(
        stack(data.context, is_decoder=False),
        stack(reconstructed, is_decoder=True) if model.reconstructs else nothing,
        stack(data.predict, is_decoder=True) if model.predicts else nothing,
    )
