"""The LSTM autoencoder of Srivastava et al. 2015 (arXiv:1502.04681) in all its published forms.

An encoder reads the context; its final state starts the decoders: one unrolls the context backwards
from the last frame to the first (reconstruction), one what follows (prediction). What a decoder
reads on its way, if anything, is `decoder_input` of ModelConfig. The default is the model of the
2020 tutorial, with its names in the state dict.

Everything here is as plain as it can be: a product a step, gradients by autograd. `fused.py` takes
the same step several times faster; this file is its oracle. Knows no device, rank or file.

Letters: B batch, T frames, D values a frame (H * W, or H * W * 3, channels last), U hidden units.
Inside, time comes first, (T, B, D): so a step's values lie together.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.cells import Layer, Stack, State, step
from trainer.config import ModelConfig
from trainer.initial import initialise
from trainer.noise import Noise, StackNoise


class Decoded(NamedTuple):
    """What the decoders say, in the order of time, as the read-outs give it: `emit` makes frames.

    A head that the model has not is None. Where sequences have fewer than T frames, reconstruction
    begins with the first of their last R and says nothing of use past their end.
    """

    reconstruction: Tensor | None  # (B, R, D), of the last R frames of the context
    prediction: Tensor | None  # (B, steps, D)


Head = Callable[[], Tensor]  # decodes (B, frames, D)


class VideoAutoencoder(nn.Module):
    """Encoder, and the decoders that the config names.

    config       the form of the model
    frame_shape  (H, W) or (H, W, 3)
    """

    def __init__(self, config: ModelConfig, frame_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        self.frame_shape = tuple(frame_shape)
        self.product_dtype: torch.dtype | None = None
        num_values = torch.Size(frame_shape).numel()
        self.encoder = Encoder(config, num_values)
        if config.reconstructs:
            self.reconstruct_decoder = Decoder(config, num_values)
        if config.predicts:
            self.predict_decoder = Decoder(config, num_values)
        initialise(self, config)

    def round_products(self, dtype: torch.dtype | None) -> None:
        """Choose what the factors of matrix products are rounded to; weights and state stay.

        dtype  torch.bfloat16 for example; None multiplies the weights as they are
        """
        self.product_dtype = dtype

    def forward(
        self,
        context: Tensor,
        steps: int,
        *,
        num_reconstructed: int | None = None,
        lengths: Tensor | None = None,
        future: Tensor | None = None,
        noise: Noise | None = None,
    ) -> Decoded:
        """Decode the context and `steps` frames after it.

        context    (B, T, D)
        num_reconstructed  R, the last frames of the context to decode; None for all T
        lengths    int (B,), frames that each sequence has of the context; None where all have T
        future     (B, steps, D), what really follows: with it, decoders of teacher and scheduled
                   input read true frames; without, their own
        noise      what dropout and a schedule drew; None for neither
        """
        noise = noise or Noise()
        frames = context.transpose(0, 1)  # (T, B, D)
        state = self._encode(frames, lengths, noise.encoder)

        def reconstruct() -> Tensor:
            count = num_reconstructed or len(frames)
            counts = None if lengths is None else lengths.clamp(max=count)
            truth = None
            if future is not None and self.reads_truth:
                truth = self._turned(last_frames(frames, count, lengths), counts)
            decoder = self.reconstruct_decoder
            decoded = self._decode(decoder, state, count, truth, noise.reconstruct)
            return self._turned(decoded, counts).transpose(0, 1)  # (B, R, D)

        def predict() -> Tensor:
            truth = None if future is None else future.transpose(0, 1)
            decoded = self._decode(self.predict_decoder, state, steps, truth, noise.predict)
            return decoded.transpose(0, 1)  # (B, steps, D)

        return self._decode_all(
            reconstruct if self.config.reconstructs else None,
            predict if self.config.predicts else None,
        )

    @property
    def reads_truth(self) -> bool:
        """Whether decoders may read true frames while training."""
        return self.config.decoder_input in ("teacher", "scheduled")

    def emit(self, decoded: Tensor) -> Tensor:
        """Turn what a read-out gives into frames."""
        return decoded.sigmoid() if self.config.output == "sigmoid" else decoded

    @torch.inference_mode()
    def generate(self, context: Tensor, steps: int) -> Tensor:
        """Predict what follows: uint8 (B, T, H, W) -> float (B, steps, H, W), not clipped.

        raises  ValueError for other frames than the model's, or if it has no prediction decoder
        """
        if steps < 1:
            raise ValueError(f"steps is {steps}, allowed is 1 or more")
        if not self.config.predicts:
            raise ValueError("the model has no prediction decoder: it only reconstructs")
        with _evaluating(self):
            frames = self._checked(context).transpose(0, 1)
            state = self._encode(frames, None, StackNoise())
            decoded = self._decode(self.predict_decoder, state, steps, None, StackNoise())
        return self._as_frames(decoded)

    @torch.inference_mode()
    def reconstruct(self, context: Tensor) -> Tensor:
        """Encode and decode the context: uint8 (B, T, H, W) -> float (B, T, H, W), not clipped.

        raises  ValueError for other frames than the model's, or if it has no such decoder
        """
        if not self.config.reconstructs:
            raise ValueError("the model has no reconstruction decoder: it only predicts")
        with _evaluating(self):
            frames = self._checked(context).transpose(0, 1)
            state = self._encode(frames, None, StackNoise())
            decoded = self._decode(self.reconstruct_decoder, state, len(frames), None, StackNoise())
        return self._as_frames(self._turned(decoded, None))

    def encode(self, context: Tensor) -> State:
        """Read frames (B, T, D) in [0, 1]; return the state that decoders start from.

        Unlike `generate` and `reconstruct` it keeps what gradients need.
        """
        return self._encode(context.transpose(0, 1), None, StackNoise())

    def _encode(self, frames: Tensor, lengths: Tensor | None, noise: StackNoise) -> State:
        state: State = self.encoder(frames, lengths, noise, self.product_dtype)
        return state

    def _decode_all(self, reconstruct: Head | None, predict: Head | None) -> Decoded:
        """Run the decoders there are, of which neither needs the other."""
        return Decoded(reconstruct and reconstruct(), predict and predict())

    def _decode(
        self,
        decoder: "Decoder",
        state: State,
        steps: int,
        truth: Tensor | None,
        noise: StackNoise,
    ) -> Tensor:
        decoded: Tensor = decoder(state, steps, truth, noise, self.product_dtype)
        return decoded

    def _turned(self, frames: Tensor, counts: Tensor | None) -> Tensor:
        """Turn frames (T, B, D) from the order of time into that of decoding, or back.

        counts  int (B,), how many of each sequence there are; those come first in both orders
        """
        if not self.config.reverse:
            return frames
        if counts is None:
            return frames.flip(0)
        places = counts - 1 - torch.arange(len(frames), device=counts.device)[:, None]  # (T, B)
        return frames.gather(0, places.clamp(min=0)[..., None].expand_as(frames))

    def _as_frames(self, decoded: Tensor) -> Tensor:
        frames = self.emit(decoded).transpose(0, 1)
        return frames.reshape(*frames.shape[:2], *self.frame_shape)

    def _checked(self, frames: Tensor) -> Tensor:
        frames = torch.as_tensor(frames)
        if frames.dtype != torch.uint8 or tuple(frames.shape[2:]) != self.frame_shape:
            raise ValueError(
                f"frames must be uint8 (B, T, {', '.join(map(str, self.frame_shape))}), "
                f"are {frames.dtype} {tuple(frames.shape)}"
            )
        return to_values(frames.to(next(self.parameters()).device))


class Encoder(nn.Module):
    """A recurrent stack that reads frames and hands its state on."""

    def __init__(self, config: ModelConfig, num_values: int) -> None:
        super().__init__()
        self.lstm = Stack(config.cell, num_values, config.hidden, config.layers)

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor | None,
        noise: StackNoise,
        dtype: torch.dtype | None = None,
    ) -> State:
        """Read frames (T, B, D), of each sequence the first `lengths`; return the last state."""
        *_, last = self.states(frames, lengths, noise, dtype)
        return last

    def states(
        self,
        frames: Tensor,
        lengths: Tensor | None,
        noise: StackNoise,
        dtype: torch.dtype | None = None,
    ) -> Iterator[State]:
        """Read as `forward` does; yield the state after each frame."""
        layers = self.lstm.layers()
        state = self.lstm.zero_state(layers[0].weight_hh, frames.shape[1])
        for t, frame in enumerate(frames):
            after = _advance(
                self.lstm, layers, _times(frame, noise.input, t), state, noise, t, dtype
            )
            if lengths is not None:  # what has ended stays as it was
                goes_on = (t < lengths)[:, None]
                after = [
                    tuple(torch.where(goes_on, new, old) for new, old in zip(*pair, strict=True))
                    for pair in zip(after, state, strict=True)
                ]
            state = after
            yield state


class Decoder(nn.Module):
    """A recurrent stack that starts from a state, with a read-out."""

    def __init__(self, config: ModelConfig, num_values: int) -> None:
        super().__init__()
        self.config = config
        num_inputs = 0 if config.decoder_input == "unconditional" else num_values
        self.lstm = Stack(config.cell, num_inputs, config.hidden, config.layers)
        self.fc = nn.Linear(config.hidden, num_values)

    def forward(
        self,
        state: State,
        steps: int,
        truth: Tensor | None,
        noise: StackNoise,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Unroll `steps` frames from every layer's state; return (steps, B, D).

        truth  (steps, B, D), the true frames in the order of decoding; None: reads its own
        """
        return torch.stack([frame for frame, _ in self.unroll(state, steps, truth, noise, dtype)])

    def unroll(
        self,
        state: State,
        steps: int,
        truth: Tensor | None,
        noise: StackNoise,
        dtype: torch.dtype | None = None,
    ) -> Iterator[tuple[Tensor, State]]:
        """Unroll as `forward` does; yield each frame (B, D) and the state it is read out of."""
        layers = self.lstm.layers()
        frame: Tensor | None = None
        for t in range(steps):
            if t > 0 or not self.config.copy_initial_state:
                x = None if frame is None else self._input(frame, truth, noise, t)
                state = _advance(self.lstm, layers, x, state, noise, t, dtype)
            h = _times(state[-1][0], noise.output, t)
            frame = _product(h, self.fc.weight, dtype) + self.fc.bias  # (B, D)
            yield frame, state

    def _input(
        self, before: Tensor, truth: Tensor | None, noise: StackNoise, t: int
    ) -> Tensor | None:
        """Return what is read before frame t, when `before` was decoded last."""
        kind = self.config.decoder_input
        if kind == "unconditional":
            return None
        x = self._fed_back(before)
        if kind == "teacher" and truth is not None:
            x = truth[t - 1]
        if kind == "scheduled" and truth is not None and noise.is_shown is not None:
            x = torch.where(noise.is_shown[t], truth[t - 1], x)
        return _times(x, noise.input, t)

    def _fed_back(self, decoded: Tensor) -> Tensor:
        match self.config.feedback:
            case "linear":
                return decoded
            case "sigmoid":
                return decoded.sigmoid()
            case "detached":
                squash = self.config.output == "sigmoid"
                return (decoded.sigmoid() if squash else decoded).detach()
        raise AssertionError(self.config.feedback)


def to_values(frames: Tensor) -> Tensor:
    """Turn uint8 frames (B, T, H, W) or (B, T, H, W, 3) into float32 (B, T, D) in [0, 1].

    In memory time comes first, as the model wants it.
    """
    time_first = frames.transpose(0, 1).contiguous().flatten(2)
    return time_first.float().div_(255).transpose(0, 1)


def last_frames(frames: Tensor, count: int, lengths: Tensor | None) -> Tensor:
    """Return the last `count` frames of each sequence of (T, B, D), or all it has if fewer.

    lengths  int (B,), how many it has; None for T. What a sequence has fewer is filled up behind.
    """
    if lengths is None:
        return frames[len(frames) - count :]
    first = (lengths - count).clamp(min=0)
    places = first + torch.arange(count, device=frames.device)[:, None]  # (count, B)
    return frames.gather(0, places[..., None].expand(-1, -1, frames.shape[2]))


def _advance(
    stack: Stack,
    layers: list[Layer],
    x: Tensor | None,
    state: State,
    noise: StackNoise,
    t: int,
    dtype: torch.dtype | None,
) -> State:
    """Take step t of all layers, the first of which reads x (B, D), or nothing."""
    after: State = []
    for number, (weights, old) in enumerate(zip(layers, state, strict=True)):
        if number > 0:
            x = _times(after[-1][0], noise.between[number - 1] if noise.between else None, t)
        from_input, from_state = weights.bias_ih, _product(old[0], weights.weight_hh, dtype)
        if x is not None and weights.weight_ih is not None:
            from_input = from_input + _product(x, weights.weight_ih, dtype)
        if weights.bias_hh is not None:
            from_state = from_state + weights.bias_hh
        after.append(step(stack.cell, from_input, from_state, old, weights.peephole))
    return after


def _product(x: Tensor, weight: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return x @ weight.T, with both factors rounded."""
    if dtype is None:
        return F.linear(x, weight)
    return F.linear(x.to(dtype), weight.to(dtype)).to(x.dtype)


def _times(values: Tensor, mask: Tensor | None, t: int) -> Tensor:
    return values if mask is None else values * mask[t]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Tell the modules that nobody trains, for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
