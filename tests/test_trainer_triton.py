"""Triton's kernels give what `pointwise` gives: interpreted on any machine, compiled on CUDA."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
import trainer_data  # noqa: F401  (one thread)
from hypothesis import given, settings
from trainer_strategies import cases

from trainer import pointwise
from trainer.fused import FusedAutoencoder
from trainer.model import VideoAutoencoder

SIZES = ((1, 1), (3, 5), (2, 513))  # sequences and units; more units than a block has
KINDS = (torch.float32, torch.float16, torch.bfloat16)
POISON = -7.0


def room(like, kind):
    """Return a buffer of three steps; kernels may write the one in the middle alone."""
    return torch.full((3, *like.shape), POISON, dtype=kind, device=like.device)


def assert_only_middle(*buffers):
    for buffer in buffers:
        assert (buffer[::2] == POISON).all()


def assert_close(found, expected, size=None):
    """Compare with float64; what left as a shorter type may be one step of it off.

    size  of what was added up, where that may be more than the sum
    """
    kind = torch.finfo(found.dtype)
    relative = 3e-6 if found.dtype == torch.float32 else kind.eps
    size = expected.abs().max() if size is None else size
    absolute = 3e-7 * float(size) + kind.smallest_normal * kind.eps
    torch.testing.assert_close(found.cpu().double(), expected, rtol=relative, atol=absolute)


def check_step(device, cell, batch, units, kind, scale):
    """Take a step forward and back, and the same in float64 by `pointwise`.

    scale  of all values: an activation near zero must be as exact as a large one
    """
    from trainer import triton_cells

    generator = torch.Generator().manual_seed(batch * units)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).float() * scale

    before, old = drawn(batch, 4 * units), (drawn(batch, units), drawn(batch, units))
    peephole = drawn(3, units) if cell == "peephole" else None
    d_h, d_c = drawn(batch, 1).expand(-1, units), drawn(units, batch).t()  # not contiguous

    def on_device(values):
        return None if values is None else values.to(device)

    def exact(values):
        return None if values is None else values.double()

    act = room(before, torch.float32).to(device)
    act[1] = before
    state = tuple(map(on_device, old))
    h, c = (room(values, torch.float32).to(device) for values in old)
    factor, d_act = room(old[0], kind).to(device), room(before, kind).to(device)
    is_rounded = kind != torch.float32
    triton_cells.forward(
        act[1], state, on_device(peephole), (h[1], c[1]), factor[1] if is_rounded else None
    )
    assert_only_middle(act, h, c, factor)
    act_exact, new_exact = exact(before), tuple(torch.empty_like(exact(x)) for x in old)
    arguments = tuple(map(exact, old)), exact(peephole)
    pointwise.forward(cell, act_exact, None, *arguments, new_exact)
    # Gate by gate: a new content that is small must be as exact as a gate that is large.
    for found, expected in zip(act[1].chunk(4, 1), act_exact.chunk(4, 1), strict=True):
        assert_close(found, expected)
    assert_close(h[1], new_exact[0])
    assert_close(c[1], new_exact[1])
    if is_rounded:
        assert_close(factor[1], new_exact[0])
        if device != "cpu" or kind != torch.bfloat16:  # which Triton's interpreter cuts off
            assert torch.equal(factor[1], h[1].to(kind))

    (d_old,) = triton_cells.backward(
        act[1],
        state,
        (h[1], c[1]),
        on_device(peephole),
        (on_device(d_h), on_device(d_c)),
        d_act[1],
    )
    assert_only_middle(d_act)
    d_act_exact = torch.empty_like(act_exact)
    gradient = exact(d_h), exact(d_c)
    (d_old_exact,) = pointwise.backward(
        cell, act_exact, None, arguments[0], new_exact, arguments[1], gradient, d_act_exact, None
    )
    size = max(values.abs().max() for values in (*gradient, d_old_exact, d_act_exact))
    assert_close(d_old, d_old_exact, size)
    assert_close(d_act[1], d_act_exact, size)


def check_all(device):
    for (batch, units), cell, kind in product(SIZES, ("lstm", "peephole"), KINDS):
        check_step(device, cell, batch, units, kind, 3.0)
    for cell in ("lstm", "peephole"):
        check_step(device, cell, 3, 5, torch.float32, 1e-3)


def test_interpreted_kernels_equal_the_formulas():
    """In a process of its own: Triton asks at its import whether it interprets."""
    pytest.importorskip("triton")
    root = Path(__file__).parents[1]
    paths = os.pathsep.join((str(root), str(root / "tests")))
    ran = subprocess.run(
        [sys.executable, "-c", "import test_trainer_triton as t; t.check_all('cpu')"],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_kernels_equal_the_formulas():
    pytest.importorskip("triton")
    check_all("cuda")


def outcome(case, device, dtype, products=None, kind=VideoAutoencoder):
    """Return on the CPU what a model says of a case's batch, and the gradients of all weights."""
    model = case.build(kind, torch.float32).to(device, dtype)
    model.round_products(products)

    def there(values):
        return values.to(device, dtype if values.is_floating_point() else None)

    batch = case.batch(torch.float32)
    decoded = model(
        there(batch.context),
        batch.steps,
        num_reconstructed=batch.num_reconstructed,
        lengths=None if batch.lengths is None else there(batch.lengths),
        future=None if batch.future is None else there(batch.future),
        noise=None if batch.noise is None else batch.noise.map(there),
    )
    said = [head for head in decoded if head is not None]
    torch.stack([head.sin().sum() for head in said]).sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [values.detach().cpu().double() for values in (*said, *gradients)]


def assert_near(found, expected, limit):
    """Compare with the largest value there is: what cancels out is as exact as its parts."""
    size = max(values.abs().max() for values in expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= limit * size


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@settings(max_examples=50)
@given(cases())
def test_the_fused_step_on_cuda_equals_the_plain_model(case):
    expected = outcome(case, "cpu", torch.float64)
    assert_near(outcome(case, "cuda", torch.float64, kind=FusedAutoencoder), expected, 1e-10)
    assert_near(outcome(case, "cuda", torch.float32, kind=FusedAutoencoder), expected, 1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("products", [torch.bfloat16, torch.float16])
@settings(max_examples=20)
@given(cases())
def test_rounded_products_on_cuda_are_near_those_of_the_cpu(products, case):
    expected = outcome(case, "cpu", torch.float32, products)
    found = outcome(case, "cuda", torch.float32, products, FusedAutoencoder)
    assert_near(found, expected, 16 * torch.finfo(products).eps)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a CUDA device")
def test_what_is_in_the_way_of_triton_is_said_in_one_line():
    reason = pointwise.why_not_triton()
    assert reason
    assert "\n" not in reason
