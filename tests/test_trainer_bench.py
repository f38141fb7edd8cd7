"""`mmtrain bench`: what it says adds up, and bad input is refused before anything is measured."""

import json

import pytest
from trainer_data import error_line, mmtrain, tiny_config, tiny_options

from trainer.roofline import count_step

SMALL = tiny_options("hidden=4", "batch_size=2", "precision=fp32")


@pytest.mark.parametrize("flags", [(), ("--reference",)])
def test_bench_measures_steps_beside_their_floor(flags):
    done = mmtrain("bench", *SMALL, *flags, "--json")
    result = json.loads(done.stdout)
    cost = count_step(tiny_config("hidden=4", "batch_size=2"), 64 * 64)
    assert result["step"] == ("reference" if flags else "fused")
    assert result["parameters"] == cost.num_parameters
    assert result["parts"]["total"] == {"flop": cost.flop, "bytes": cost.num_bytes}
    *parts, total = result["floor_s"].values()
    assert sum(parts) == pytest.approx(total)
    assert result["step_s"]["median"] / total == pytest.approx(result["times_the_floor"])
    assert result["step_s"]["median"] > total  # so small a step is mostly Python
    assert f"{cost.num_parameters:,} parameters" in done.stderr.splitlines()[0]


def test_bench_prints_a_table():
    lines = mmtrain("bench", *SMALL).stdout.splitlines()
    assert "A step of 2 sequences" in lines[0]
    assert any("optimizer" in line for line in lines)
    assert "times the floor" in lines[-1]


def test_bench_refuses_bad_input_before_it_measures():
    assert error_line("bench", "--preset", "huge", code=2).startswith("preset 'huge'")
    assert "not there" in error_line("bench", "--device", "cuda:77", code=2)
    assert error_line("bench", "--set", "hidden=0", code=2).startswith("model.hidden")
