"""A decoder that reads its own output, forward and backward by hand.

What it reads is known only when the frame before is, so all layers go through a step together. The
weight gradients are still taken once, behind the loop.

Letters: T frames, B batch, D values a frame, U units, G gates, L layers.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from trainer.cells import Layer
from trainer.layer_run import LayerRun, add_product, gradient_product, product, rounded


class LoopPlan(NamedTuple):
    """What of a loop is no tensor; names as in ModelConfig, `squashes` where output is sigmoid."""

    cell: str
    steps: int
    dtype: torch.dtype | None
    copies_state: bool
    feedback: str
    squashes: bool


class Drawn(NamedTuple):
    """What multiplies values or chooses them, as in StackNoise; (T, B, .) or None."""

    input: Tensor | None
    output: Tensor | None
    is_shown: Tensor | None
    truth: Tensor | None  # (T, B, D), read where is_shown


class ReadOut(NamedTuple):
    """The read-out, or folded into the feedback: then W_in W_out (G*U, U) and W_in b_out (G*U,)."""

    fold_weight: Tensor | None
    fold_bias: Tensor | None
    weight: Tensor | None  # (D, U)
    bias: Tensor | None  # (D,)


def run_on_own_output(
    plan: LoopPlan,
    drawn: Drawn,
    between: tuple[Tensor | None, ...],
    read_out: ReadOut,
    state: list[tuple[Tensor, ...]],
    layers: list[Layer],
) -> Tensor:
    """Return frames (T, B, D); or where the read-out is folded what it reads, (T, B, U)."""
    states = [tensor for layer in state for tensor in (*layer, None)[:2]]
    weights = [tensor for layer in layers for tensor in layer]
    between = between or (None,) * (len(layers) - 1)
    out: Tensor = _OwnOutput.apply(plan, *drawn, *between, *read_out, *states, *weights)
    return out


class _OwnOutput(Function):
    @staticmethod
    def forward(ctx: Any, plan: LoopPlan, *tensors: Tensor | None) -> Tensor:
        loop = _Loop(plan, tensors)
        for t in range(plan.steps):
            loop.step(t)
        ctx.loop = loop
        ctx.save_for_backward(*tensors)
        out = loop.h_out if loop.frames is None else loop.frames
        return out.view_as(out)  # ctx holds the loop: what comes out would hold ctx in turn

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors  # refuses weights that were changed meanwhile
        return None, *ctx.loop.backward(gradient)


class _Loop:
    """The buffers of a decoder's run, and its steps."""

    def __init__(self, plan: LoopPlan, tensors: tuple[Tensor | None, ...]) -> None:
        num_layers = (len(tensors) - len(Drawn._fields) - len(ReadOut._fields) + 1) // 8
        parts = iter(tensors)

        def take(count: int) -> list[Tensor | None]:
            return [next(parts) for _ in range(count)]

        self.plan = plan
        self.drawn = Drawn._make(take(4))
        self.between = take(num_layers - 1)
        self.out = ReadOut._make(take(4))
        states = [take(2) for _ in range(num_layers)]
        weights = [Layer._make(take(5)) for _ in range(num_layers)]
        if self.out.fold_weight is not None:
            weights[0] = weights[0]._replace(weight_ih=self.out.fold_weight)
        self.first = int(plan.copies_state)  # frames that no step is taken for
        self.runs = [
            LayerRun(plan.cell, layer, (h, c), plan.steps - self.first, plan.dtype)
            for layer, (h, c) in zip(weights, states, strict=True)
            if h is not None
        ]
        top = self.runs[-1].h
        # What the read-out reads, a frame each: the top layer's own h where nothing is dropped.
        self.h_out = top[1 - self.first :]
        self.factors = self.runs[-1].factors[1 - self.first :]
        if self.drawn.output is not None:
            self.h_out = torch.empty_like(self.h_out)
            self.factors = self.h_out if plan.dtype is None else torch.empty_like(self.factors)
        self.frames: Tensor | None = None
        if self.out.weight is not None:
            batch, values = top.shape[1], len(self.out.weight)
            self.read_out = rounded(self.out.weight, plan.dtype)
            self.frames = top.new_empty(plan.steps, batch, values)
            self.x = self.frames[:-1]  # before frames 1.. is read; frame 0 reads nothing
            if self._changes_output:
                self.x = top.new_empty(self.x.shape, dtype=plan.dtype)
        self.x_above = [
            None if mask is None else top.new_empty(mask[self.first :].shape, dtype=plan.dtype)
            for mask in self.between
        ]

    @property
    def _changes_output(self) -> bool:
        """Whether what is read is another tensor than the frames."""
        drawn = (self.drawn.input, self.drawn.is_shown)
        is_linear = self.plan.feedback == "linear"
        is_linear |= self.plan.feedback == "detached" and not self.plan.squashes
        is_plain = is_linear and self.plan.dtype is None
        return not is_plain or any(tensor is not None for tensor in drawn)

    def step(self, t: int) -> None:
        """Decode frame t."""
        j = t - self.first
        if j >= 0:
            self._advance(t, j)
        if self.drawn.output is not None:
            torch.mul(self.runs[-1].h[j + 1], self.drawn.output[t], out=self.h_out[t])
            if self.plan.dtype is not None:
                self.factors[t] = self.h_out[t]
        if self.frames is not None:
            assert self.out.bias is not None
            self.frames[t] = self.out.bias
            add_product(self.frames[t], self.factors[t], self.read_out.t())

    def _advance(self, t: int, j: int) -> None:
        """Take step j of all layers, that of frame t."""
        for number, run in enumerate(self.runs):
            run.act[j] = run.bias
            x: Tensor | None
            if number > 0:
                x = self._from_below(number, t, j)
            else:
                x = self._read(t) if t > 0 else None
                if t > 0 and self.out.fold_bias is not None:
                    run.act[j] += self.out.fold_bias
            if x is not None and run.weight_ih is not None:
                add_product(run.act[j], x, run.weight_ih.t())
            run.step(j)

    def _from_below(self, number: int, t: int, j: int) -> Tensor:
        below, mask = self.runs[number - 1], self.between[number - 1]
        kept = self.x_above[number - 1]
        if mask is None or kept is None:
            return below.factors[j + 1]
        kept[j] = below.h[j + 1] * mask[t]
        return kept[j]

    def _read(self, t: int) -> Tensor:
        """Return what is read before frame t > 0."""
        if self.frames is None:
            return self.factors[t - 1]
        if self._changes_output:
            x = self.frames[t - 1]
            detached_squash = self.plan.feedback == "detached" and self.plan.squashes
            if self.plan.feedback == "sigmoid" or detached_squash:
                x = x.sigmoid()
            if self.drawn.is_shown is not None and self.drawn.truth is not None:
                x = torch.where(self.drawn.is_shown[t], self.drawn.truth[t - 1], x)
            if self.drawn.input is not None:
                x = x * self.drawn.input[t]
            self.x[t - 1] = x
        return self.x[t - 1]

    def backward(self, gradient: Tensor) -> list[Tensor | None]:
        """Return the gradients of all tensors, from that of what `forward` returned."""
        for run in self.runs:
            run.begin_backward(None, None)
        d_frames = gradient if self.frames is not None else None
        if d_frames is not None and self._feeds_back:
            d_frames = d_frames.clone()  # what comes back through the feedback is added
        for t in reversed(range(self.plan.steps)):
            d_h = self._read_out_back(t, gradient if d_frames is None else d_frames)
            if self.drawn.output is not None:
                d_h = d_h * self.drawn.output[t]
            if t < self.first:
                self.runs[-1].d_h = self.runs[-1].d_h + d_h
            else:
                self._step_back(t, d_h)
        return self._gradients(d_frames)

    @property
    def _feeds_back(self) -> bool:
        """Whether gradient goes through what is read."""
        return self.plan.feedback != "detached"

    def _read_out_back(self, t: int, gradient: Tensor) -> Tensor:
        """Return the gradient of h_out[t]; adds to `gradient` what frame t + 1 made of frame t."""
        d_out = gradient[t]
        if t + 1 < self.plan.steps and self._feeds_back:
            d_x = self.runs[0].input_gradient_at(t + 1 - self.first)
            if self.frames is None:
                return d_out + d_x
            d_out += self._feedback_back(t + 1, d_x)
        if self.frames is None:
            return d_out
        return product(rounded(d_out, self.plan.dtype), self.read_out, d_out.dtype)

    def _feedback_back(self, t: int, d_x: Tensor) -> Tensor:
        """Return the gradient of the frame before t from that of what was read before t."""
        assert self.frames is not None
        if self.drawn.input is not None:
            d_x = d_x * self.drawn.input[t]
        if self.drawn.is_shown is not None:
            d_x = d_x * ~self.drawn.is_shown[t]
        if self.plan.feedback == "sigmoid":
            d_x = torch.ops.aten.sigmoid_backward(d_x, self.frames[t - 1].sigmoid())
        return d_x

    def _step_back(self, t: int, d_h: Tensor) -> None:
        j = t - self.first
        for number in reversed(range(len(self.runs))):
            self.runs[number].step_back(j, d_h)
            if number > 0:
                d_h = self.runs[number].input_gradient_at(j)
                mask = self.between[number - 1]
                d_h = d_h if mask is None else d_h * mask[t]

    def _gradients(self, d_frames: Tensor | None) -> list[Tensor | None]:
        dtype, kind = self.plan.dtype, self.h_out.dtype
        d_out: list[Tensor | None] = [None] * 4
        if d_frames is None:
            x = self.factors[:-1]
        else:
            x = self.x
            factor = rounded(d_frames.flatten(0, 1), dtype)
            h_out = self.factors.flatten(0, 1)
            d_out[2:] = gradient_product(factor, h_out, kind), d_frames.sum((0, 1))
        d_weights = []
        for number, run in enumerate(self.runs):
            if number > 0:
                kept = self.x_above[number - 1]
                x = self.runs[number - 1].factors[1:] if kept is None else kept
            d_weights.append(list(run.weight_gradients(x)))
        if d_frames is None:
            d_out[0], d_weights[0][0] = d_weights[0][0], None
            reads = self.runs[0].d_act[1 - self.first :]
            d_out[1] = reads.sum((0, 1), dtype=kind)
        d_states = [tensor for run in self.runs for tensor in (run.d_h, run.d_c)]
        nothing: list[Tensor | None] = [None] * (4 + len(self.between))
        return [*nothing, *d_out, *d_states, *(tensor for part in d_weights for tensor in part)]
