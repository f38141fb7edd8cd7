"""Questions and scores of probes equal their definitions in plain loops."""

import json

import numpy as np
import pytest
import torch
from trainer_probe_data import CLASSES, make_truth, targets_of

from trainer.probe_targets import (
    MEASURES,
    Targets,
    constant_answer,
    label_ranks,
    make_targets,
    score,
)


def noisy(targets, seed=1):
    """Answer partly right."""
    generator = torch.Generator().manual_seed(seed)
    return Targets(
        *(
            torch.nan_to_num(part) + spread * torch.randn(part.shape, generator=generator)
            for part, spread in zip(targets, (0.6, 6, 6), strict=True)
        )
    )


def test_the_order_of_digits_does_not_matter():
    truth = make_truth(50, 4)
    order = np.random.default_rng(2).permuted(np.tile(np.arange(4), (50, 1)), axis=1)
    turned = {
        name: np.take_along_axis(v, order.reshape(50, 4, *[1] * (v.ndim - 2)), 1)
        for name, v in truth.items()
    }
    assert not np.array_equal(turned["label"], truth["label"])
    for one, other in zip(make_targets(truth, CLASSES), make_targets(turned, CLASSES), strict=True):
        np.testing.assert_array_equal(one, other)


def test_with_one_digit_the_plain_values_are_asked():
    truth = make_truth(20, 1)
    found = make_targets(truth, CLASSES)
    np.testing.assert_array_equal(found.digits.argmax(1), truth["label"][:, 0])
    np.testing.assert_array_equal(found.digits.sum(1), 1)
    np.testing.assert_array_equal(found.position, truth["position"][:, 0])
    np.testing.assert_array_equal(found.velocity, truth["velocity"][:, 0])


def test_each_coordinate_is_sorted_and_absent_digits_are_left_out():
    nan = np.nan
    truth = {
        "label": np.array([[4, 2, -1], [2, 2, 4]]),
        "position": np.array([[[5, 1], [3, 8], [nan, nan]], [[9, 1], [nan, nan], [2, 7]]]),
        "velocity": np.array([[[1, -1], [0, 3], [nan, nan]], [[0, 0], [nan, nan], [-2, 1]]]),
    }
    found = make_targets(truth, np.array([2, 4, 7]))
    assert found.digits.tolist() == [[1, 1, 0], [1, 1, 0]]
    expected = [[3, 1, 5, 8, nan, nan], [2, 1, 9, 7, nan, nan]]
    np.testing.assert_array_equal(found.position, expected)
    np.testing.assert_array_equal(
        found.velocity, [[0, -1, 1, 3, nan, nan], [-2, 0, 0, 1, nan, nan]]
    )


@pytest.mark.parametrize("digits", [1, 3])
def test_few_labels_are_nested_and_balanced(digits):
    present = targets_of(300, digits).digits
    ranks = label_ranks(present, seed=5)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(5)).tolist()
    before = set()
    for n in (1, 2, 5, 10, 100):
        taken = set(np.flatnonzero(ranks < n).tolist())
        expected = set()
        for label in range(10):
            expected |= set([i for i in order if present[i, label]][:n])
        assert taken == expected
        assert before <= taken
        if digits == 1 and n <= 10:
            assert present[sorted(taken)].sum(0).tolist() == [n] * 10
        before = taken
    assert not torch.equal(ranks, label_ranks(present, seed=6))


def test_sequences_without_digits_are_never_taken():
    present = torch.tensor([[1.0, 0], [0, 0], [0, 1]])
    assert label_ranks(present, 0).tolist() == [0, 3, 0]


def plain_scores(answer, truth):
    """Score as the docstring says, a sequence at a time."""
    shares, errors, spreads = [], {}, {}
    for said, present in zip(answer.digits.tolist(), truth.digits.tolist(), strict=True):
        true = {c for c, is_present in enumerate(present) if is_present}
        highest = sorted(range(len(said)), key=lambda c: -said[c])[: len(true)]
        shares.append(len(true & set(highest)) / len(true))
    for name in ("position", "velocity"):
        errors[name] = spreads[name] = 0.0
        said, true = (np.asarray(getattr(t, name), np.float64) for t in (answer, truth))
        for column in range(true.shape[1]):
            there = np.isfinite(true[:, column])
            values = true[there, column]
            errors[name] += ((said[there, column] - values) ** 2).sum()
            spreads[name] += ((values - values.mean()) ** 2).sum()
    return {
        "digits": np.mean(shares),
        "all_digits": np.mean([share == 1 for share in shares]),
        **{name: 1 - errors[name] / spreads[name] for name in errors},
    }


@pytest.mark.parametrize("digits", [1, 3])
def test_scores_equal_their_definitions(digits):
    truth = targets_of(200, digits)
    answer = noisy(truth)
    found = score(answer, truth)
    expected = plain_scores(answer, truth)
    for name in MEASURES:
        assert found[name]["value"] == pytest.approx(expected[name], rel=1e-5), name
        low, high = found[name]["interval"]
        assert low < expected[name] < high
    assert 0.1 < expected["all_digits"] <= expected["digits"] < 0.9
    assert (found["digits"] == found["all_digits"]) == (digits == 1)


def test_intervals_are_as_wide_as_those_of_a_mean():
    truth = targets_of(400)
    found = score(noisy(truth), truth)["digits"]
    value, (low, high) = found["value"], found["interval"]
    spread = 1.96 * np.sqrt(value * (1 - value) / 400)
    assert (value - low, high - value) == (pytest.approx(spread, rel=0.15),) * 2


def test_what_is_right_scores_one_and_constants_zero():
    truth = targets_of(60, 3)
    right = Targets(*(torch.nan_to_num(part) for part in truth))
    found = score(right, truth)
    for name in MEASURES:
        assert found[name] == {"value": 1.0, "interval": [1.0, 1.0]}
    found = score(constant_answer(truth, 60), truth)
    assert found["position"]["value"] == pytest.approx(0, abs=1e-6)
    most = truth.digits.sum(0).argmax()
    lone = truth.digits.sum(1) == 1
    expected = plain_scores(constant_answer(truth, 60), truth)
    assert found["digits"]["value"] == pytest.approx(expected["digits"])
    assert score(constant_answer(truth, 60).rows(lone), truth.rows(lone))["digits"][
        "value"
    ] == pytest.approx(truth.digits[lone, most].mean().item())


def test_sequences_without_digits_are_not_scored():
    truth = targets_of(40)
    answer = noisy(truth)
    emptied = truth._replace(digits=truth.digits.clone())
    emptied.digits[30:] = 0
    some = torch.arange(30)
    for name in ("digits", "all_digits"):
        expected = score(answer.rows(some), truth.rows(some))[name]["value"]
        assert score(answer, emptied)[name]["value"] == pytest.approx(expected)


def test_what_cannot_be_scored_is_none():
    truth = targets_of(30)
    still = truth._replace(velocity=torch.zeros_like(truth.velocity))
    assert score(still, still)["velocity"] == {"value": None, "interval": [None, None]}
    lost = truth._replace(position=torch.full_like(truth.position, torch.nan))
    assert score(lost, truth)["position"]["value"] is None
    empty = truth._replace(digits=torch.zeros_like(truth.digits))
    assert score(empty, empty)["digits"]["value"] is None
    json.dumps(score(still, still), allow_nan=False)
