"""The best look at val, and since how many looks it has been."""

import json

import pytest
from trainer_data import make_data, mmtrain, tiny_config, tiny_options

from trainer.best import Best, find_best, write_best
from trainer.checkpoint import list_checkpoints, load_checkpoint, restore_model
from trainer.evaluation import evaluate
from trainer.log import read_looks
from trainer.loop import fit
from trainer.source import open_source


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


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("best") / "data")


# A rate at which looks soon get worse.
WORSENING = ("lr=0.3", "eval_every=2", "log_every=1", "patience=2", "keep_checkpoints=1")


def test_looks_that_get_no_better_end_the_run_and_the_best_stays(data, tmp_path):
    config, run = tiny_config("steps=200", *WORSENING), tmp_path / "run"
    fitted = fit(config, data, run, quiet=True)
    values = [line["val"]["prediction"]["mse"] for line in read_looks(run)]
    best = values.index(min(values))
    assert len(values) == best + 3
    assert (fitted.step, fitted.ended) == (2 * len(values), "patience")
    assert fitted.best == Best(2 * (best + 1), "prediction.mse", min(values), 2)
    name = f"step-{fitted.best.step:08d}.pt"
    stored = json.loads((run / "best.json").read_text())
    assert (stored["checkpoint"], stored["value"]) == (name, min(values))
    kept = list_checkpoints(run)
    assert [path.name for path in kept] == [name, f"step-{fitted.step:08d}.pt"]
    model = restore_model(load_checkpoint(kept[0]), "cpu")
    again = evaluate(model, open_source(data, "val"), config.data, 5, baselines=False).as_json()
    assert again["prediction"]["mse"] == pytest.approx(min(values), rel=1e-6)

    (run / "best.json").unlink()  # killed before it was written
    lines = (run / "metrics.jsonl").read_bytes()
    assert fit(config, data, run, resume=True, quiet=True) == fitted
    assert json.loads((run / "best.json").read_text()) == stored
    assert (run / "metrics.jsonl").read_bytes() == lines
    words = tiny_options("steps=200", *WORSENING)
    told = mmtrain("fit", data, "--run", run, "--resume", *words).stdout
    assert told.startswith(
        f"{run}: ended after {fitted.step} of 200 steps, 2 looks at val without a new best; val p"
    )


def test_patience_and_best_go_on_where_a_run_broke_off(data, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fitted = fit(tiny_config("steps=200", *WORSENING), data, whole, quiet=True)
    fit(tiny_config(f"steps={fitted.step - 1}", *WORSENING), data, broken, quiet=True)
    longer = tiny_config("steps=200", *WORSENING)
    assert fit(longer, data, broken, resume=True, quiet=True) == fitted
    for name in ("metrics.jsonl", "best.json"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_another_metric_is_best_by_its_own_looks(data, tmp_path):
    config = tiny_config("steps=8", "lr=0.1", "eval_every=2", "best=reconstruction.ce")
    fitted = fit(config, data, tmp_path / "run", quiet=True)
    values = [line["val"]["reconstruction"]["ce"] for line in read_looks(tmp_path / "run")]
    assert fitted.best.value == min(values)
    assert fitted.best.step == 2 * (1 + values.index(min(values)))


def test_looks_are_at_the_average_where_there_is_one(data, tmp_path):
    run = tmp_path / "run"
    fitted = fit(tiny_config("steps=6", "lr=0.05", "ema=0.8"), data, run, quiet=True)
    checkpoint = load_checkpoint(list_checkpoints(run)[-1])
    source, config = open_source(data, "val"), tiny_config().data
    averaged = evaluate(restore_model(checkpoint, "cpu"), source, config, baselines=False).as_json()
    assert fitted.val["prediction"]["mse"] == pytest.approx(averaged["prediction"]["mse"], rel=1e-6)
    del checkpoint["optimizer"]["average"]
    raw = evaluate(restore_model(checkpoint, "cpu"), source, config, baselines=False).as_json()
    assert raw["prediction"]["mse"] != pytest.approx(averaged["prediction"]["mse"], rel=1e-3)
