"""Intervals against what statistics knows, and the skill of those who know all or nothing."""

import numpy as np
import pytest

from trainer.intervals import interval, resampled_means
from trainer.metrics import METRICS
from trainer.scored import BASELINES, Scored, summary


def scored(**errors):
    """Make an evaluation of 200 sequences whose mse is given, (N, T)."""
    names = {"mean_frame": "mean frame", "known_dynamics": "known dynamics"}
    frames = {
        names.get(name, name): dict.fromkeys(METRICS, values + 0.0)
        for name, values in errors.items()
    }
    return Scored("data", "test", np.arange(200), 10, frames, {})


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(5, 2, (400, 1))
    low, high = interval(resampled_means(values)[:, 0])
    half = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_columns_are_resampled_together_and_always_alike():
    values = np.random.default_rng(2).normal(0, 1, (50, 1)) + np.array([0.0, 7.0])
    means = resampled_means(values)
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 7)
    np.testing.assert_array_equal(means, resampled_means(values))
    assert means[:, 0].std() > 0.05


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of 200 means that are known, 95 % or about 190."""
    values = (np.random.default_rng(0).random((100, 200)) < 0.6).astype(np.float64)
    bounds = [interval(means) for means in resampled_means(values).T]
    assert 180 <= sum(low <= 0.6 <= high for low, high in bounds) <= 198


def test_an_infinite_score_has_neither_mean_nor_interval():
    errors = np.ones((20, 3))
    errors[4, 1] = np.inf
    found = summary({"mse": errors, "mae": np.ones((20, 3))})
    assert (found["mse"], found["interval"]["mse"]) == (None, None)
    assert found["per_frame"]["mse"] == [1, None, 1]
    assert (found["mae"], found["interval"]["mae"]) == (1, [1, 1])


@pytest.fixture
def errors():
    generator = np.random.default_rng(3)
    mean_frame, known = generator.gamma(9, 17, (200, 10)), generator.gamma(2, 5, (200, 10))
    return {"mean_frame": mean_frame, "known_dynamics": known}


def test_skill_is_1_for_the_known_dynamics_and_0_for_the_mean_frame(errors):
    best = scored(prediction=errors["known_dynamics"], **errors).as_json()
    assert (best["skill"], best["skill_interval"]) == (1, [1, 1])
    worst = scored(prediction=errors["mean_frame"], **errors).as_json()
    assert (worst["skill"], worst["skill_interval"]) == (0, [0, 0])


def test_skill_is_the_share_of_the_way_between_them(errors):
    between = 0.3 * errors["known_dynamics"] + 0.7 * errors["mean_frame"]
    noise = np.random.default_rng(4).normal(0, 20, between.shape)
    found = scored(prediction=between + noise, **errors).as_json()
    assert found["skill"] == pytest.approx(0.3, abs=0.03)
    low, high = found["skill_interval"]
    assert low < found["skill"] < high < low + 0.1


def test_there_is_no_skill_without_knowing_the_dynamics_or_a_difference(errors):
    mean_frame = errors["mean_frame"]
    found = scored(prediction=mean_frame, mean_frame=mean_frame).as_json()
    assert (found["skill"], found["skill_interval"]) == (None, None)
    assert list(found["baselines"]) == list(BASELINES)
    assert found["baselines"]["known dynamics"] is None
    for factor in (1, 1.1):  # where nearly all is chance, one way it may go is worse than a blur
        others = {"mean_frame": mean_frame, "known_dynamics": factor * mean_frame}
        found = scored(prediction=mean_frame, **others).as_json()
        assert (found["skill"], found["skill_interval"]) == (None, None)
