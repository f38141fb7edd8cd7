"""The best look at val, and since how many looks it has been."""

import json

import pytest

from trainer.best import Best, find_best, write_best


def looks(*values, every=10):
    lines = []
    for number, value in enumerate(values, 1):
        lines.append({"step": number * every, "loss": 0.1})
        val = {"prediction": {"mse": value, "ce": -1.0}, "reconstruction": {"mse": 0.0, "ce": 0.0}}
        lines.append({"step": number * every, "val": val})
    return lines


@pytest.mark.parametrize(
    ("values", "step", "looks_since"),
    [
        ((3.0, 2.0, 1.0), 30, 0),
        ((3.0, 1.0, 2.0, 4.0), 20, 2),
        ((1.0, 1.0, 1.0), 10, 2),
        ((None, 2.0, None), 20, 1),
    ],
)
def test_the_best_look_is_the_first_of_the_smallest(values, step, looks_since):
    best = find_best(looks(*values), "prediction.mse")
    assert best == Best(step, "prediction.mse", min(v for v in values if v), looks_since)


def test_without_a_look_nothing_is_best():
    assert find_best([], "prediction.mse") is None
    assert find_best([{"step": 3, "loss": 0.5}], "prediction.mse") is None
    assert find_best(looks(None, None), "prediction.mse") is None


def test_best_json_names_the_checkpoint_there_is(tmp_path):
    best = find_best(looks(3.0, 2.0, 4.0), "prediction.mse")
    expected = {"step": 20, "metric": "prediction.mse", "value": 2.0, "checkpoint": None}
    write_best(tmp_path, best)
    assert json.loads((tmp_path / "best.json").read_text()) == expected
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-00000020.pt").touch()
    write_best(tmp_path, best)
    expected["checkpoint"] = "step-00000020.pt"
    assert json.loads((tmp_path / "best.json").read_text()) == expected
    write_best(tmp_path, None)
    assert not (tmp_path / "best.json").exists()
