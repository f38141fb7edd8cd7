"""A product noted step by step is F.linear, and so are its gradients."""

import pytest
import torch
from torch.nn import functional as F

from trainer.products import product


@pytest.fixture
def weight():
    torch.manual_seed(0)
    return torch.randn(3, 3, dtype=torch.float64, requires_grad=True)


def plain(weight):
    return lambda x: F.linear(x, weight)


def gradients(kind, weight, backward):
    """Use a weight three times, one of them on its own output; return all gradients."""
    torch.manual_seed(1)
    x = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    multiply = kind(weight)
    once = multiply(x)  # (2, 4, 3)
    backward(once.sin().sum(), (multiply(multiply(once[:, 1]).tanh()) ** 2).sum())
    found = weight.grad.clone(), x.grad.clone()
    weight.grad = None
    return found


BACKWARDS = {
    "of all": lambda one, other: (one + other).backward(),
    "of some": lambda one, other: one.backward(),
    "twice": lambda one, other: (one.backward(retain_graph=True), other.backward()),
}


@pytest.mark.parametrize("backward", BACKWARDS.values(), ids=BACKWARDS)
def test_gradients_equal_autograds(weight, backward):
    expected = gradients(plain, weight, backward)
    for ours, theirs in zip(gradients(product, weight, backward), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_a_pass_that_wants_no_weight_gradient_adds_nothing_to_the_next(weight):
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    loss = product(weight)(x).sin().sum()
    torch.autograd.grad(loss, x, retain_graph=True)
    loss.backward()
    (expected,) = torch.autograd.grad(F.linear(x, weight).sin().sum(), weight)
    torch.testing.assert_close(weight.grad, expected, rtol=1e-12, atol=1e-14)


def test_both_factors_are_rounded_and_nothing_else():
    weight = torch.randn(3, 5, requires_grad=True)
    x = torch.randn(7, 5)
    found = product(weight, torch.bfloat16)(x)
    assert torch.equal(found, F.linear(x.bfloat16(), weight.bfloat16()).float())
    found.sum().backward()
    rounded = x.bfloat16().float().sum(0).expand(3, 5)
    torch.testing.assert_close(weight.grad, rounded, rtol=0.01, atol=0.01)
    with torch.no_grad():
        assert torch.equal(product(weight, torch.bfloat16)(x), found)


def test_a_frozen_weight_passes_the_gradient_on(weight):
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    product(weight.detach())(x).sum().backward()
    torch.testing.assert_close(x.grad, weight.detach().sum(0).expand(4, 3))


def test_second_derivatives_are_refused(weight):
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(product(weight)(x).sin().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
