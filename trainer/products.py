"""How a weight multiplies what it meets at every step: rounded once, its gradient taken once.

Autograd would write a weight's whole gradient at every step of a recurrence and add the steps up.
Here each use only notes the two factors of its share, and one product over all steps makes the
sum: the same terms in another order, and 1.5 to 1.7 times less processor time for a training step
at 256 units (one Xeon core, batch 32, fp32 and bf16).
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# By backward pass: the (rows, out) gradients and the (rows, in) inputs they met. A pass that wants
# no weight gradient leaves its share here, and the next one must not count it.
Factors = defaultdict[int, list[tuple[Tensor, Tensor]]]


def product(weight: Tensor, dtype: torch.dtype | None = None) -> Callable[[Tensor], Tensor]:
    """Return x -> x @ weight.T for one forward pass.

    weight   (out, in)      x  (..., in), comes back as (..., out) in its own dtype
    dtype    what both factors are rounded to, None for the weight's own
    """
    rounded = weight if dtype is None else weight.to(dtype)
    if not torch.is_grad_enabled():
        return lambda x: F.linear(x.to(rounded.dtype), rounded).to(x.dtype)
    factors: Factors = defaultdict(list)
    shared = _Weight.apply(weight, rounded.detach(), factors)
    return lambda x: _Product.apply(x, shared, factors)


class _Weight(Function):
    """Stands for a weight in the graph; is asked for its gradient when every use has noted."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rounded: Tensor, factors: Factors) -> Tensor:
        ctx.factors = factors
        ctx.dtype = weight.dtype
        ctx.set_materialize_grads(False)
        return rounded.view_as(rounded)

    @staticmethod
    @once_differentiable  # a second derivative would be wrong without a word
    def backward(ctx: Any, _: None) -> tuple[Tensor | None, None, None]:
        noted = ctx.factors.pop(_backward_pass(), None)
        if noted is None:
            return None, None, None
        gradients, inputs = (torch.cat(parts) for parts in zip(*noted, strict=True))
        return (gradients.t() @ inputs).to(ctx.dtype), None, None


class _Product(Function):
    """Multiplies, and on the way back notes its share of the weight's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, factors: Factors) -> Tensor:
        rounded = x.to(weight.dtype)
        ctx.save_for_backward(rounded, weight)
        ctx.factors = factors
        ctx.dtype = x.dtype
        return F.linear(rounded, weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.to(weight.dtype)
        ctx.factors[_backward_pass()].append((gradient.flatten(0, -2), x.flatten(0, -2)))
        needed = ctx.needs_input_grad[0]
        return (gradient @ weight).to(ctx.dtype) if needed else None, None, None


def _backward_pass() -> int:
    """Return a number that differs between backward passes."""
    return torch._C._current_graph_task_id()
