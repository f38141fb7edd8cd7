"""Losses and metrics against NumPy in float64."""

import math

import numpy as np
import torch

from trainer import losses

rng = np.random.default_rng(0)
OUTPUT = rng.normal(0.5, 0.5, (3, 4, 50))
TARGET = np.where(rng.random((3, 4, 50)) < 0.3, 0.0, rng.random((3, 4, 50)))
INSIDE = rng.uniform(0.01, 0.99, (3, 4, 50))


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def test_errors_are_sums_over_a_frame():
    output, target = tensors(OUTPUT, TARGET)
    difference = OUTPUT - TARGET
    np.testing.assert_allclose(losses.squared_error(output, target), (difference**2).sum(-1))
    np.testing.assert_allclose(losses.absolute_error(output, target), abs(difference).sum(-1))


def test_cross_entropy_is_bernoulli_in_nats():
    expected = -(TARGET * np.log(INSIDE) + (1 - TARGET) * np.log(1 - INSIDE)).sum(-1)
    np.testing.assert_allclose(losses.cross_entropy(*tensors(INSIDE, TARGET)), expected)


def test_cross_entropy_at_the_edges():
    probability = torch.tensor([0, 1, 0, 1, 0, 0.5])
    target = torch.tensor([0, 1, 1, 0, 0.5, 1])
    nats = [0, 0, math.inf, math.inf, math.inf, math.log(2)]
    np.testing.assert_allclose(losses.cross_entropy(probability[:, None], target[:, None]), nats)


def test_what_a_read_out_gives_is_clipped_unless_it_is_a_logit():
    output, target = tensors(OUTPUT, TARGET)
    clipped, probability = np.clip(OUTPUT, 1e-3, 1 - 1e-3), 1 / (1 + np.exp(-OUTPUT))
    assert (clipped != OUTPUT).any()
    for p, is_logit in ((clipped, False), (probability, True)):
        expected = -(TARGET * np.log(p) + (1 - TARGET) * np.log(1 - p)).sum(-1)
        found = losses.output_cross_entropy(output, target, is_logit=is_logit)
        np.testing.assert_allclose(found, expected)
    sure = torch.tensor([[[-200.0, 200, -200, 200]]])
    found = losses.output_cross_entropy(sure, torch.tensor([[[0.0, 1, 1, 0]]]), is_logit=True)
    assert found.item() == 400


def test_only_what_is_outside_is_clipped():
    output = torch.tensor([-1.0, 0.0, 0.0005, 0.4, 0.9999, 2.0])[:, None]
    within = np.array([1e-3, 1e-3, 1e-3, 0.4, 1 - 1e-3, 1 - 1e-3])
    for target, p in ((torch.ones_like(output), within), (torch.zeros_like(output), 1 - within)):
        np.testing.assert_allclose(
            losses.clipped_cross_entropy(output, target), -np.log(p), rtol=1e-4
        )


def test_entropy_is_the_least_cross_entropy():
    output, target = tensors(INSIDE, TARGET)
    z = TARGET[TARGET > 0]
    expected = -(z * np.log(z) + (1 - z) * np.log(1 - z)).sum()
    np.testing.assert_allclose(losses.entropy(target).sum(), expected)
    assert (losses.entropy(target) < losses.cross_entropy(output, target)).all()
