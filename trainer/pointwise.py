"""What a recurrent cell does between two matrix products, forward and backward, in place.

`cells.step` is the same in one formula a line and by autograd; this is what the fused step runs.
On CUDA, `triton_cells` does the same for lstm and peephole in one kernel each way.

Letters: B batch, U units, G gates. Everything is (B, .) of one step; `act` holds what the gates
are before `forward` and after their nonlinearity behind it. For gru, `recurrent` is what the
state's product gives, biases added, because a reset gate stands between it and the sum; other
cells have it in `act` already and take None.
"""

from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from trainer.cells import NUM_GATES

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


def forward(
    cell: str,
    act: Tensor,
    recurrent: Tensor | None,
    old: tuple[Tensor, ...],
    peephole: Tensor | None,
    new: tuple[Tensor, ...],
    factor: Tensor | None = None,
) -> None:
    """Turn `act` into activations and write the new state.

    act       (B, G*U), changed     recurrent  (B, 3U), of gru alone
    old, new  h, and c of lstm and peephole, (B, U) each
    factor    (B, U), written: the new h as its products want it
    """
    if (kernels := _kernels(cell, act)) is not None:
        kernels.forward(act, old, peephole, new, factor)
        return
    gates = act.chunk(NUM_GATES[cell], -1)
    match cell:
        case "lstm" | "peephole":
            _, _, g, o = gates
            (_, c), (h_new, c_new) = old, new
            in_and_forget = act[:, : 2 * c.shape[1]]
            if peephole is not None:
                in_and_forget.view(len(c), 2, -1).addcmul_(c[:, None], peephole[:2])
            i, f = in_and_forget.sigmoid_().chunk(2, -1)
            torch.mul(f, c, out=c_new).addcmul_(i, g.tanh_())
            if peephole is not None:
                o.addcmul_(c_new, peephole[2])
            torch.tanh(c_new, out=h_new).mul_(o.sigmoid_())
        case "gru":
            assert recurrent is not None
            units = old[0].shape[1]
            reset_and_keep = act[:, : 2 * units]
            r, keep = reset_and_keep.add_(recurrent[:, : 2 * units]).sigmoid_().chunk(2, -1)
            n = gates[2].addcmul_(r, recurrent[:, 2 * units :]).tanh_()
            torch.lerp(n, old[0], keep, out=new[0])
        case "rnn":
            new[0].copy_(act.tanh_())
    if factor is not None:
        factor.copy_(new[0])


def backward(
    cell: str,
    act: Tensor,
    recurrent: Tensor | None,
    old: tuple[Tensor, ...],
    new: tuple[Tensor, ...],
    peephole: Tensor | None,
    gradient: tuple[Tensor, ...],
    d_act: Tensor,
    d_recurrent: Tensor | None,
) -> tuple[Tensor, ...]:
    """Write the gradient of the sums that entered `act`; return that of the old state.

    act                 activations (B, G*U)
    gradient            of the new state; may be changed
    d_act, d_recurrent  written: of what `act` and `recurrent` were before `forward`, in any type
    returns             of the old state, save what goes through the state's product; h of cells
                        that see h through it alone is left out: () of rnn, (c,) of lstm
    """
    if (kernels := _kernels(cell, act)) is not None:
        rest: tuple[Tensor, ...] = kernels.backward(act, old, new, peephole, gradient, d_act)
        return rest
    if d_act.dtype != act.dtype:
        wide = torch.empty_like(act)
        wide_recurrent = None if recurrent is None else torch.empty_like(recurrent)
        rest = backward(cell, act, recurrent, old, new, peephole, gradient, wide, wide_recurrent)
        d_act.copy_(wide)
        if d_recurrent is not None and wide_recurrent is not None:
            d_recurrent.copy_(wide_recurrent)
        return rest
    d_gates = d_act.chunk(NUM_GATES[cell], -1)
    gates = act.chunk(NUM_GATES[cell], -1)
    match cell:
        case "lstm" | "peephole":
            (i, f, g, o), (d_i, d_f, d_g, d_o) = gates, d_gates
            d_h, d_c = gradient
            c = old[1]
            squashed = new[1].tanh()
            _sigmoid_backward(d_h * squashed, o, grad_input=d_o)
            d_c = d_c + torch.ops.aten.tanh_backward(d_h * o, squashed)
            if peephole is not None:
                d_c.addcmul_(d_o, peephole[2])
            _sigmoid_backward(d_c * g, i, grad_input=d_i)
            _sigmoid_backward(d_c * c, f, grad_input=d_f)
            _tanh_backward(d_c * i, g, grad_input=d_g)
            d_c.mul_(f)
            if peephole is not None:
                d_c.addcmul_(d_i, peephole[0]).addcmul_(d_f, peephole[1])
            return (d_c,)
        case "gru":
            assert recurrent is not None
            assert d_recurrent is not None
            (r, keep, n), (d_r, d_keep, d_n) = gates, d_gates
            (d_h,), (h,) = gradient, old
            units = h.shape[1]
            _sigmoid_backward(d_h * (h - n), keep, grad_input=d_keep)
            _tanh_backward(d_h * (1 - keep), n, grad_input=d_n)
            _sigmoid_backward(d_n * recurrent[:, 2 * units :], r, grad_input=d_r)
            d_recurrent[:, : 2 * units] = d_act[:, : 2 * units]
            torch.mul(d_n, r, out=d_recurrent[:, 2 * units :])
            return (d_h * keep,)
        case "rnn":
            _tanh_backward(gradient[0], act, grad_input=d_act)
            return ()
    raise AssertionError(cell)


@cache
def why_not_triton() -> str | None:
    """Say why lstm and peephole run these formulas on CUDA too, or None: Triton's kernels do."""
    try:
        from trainer import triton_cells

        triton_cells.try_out()
    except Exception as error:  # of Triton, a compiler, a driver: each has classes of its own
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def _kernels(cell: str, act: Tensor) -> ModuleType | None:
    """Return what runs a step in one kernel each way, where there is such a thing."""
    if not act.is_cuda or act.dtype != torch.float32 or cell not in ("lstm", "peephole"):
        return None
    if why_not_triton() is not None:
        return None
    from trainer import triton_cells

    return triton_cells
