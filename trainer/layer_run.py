"""One layer over its steps, forward and backward by hand, weight gradients taken once at the end.

Letters: T steps, B batch, I values the layer reads, U units, G gates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer import pointwise
from trainer.cells import Layer

# Of torch's devices CUDA alone offers it, for sums that start from float32 since release 2.10.
_HAS_WIDE = torch.version.cuda is not None and torch.__version__ >= "2.10"


def rounded(values: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return the values as factors of products: rounded to `dtype`, or as they are."""
    return values if dtype is None else values.to(dtype)


def add_product(out: Tensor, x: Tensor, weight: Tensor) -> None:
    """Add x @ weight to `out`, which keeps its own type; all are matrices."""
    if weight.dtype == out.dtype:
        out.addmm_(x, weight)
    elif _is_wide(weight, out.dtype):
        torch.addmm(out, x.to(weight.dtype), weight, out_dtype=out.dtype, out=out)
    else:
        out.add_(x.to(weight.dtype) @ weight)


def product(x: Tensor, y: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x @ y of two rounded matrices, as `dtype`."""
    if _is_wide(x, dtype):
        return torch.mm(x, y, out_dtype=dtype)
    return (x @ y).to(dtype)


def _is_wide(factor: Tensor, dtype: torch.dtype) -> bool:
    """Tell whether the sums of a product leave as they were added up, not rounded once more."""
    is_half = factor.dtype in (torch.bfloat16, torch.float16)
    return _HAS_WIDE and factor.is_cuda and is_half and dtype == torch.float32


def gradient_product(gradients: Tensor, inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a weight's gradient (out, in) from factors (rows, out) and (rows, in)."""
    return product(gradients.t(), inputs, dtype)


class LayerRun:
    """The buffers of one layer's run, and its steps.

    weights  those of `cells.Layer`
    state    h and c (B, U) to begin with; c is None where the cell has none
    dtype    of the factors of products
    goes_on  bool (T, B, 1), which sequences take step t; the others stay as they are
    """

    def __init__(
        self,
        cell: str,
        weights: Sequence[Tensor | None],
        state: tuple[Tensor, Tensor | None],
        steps: int,
        dtype: torch.dtype | None,
        goes_on: Tensor | None = None,
    ) -> None:
        layer = Layer._make(weights)
        h, c = state
        self.cell, self.steps, self.dtype, self.goes_on = cell, steps, dtype, goes_on
        self.layer = layer
        self.weight_ih = None if layer.weight_ih is None else rounded(layer.weight_ih, dtype)
        self.weight_hh = rounded(layer.weight_hh, dtype)
        # What is added to every input product; gru adds the state's bias to the state's.
        is_gru = cell == "gru"
        self.bias = layer.bias_ih
        if layer.bias_hh is not None and not is_gru:
            self.bias = layer.bias_ih + layer.bias_hh
        self.h = _with_first(h, steps)  # (T + 1, B, U)
        self.factors = self.h if dtype is None else _with_first(rounded(h, dtype), steps)
        self.c = None if c is None else _with_first(c, steps)
        self.act = h.new_empty(steps, len(h), len(layer.weight_hh))  # (T, B, G*U)
        self.recurrent = torch.empty_like(self.act) if is_gru else None

    def read_all(self, x: Tensor | None) -> None:
        """Take the products of x, rounded (<= T, B, I), for the last len(x) steps in one."""
        self.act[:] = self.bias
        if x is not None and self.weight_ih is not None:
            begin = self.steps - len(x)
            add_product(self.act[begin:].flatten(0, 1), x.flatten(0, 1), self.weight_ih.t())

    def step(self, t: int) -> None:
        """Take step t; `act[t]` holds what the input gives, biases added."""
        h = self.factors[t]
        if self.recurrent is None:
            add_product(self.act[t], h, self.weight_hh.t())
        else:
            assert self.layer.bias_hh is not None
            self.recurrent[t] = self.layer.bias_hh
            add_product(self.recurrent[t], h, self.weight_hh.t())
        old, new = self._state(t), self._state(t + 1)
        factor = None if self.dtype is None else self.factors[t + 1]
        pointwise.forward(
            self.cell, self.act[t], self._recurrent(t), old, self.layer.peephole, new, factor
        )
        if self.goes_on is not None:
            for before, after in zip(old, new, strict=True):
                torch.where(self.goes_on[t], after, before, out=after)
            if factor is not None:
                factor.copy_(new[0])

    def begin_backward(self, d_h: Tensor | None, d_c: Tensor | None) -> None:
        """Begin with the gradient of the last state; None is zero."""
        zero = torch.zeros_like(self.h[0])
        self.d_h = zero if d_h is None else d_h
        self.d_c = None if self.c is None else (zero if d_c is None else d_c)
        # The gradients that enter the input's and the state's product, as factors of products.
        self.d_act = self.act.new_empty(self.act.shape, dtype=self.dtype)
        self.d_recurrent = self.d_act
        if self.recurrent is not None:
            self.d_recurrent = torch.empty_like(self.d_act)

    def step_back(self, t: int, d_out: Tensor | None) -> None:
        """Take step t back; d_out (B, U) is the gradient of h[t + 1] from elsewhere."""
        d_h = self.d_h if d_out is None else self.d_h + d_out
        gradient: tuple[Tensor, ...] = (d_h,) if self.d_c is None else (d_h, self.d_c)
        held: tuple[Tensor, ...] = ()
        if self.goes_on is not None:
            held = tuple(value * ~self.goes_on[t] for value in gradient)
            gradient = tuple(value * self.goes_on[t] for value in gradient)
        is_gru = self.recurrent is not None
        rest = pointwise.backward(
            self.cell,
            self.act[t],
            self._recurrent(t),
            self._state(t),
            self._state(t + 1),
            self.layer.peephole,
            gradient,
            self.d_act[t],
            self.d_recurrent[t] if is_gru else None,
        )
        d_h = product(self.d_recurrent[t], self.weight_hh, self.h.dtype)
        if is_gru:
            d_h += rest[0]
        if self.d_c is not None:
            self.d_c = rest[0]
        if held:
            d_h += held[0]
            if self.d_c is not None:
                self.d_c = self.d_c + held[1]
        self.d_h = d_h

    def input_gradient(self, steps: int) -> Tensor:
        """Return the gradient of what was read in the last steps, (steps, B, I)."""
        assert self.weight_ih is not None
        factor = self.d_act[self.steps - steps :]
        d_x = product(factor.flatten(0, 1), self.weight_ih, self.h.dtype)
        return d_x.view(*factor.shape[:2], -1)

    def input_gradient_at(self, t: int) -> Tensor:
        """Return the gradient of what was read in step t, (B, I)."""
        assert self.weight_ih is not None
        return product(self.d_act[t], self.weight_ih, self.h.dtype)

    def weight_gradients(self, x: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of the weights, in the order of `cells.Layer`."""
        kind = self.h.dtype
        d_weight_ih = None
        if x is not None and self.weight_ih is not None:
            factor = self.d_act[self.steps - len(x) :]
            d_weight_ih = gradient_product(factor.flatten(0, 1), x.flatten(0, 1), kind)
        before = self.factors[:-1].flatten(0, 1)
        d_weight_hh = gradient_product(self.d_recurrent.flatten(0, 1), before, kind)
        d_bias = self.d_act.sum((0, 1), dtype=kind)
        d_bias_hh = None
        if self.layer.bias_hh is not None:
            is_gru = self.recurrent is not None
            d_bias_hh = self.d_recurrent.sum((0, 1), dtype=kind) if is_gru else d_bias
        return d_weight_ih, d_weight_hh, d_bias, d_bias_hh, self._peephole_gradient()

    def _peephole_gradient(self) -> Tensor | None:
        if self.layer.peephole is None or self.c is None:
            return None
        d_in, d_forget, _, d_out = self.d_act.to(self.h.dtype).chunk(4, -1)
        seen = ((d_in, self.c[:-1]), (d_forget, self.c[:-1]), (d_out, self.c[1:]))
        return torch.stack([(d_gate * c).sum((0, 1)) for d_gate, c in seen])

    def _state(self, t: int) -> tuple[Tensor, ...]:
        return (self.h[t],) if self.c is None else (self.h[t], self.c[t])

    def _recurrent(self, t: int) -> Tensor | None:
        return None if self.recurrent is None else self.recurrent[t]


def _with_first(first: Tensor, steps: int) -> Tensor:
    states = first.new_empty(steps + 1, *first.shape)
    states[0] = first
    return states
