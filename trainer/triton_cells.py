"""The pointwise half of an LSTM's step on CUDA, a kernel forward and one backward.

Equal to `pointwise.py` up to rounding, and called by it alone: its formulas are a dozen kernels a
step there, each of which reads and writes what the next one needs. float32 inside; what products
read, the new h and the gradients of the gates, leaves in their type. Needs Triton, which comes with
torch where it knows CUDA, and a C compiler. Has not run on a GPU yet.

Letters: B batch, U units. `act` is (B, 4U), gates in torch's order, all else (B, U), contiguous.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_WIDEST_BLOCK = 512  # units of one program: loads of 16 bytes in each thread of 4 warps
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}


def forward(
    act: Tensor,
    old: tuple[Tensor, ...],
    peephole: Tensor | None,
    new: tuple[Tensor, ...],
    factor: Tensor | None,
) -> None:
    """Turn `act` into activations; write the new h and c, and h again as its products want it."""
    c, (h_new, c_new) = old[1], new
    grid, block = _grid(c)
    with torch.cuda.device_of(c):  # type: ignore[no-untyped-call]
        _forward[grid](act, c, peephole, c_new, h_new, factor, c.shape[1], block, **_OPTIONS)


def backward(
    act: Tensor,
    old: tuple[Tensor, ...],
    new: tuple[Tensor, ...],
    peephole: Tensor | None,
    gradient: tuple[Tensor, ...],
    d_act: Tensor,
) -> tuple[Tensor]:
    """Write the gradient of what `act` was before `forward`; return that of the old c."""
    c, c_new = old[1], new[1]
    d_h, d_c = (tensor.contiguous() for tensor in gradient)
    d_old = torch.empty_like(d_c)
    grid, block = _grid(c)
    with torch.cuda.device_of(c):  # type: ignore[no-untyped-call]
        _backward[grid](
            act, c, c_new, peephole, d_h, d_c, d_act, d_old, c.shape[1], block, **_OPTIONS
        )
    return (d_old,)


def try_out() -> None:
    """Compile and run a kernel on the current device; raises whatever is in the way."""
    act, c, h_new, c_new = (torch.zeros(1, width, device="cuda") for width in (4, 1, 1, 1))
    forward(act, (c, c), None, (h_new, c_new), None)


def _grid(state: Tensor) -> tuple[tuple[int, int], int]:
    """Return the programs, by sequences and by blocks of units, and the units of a block."""
    batch, units = state.shape
    block = min(_WIDEST_BLOCK, triton.next_power_of_2(units))
    return (batch, triton.cdiv(units, block)), block


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    """Cephes' tanhf: libdevice has one too, which Triton's interpreter cannot run."""
    z = x * x
    series = -5.70498872745e-3 * z + 2.06390887954e-2
    series = series * z - 5.37397155531e-2
    series = series * z + 1.33314422036e-1
    series = series * z - 3.33332819422e-1
    shrunk = tl.exp(-2 * tl.abs(x))  # never overflows
    far = (1 - shrunk) / (1 + shrunk)
    return tl.where(tl.abs(x) < 0.625, x + x * z * series, tl.where(x < 0, -far, far))


@triton.jit  # type: ignore[untyped-decorator]
def _forward(act, c, peephole, c_new, h_new, factor, units, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, unit = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = unit < units
    gate, state = act + row * 4 * units + unit, row * units + unit
    i = tl.load(gate, mask=there)
    f = tl.load(gate + units, mask=there)
    g = tl.load(gate + 2 * units, mask=there)
    o = tl.load(gate + 3 * units, mask=there)
    old = tl.load(c + state, mask=there)
    if peephole is not None:
        i += tl.load(peephole + unit, mask=there) * old
        f += tl.load(peephole + units + unit, mask=there) * old
    i, f, g = tl.sigmoid(i), tl.sigmoid(f), _tanh(g)
    new = f * old + i * g
    if peephole is not None:
        o += tl.load(peephole + 2 * units + unit, mask=there) * new
    o = tl.sigmoid(o)
    h = o * _tanh(new)
    tl.store(gate, i, mask=there)
    tl.store(gate + units, f, mask=there)
    tl.store(gate + 2 * units, g, mask=there)
    tl.store(gate + 3 * units, o, mask=there)
    tl.store(c_new + state, new, mask=there)
    tl.store(h_new + state, h, mask=there)
    if factor is not None:
        tl.store(factor + state, h, mask=there)


@triton.jit  # type: ignore[untyped-decorator]
def _backward(act, c, c_new, peephole, d_h, d_c, d_act, d_old, units, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, unit = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = unit < units
    gates, state = row * 4 * units + unit, row * units + unit
    i = tl.load(act + gates, mask=there)
    f = tl.load(act + gates + units, mask=there)
    g = tl.load(act + gates + 2 * units, mask=there)
    o = tl.load(act + gates + 3 * units, mask=there)
    old = tl.load(c + state, mask=there)
    squashed = _tanh(tl.load(c_new + state, mask=there))
    from_h = tl.load(d_h + state, mask=there)
    d_o = from_h * squashed * o * (1 - o)
    from_c = tl.load(d_c + state, mask=there) + from_h * o * (1 - squashed * squashed)
    if peephole is not None:
        from_c += d_o * tl.load(peephole + 2 * units + unit, mask=there)
    d_i = from_c * g * i * (1 - i)
    d_f = from_c * old * f * (1 - f)
    d_g = from_c * i * (1 - g * g)
    to_old = from_c * f
    if peephole is not None:
        to_old += d_i * tl.load(peephole + unit, mask=there)
        to_old += d_f * tl.load(peephole + units + unit, mask=there)
    tl.store(d_act + gates, d_i, mask=there)
    tl.store(d_act + gates + units, d_f, mask=there)
    tl.store(d_act + gates + 2 * units, d_g, mask=there)
    tl.store(d_act + gates + 3 * units, d_o, mask=there)
    tl.store(d_old + state, to_old, mask=there)
