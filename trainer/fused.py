"""The model's step without what its plain form repeats; equal to `model.py` up to rounding.

- What a stack reads is known before its loop wherever it does not read its own output: one product
  for all steps. Only the recurrent product stays inside.
- A weight's gradient is one product over all steps, behind the loop. Autograd would write a full
  gradient a step and add them up: 27 GB a step of the 2020 tutorial's model.
- A decoder's first input is zero and adds nothing.
- Where a decoder reads its own linear output, read-out and input product can be folded into one
  product of the state, W_in W_out, so that no frame is needed inside the loop. Making that product
  costs 4U * D * U and pays where batch * (steps - 1) > D U / (D - U); in evaluation it is kept.

Letters: T steps, B batch, D values a frame, U units, G gates.
"""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from trainer.cells import NUM_STATES, Stack, State
from trainer.config import ModelConfig
from trainer.layer_run import LayerRun, add_product, gradient_product, product, rounded
from trainer.model import Decoded, Decoder, Head, VideoAutoencoder
from trainer.noise import StackNoise
from trainer.own_output import Drawn, LoopPlan, ReadOut, run_on_own_output


class FusedAutoencoder(VideoAutoencoder):
    """VideoAutoencoder with the fast step: same weights, same answers."""

    def __init__(self, config: ModelConfig, frame_shape: tuple[int, ...]) -> None:
        super().__init__(config, frame_shape)
        self._kept_folds: dict[Decoder, tuple[Any, tuple[Tensor, Tensor]]] = {}

    def train(self, mode: bool = True) -> Self:
        """Choose between training and evaluation; torch's fused Adam does not count its writes."""
        if mode:
            self._kept_folds.clear()
        return super().train(mode)

    def _encode(self, frames: Tensor, lengths: Tensor | None, noise: StackNoise) -> State:
        stack = self.encoder.lstm
        goes_on = None
        if lengths is not None:
            steps = torch.arange(len(frames), device=frames.device)
            goes_on = (steps[:, None] < lengths)[..., None]  # (T, B, 1)
        state = stack.zero_state(frames, frames.shape[1])
        x = _times(frames, noise.input)
        _, state = self._run(stack, x, state, len(frames), noise.between, goes_on)
        return state

    def _decode_all(self, reconstruct: Head | None, predict: Head | None) -> Decoded:
        """Run the decoders: side by side in a CUDA graph, where no thread has to start kernels.

        Backward takes each on its stream again. Memory is safe without record_stream: what crosses
        over is held until both streams have met.
        """
        is_cuda = next(self.parameters()).is_cuda
        if not (reconstruct and predict and is_cuda and torch.cuda.is_current_stream_capturing()):
            return super()._decode_all(reconstruct, predict)
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            prediction = predict()
        reconstruction = reconstruct()
        here.wait_stream(aside)
        return Decoded(reconstruction, prediction)

    def _decode(
        self,
        decoder: Decoder,
        state: State,
        steps: int,
        truth: Tensor | None,
        noise: StackNoise,
    ) -> Tensor:
        config, first = self.config, int(self.config.copy_initial_state)
        is_taught = config.decoder_input == "teacher" and truth is not None
        if config.decoder_input != "unconditional" and not is_taught and steps > 1:
            return self._decode_own(decoder, state, steps, truth, noise)
        x = None
        if is_taught and truth is not None:
            x = _times(truth[: steps - 1], None if noise.input is None else noise.input[1:steps])
        between = tuple(None if mask is None else mask[first:] for mask in noise.between)
        h, _ = self._run(decoder.lstm, x, state, steps - first, between)  # (steps - first, B, U)
        if first:
            h = torch.cat([state[-1][0][None], h])
        return self._read_out(decoder, h, noise)

    def _run(
        self,
        stack: Stack,
        x: Tensor | None,
        state: State,
        steps: int,
        between: tuple[Tensor | None, ...],
        goes_on: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Run a stack whose input is known, a layer at a time; return h (T, B, U) and the state."""
        after: State = []
        h = state[-1][0].new_empty(0, *state[-1][0].shape)
        if steps == 0:
            return h, state
        for number, (weights, old) in enumerate(zip(stack.layers(), state, strict=True)):
            if number > 0:
                x = _times(h, between[number - 1] if between else None)
            plan = _LayerPlan(stack.cell, steps, self.product_dtype)
            h, *new = _KnownInput.apply(plan, goes_on, x, *_pair(old), *weights)
            after.append(tuple(new[: NUM_STATES[stack.cell]]))
        return h, after

    def _decode_own(
        self,
        decoder: Decoder,
        state: State,
        steps: int,
        truth: Tensor | None,
        noise: StackNoise,
    ) -> Tensor:
        """Decode where what is read is known only when the frame before is."""
        stack, is_shown = decoder.lstm, noise.is_shown
        if truth is None or self.config.decoder_input != "scheduled":
            is_shown = None
        read_out = ReadOut(None, None, decoder.fc.weight, decoder.fc.bias)
        if is_shown is None and noise.input is None and self._folds(decoder, state, steps):
            read_out = ReadOut(*self._fold(decoder), None, None)
        config = self.config
        plan = LoopPlan(
            stack.cell,
            steps,
            self.product_dtype,
            config.copy_initial_state,
            config.feedback,
            config.output == "sigmoid",
        )
        shown = None if is_shown is None else truth
        out = run_on_own_output(
            plan,
            Drawn(noise.input, noise.output, is_shown, shown),
            noise.between,
            read_out,
            state,
            stack.layers(),
        )
        return out if read_out.weight is not None else self._read_out(decoder, out, StackNoise())

    def _folds(self, decoder: Decoder, state: State, steps: int) -> bool:
        """Tell whether to fold the read-out into the feedback: whether it may be, and pays."""
        if self.config.feedback != "linear":
            return False
        values, units = decoder.fc.weight.shape
        if not torch.is_grad_enabled():
            return values > units
        batch = len(state[0][0])
        return batch * (steps - 1) * (values - units) > values * units

    def _fold(self, decoder: Decoder) -> tuple[Tensor, Tensor]:
        """Return W_in W_out (G*U, U) and W_in b_out (G*U,), made anew where weights changed."""
        weight_in = decoder.lstm.layers()[0].weight_ih
        assert weight_in is not None
        parts = (weight_in, decoder.fc.weight, decoder.fc.bias)
        # What was made in inference mode does not count its changes.
        if torch.is_grad_enabled() or any(part.is_inference() for part in parts):
            return _folded(*parts, self.product_dtype)
        key = (self.product_dtype, *((part.data_ptr(), part._version) for part in parts))
        if self._kept_folds.get(decoder, (None,))[0] != key:
            self._kept_folds[decoder] = key, _folded(*parts, self.product_dtype)
        return self._kept_folds[decoder][1]

    def _read_out(self, decoder: Decoder, h: Tensor, noise: StackNoise) -> Tensor:
        """Return the frames (T, B, D) of what the last layer says, (T, B, U)."""
        weight, bias = decoder.fc.weight, decoder.fc.bias
        frames: Tensor = _Linear.apply(_times(h, noise.output), weight, bias, self.product_dtype)
        return frames


def _times(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values * mask


def _pair(state: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
    return state[0], state[1] if len(state) > 1 else None


def _folded(
    weight_in: Tensor, weight_out: Tensor, bias_out: Tensor, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    weight = rounded(weight_in, dtype) @ rounded(weight_out, dtype)
    return weight.to(weight_in.dtype), weight_in @ bias_out


class _Linear(Function):
    """x @ weight.T + bias with rounded factors, over all steps at once."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype | None
    ) -> Tensor:
        x_rounded, weight_rounded = rounded(x.flatten(0, 1), dtype), rounded(weight, dtype)
        ctx.save_for_backward(x_rounded, weight_rounded)
        out = bias.repeat(len(x_rounded), 1)
        add_product(out, x_rounded, weight_rounded.t())
        return out.view(*x.shape[:2], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        flat = gradient.flatten(0, 1)
        factor = rounded(flat, weight.dtype)
        d_x = product(factor, weight, gradient.dtype).view(*gradient.shape[:2], -1)
        return d_x, gradient_product(factor, x, gradient.dtype), flat.sum(0), None


class _LayerPlan(NamedTuple):
    cell: str
    steps: int
    dtype: torch.dtype | None


class _KnownInput(Function):
    """One layer over all steps, reading x (T, B, I) in its last steps, or nothing."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: _LayerPlan,
        goes_on: Tensor | None,
        x: Tensor | None,
        h: Tensor,
        c: Tensor | None,
        *weights: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        run = LayerRun(plan.cell, weights, (h, c), plan.steps, plan.dtype, goes_on)
        ctx.set_materialize_grads(False)
        x_rounded = None if x is None else rounded(x, plan.dtype)
        run.read_all(x_rounded)
        for t in range(plan.steps):
            run.step(t)
        ctx.run = run
        ctx.save_for_backward(x_rounded, *weights)
        last_c = None if run.c is None else run.c[-1].clone()
        return run.h[1:], run.h[-1].clone(), last_c

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_out: Tensor | None, d_h: Tensor | None, d_c: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        run: LayerRun = ctx.run
        x = ctx.saved_tensors[0]
        run.begin_backward(d_h, d_c)
        for t in reversed(range(run.steps)):
            run.step_back(t, None if d_out is None else d_out[t])
        d_x = None if x is None or not ctx.needs_input_grad[2] else run.input_gradient(len(x))
        return None, None, d_x, run.d_h, run.d_c, *run.weight_gradients(x)
