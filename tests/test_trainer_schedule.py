"""Each schedule is the published function of the step."""

import pytest
import torch
from torch.optim import lr_scheduler

from trainer.config import OptimizerConfig
from trainer.schedule import learning_rate, share_shown


def rates(steps, **fields):
    config = OptimizerConfig(**fields)
    return [learning_rate(config, step, steps) for step in range(steps)]


def torchs_rates(schedule, steps, lr, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = schedule(optimizer, **options)
    found = [schedule.get_last_lr()[0]]
    for _ in range(steps - 1):
        optimizer.step()
        schedule.step()
        found.append(schedule.get_last_lr()[0])
    return found


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 10, 99, 2000])
def test_one_cycle_and_cosine_equal_torchs(steps):
    options = {"max_lr": 2e-3, "total_steps": steps, "cycle_momentum": False}
    expected = torchs_rates(lr_scheduler.OneCycleLR, steps, lr=1, **options)
    assert rates(steps, lr=2e-3, schedule="one-cycle") == pytest.approx(expected, rel=1e-9)
    expected = torchs_rates(lr_scheduler.CosineAnnealingLR, steps, lr=2e-3, T_max=steps)
    # torch multiplies its way along, and has lost some digits in 2000 steps.
    assert rates(steps, lr=2e-3, schedule="cosine") == pytest.approx(expected, rel=1e-6)


def test_a_warm_up_climbs_on_a_line_and_the_schedule_begins_where_it_ends():
    climb = [0.2, 0.4, 0.6, 0.8]
    assert rates(7, lr=1.0, warmup=4) == pytest.approx([*climb, 1, 1, 1])
    after = rates(9, lr=1.0, schedule="cosine")
    assert rates(13, lr=1.0, warmup=4, schedule="cosine") == pytest.approx([*climb, *after])
    assert rates(3, lr=1.0, warmup=4, schedule="cosine") == pytest.approx(climb[:3])


def test_a_constant_rate_is_constant():
    assert set(rates(5, lr=0.25)) == {0.25}


def test_a_staircase_goes_down_a_tenth_every_10_000_steps():
    config = OptimizerConfig(lr=1e-4, schedule="staircase")
    for step, expected in ((0, 1e-4), (9_999, 1e-4), (10_000, 9e-5), (29_999, 8.1e-5)):
        assert learning_rate(config, step, 40_000) == pytest.approx(expected, rel=1e-12)


def test_less_and_less_truth_is_shown_until_truth_steps():
    config = OptimizerConfig(truth_start=0.9, truth_end=0.1, truth_steps=4)
    shown = [share_shown(config, step) for step in range(6)]
    assert shown == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1, 0.1])
