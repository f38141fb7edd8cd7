"""Probes find what is there and nothing else; what is fitted solves its equations in NumPy."""

import numpy as np
import pytest
import torch
from trainer_probe_data import targets_of

from trainer.probe_fit import (
    Best,
    Scale,
    digits_loss,
    fit_linear,
    fit_mlp,
    hold_out,
    logistic_path,
    ridge_path,
    shuffled_batches,
)
from trainer.probe_targets import constant_answer, score

PROBES = [fit_linear, fit_mlp]


def latents_with(targets, extra=12, seed=3):
    """Return latents that have the answer in them, linearly, among values that mean nothing."""
    known = torch.cat([torch.nan_to_num(Scale.of(part).down(part)) for part in targets], 1)
    generator = torch.Generator().manual_seed(seed)
    latents = torch.cat([known, torch.randn(len(known), extra, generator=generator)], 1)
    turn, _ = torch.linalg.qr(torch.randn(2 * [latents.shape[1]], generator=generator))
    return Scale.of(latents @ turn).down(latents @ turn)


@pytest.mark.parametrize(("fit", "least"), [(fit_linear, 0.97), (fit_mlp, 0.9)])
@pytest.mark.parametrize("digits", [1, 2])
def test_what_the_latent_has_is_found(fit, least, digits):
    targets = targets_of(1500, digits)
    latents = latents_with(targets)
    answer = fit(latents[:500], targets.rows(torch.arange(500)), 0)(latents[500:])
    found = score(answer, targets.rows(torch.arange(500, 1500)))
    for name in ("digits", "position", "velocity"):
        assert found[name]["value"] > least, name


@pytest.mark.parametrize("fit", PROBES)
@pytest.mark.parametrize("digits", [1, 2])
def test_shuffled_labels_score_chance(fit, digits):
    targets = targets_of(1500, digits)
    latents = latents_with(targets)
    learned, truth = targets.rows(torch.arange(500)), targets.rows(torch.arange(500, 1500))
    shuffled = learned.rows(torch.randperm(500, generator=torch.Generator().manual_seed(7)))
    found = score(fit(latents[:500], shuffled, 0)(latents[500:]), truth)
    chance = score(constant_answer(learned, 1000), truth)
    low, high = found["digits"]["interval"]
    assert low <= chance["digits"]["value"] <= high
    for name in ("position", "velocity"):
        assert abs(found[name]["value"]) < 0.05, name


@pytest.mark.parametrize("fit", PROBES)
def test_probes_are_functions_of_the_seed(fit):
    targets = targets_of(60)
    latents = latents_with(targets)
    torch.manual_seed(1)
    one = fit(latents, targets, 0)(latents)
    torch.manual_seed(2)
    assert all(map(torch.equal, one, fit(latents, targets, 0)(latents)))


@pytest.mark.parametrize(("count", "size"), [(80, 12), (9, 30)])
def test_ridge_solves_its_normal_equations(count, size):
    """The intercept is free of penalty; columns that are missing somewhere are solved alone."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(count, n, generator=generator) for n in (size, 4))
    y[::3, 2:] = torch.nan
    for penalty, answer in zip((5.0, 0.1), ridge_path(x, y, (5.0, 0.1)), strict=True):
        for column in range(4):
            there = torch.isfinite(y[:, column]).numpy()
            a = np.column_stack([x.numpy()[there], np.ones(there.sum())]).astype(np.float64)
            shrunk = np.diag([penalty * there.sum()] * size + [0])
            solved = np.linalg.solve(a.T @ a + shrunk, a.T @ y.numpy()[there, column])
            expected = x.numpy() @ solved[:-1] + solved[-1]
            np.testing.assert_allclose(answer(x)[:, column], expected, rtol=1e-4, atol=1e-5)


def test_a_coordinate_nobody_knows_is_answered_by_the_mean_of_all():
    y = torch.tensor([[1.0, torch.nan], [3, torch.nan], [5, torch.nan]])
    answer = ridge_path(torch.randn(3, 2), y, [1.0])[0](torch.zeros(2, 2))
    assert answer[:, 1].tolist() == [3.0, 3.0]


def test_logistic_regression_ends_where_its_gradient_is_zero():
    targets = targets_of(150, 2)
    latents = latents_with(targets)
    present = targets.digits
    zero = torch.zeros(1, latents.shape[1])
    for penalty, answer in zip(
        (1.0, 0.01), logistic_path(latents, present, (1.0, 0.01)), strict=True
    ):
        said = answer(latents).double().numpy()
        bias = answer(zero)
        weight = (answer(torch.eye(latents.shape[1])) - bias).double().numpy()
        likely = np.exp(said) / np.exp(said).sum(1, keepdims=True)
        wanted = (present / present.sum(1, keepdim=True)).numpy()
        gradient = latents.double().numpy().T @ (likely - wanted) / 150 + penalty * weight
        assert abs(gradient).max() < 1e-3
        assert abs(gradient).max() < 0.01 * abs(penalty * weight).max()


def test_the_loss_of_several_digits_shares_them_out():
    answer = torch.tensor([[0.5, 2.0, -1.0], [1.0, 0.0, 0.0]])
    present = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    logs = answer.double().numpy() - np.log(np.exp(answer.double().numpy()).sum(1, keepdims=True))
    expected = -((logs[0, 0] + logs[0, 1]) / 2 + logs[1, 2]) / 2
    assert digits_loss(answer, present).item() == pytest.approx(expected, rel=1e-5)


def test_nothing_is_learned_from_what_is_held_out():
    kept, held = hold_out(23, 0)
    assert sorted(kept.tolist() + held.tolist()) == list(range(23))
    assert len(held) == 4
    assert [len(part) for part in hold_out(5, 0)] == [4, 1]


def test_batches_pass_over_all_places():
    batches = list(shuffled_batches(torch.arange(10, 20), 4, 5, seed=0))
    assert [len(batch) for batch in batches] == [4] * 5
    taken = torch.cat(batches).tolist()
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10, 20))
    assert taken[:10] != taken[10:]
    assert [len(batch) for batch in shuffled_batches(torch.arange(3), 4, 2, 0)] == [3, 3]


def test_the_best_state_is_restored_after_patience_is_lost():
    module = torch.nn.Linear(1, 1)
    best = Best(module, patience=2)
    ended = []
    for error, weight in ((3.0, 1.0), (2.0, 5.0), (float("nan"), 7.0), (2.5, 8.0)):
        module.weight.data.fill_(weight)
        ended.append(best.note(error))
    assert ended == [False, False, False, True]
    best.restore()
    assert module.weight.item() == 5.0
