"""Curves of difficulty: who knows the truth has skill 1, the draws are common, the files agree."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trainer_data import CONTEXT, PREDICT, error_line, make_data, mmtrain, tiny_options

import mmgen
import trainer
from mmgen.config import GeneratorConfig
from trainer.address import parse_live
from trainer.difficulty_axes import find_points, parse_axes
from trainer.difficulty_plots import draw
from trainer.errors import InputError

BASE = "live:srivastava?canvas=36&frames=7&seed=3"
COUNT = 6
ASKED = {"base": BASE, "num_sequences": COUNT, "context": CONTEXT, "steps": PREDICT}


def rendered(address):
    """Return the first test sequences of an address, rendered without the trainer."""
    config, seed = parse_live(address)
    return mmgen.render(config, COUNT, split="test", seed=seed, truth=())


def black(context, steps):
    return torch.zeros(len(context), steps, *context.shape[2:])


def knowing(addresses):
    """Return a predictor that has seen all sequences and finds them by their context."""
    clips = [clip for address in addresses for clip in rendered(address).frames]
    future = {clip[:CONTEXT].tobytes(): clip[CONTEXT:] / 255 for clip in clips}

    def predict(context, steps):
        return np.stack([future[clip.numpy().tobytes()][:steps] for clip in context])

    return predict


def of_points(result, name):
    return [point[name] for point in result["points"]]


def test_who_knows_the_truth_has_no_error_and_skill_1_wherever_nothing_is_random(tmp_path):
    axes = {"speed": [1, "2..4"], "occluder": ["none", "static"]}
    points = find_points(BASE, axes, CONTEXT, PREDICT)
    predict = knowing([point.address for point in points])
    result = trainer.difficulty(predict, axes, tmp_path / "out", **ASKED)
    assert of_points(result, "at") == [
        {"speed": speed, "occluder": occluder}
        for speed in (1.0, "2.0..4.0")
        for occluder in axes["occluder"]
    ]
    for point in result["points"]:
        assert point["prediction"]["mse"] == pytest.approx(0, abs=1e-8)
        assert point["skill"] == pytest.approx(1)
        assert point["skill_interval"] == pytest.approx([1, 1])


def test_black_scores_what_numpy_says_at_each_point(tmp_path):
    result = trainer.difficulty(black, {"digits": [1, 2, 3]}, tmp_path / "out", **ASKED)
    for point, digits in zip(result["points"], (1, 2, 3), strict=True):
        future = rendered(f"{BASE}&digits={digits}").frames[:, CONTEXT:] / 255
        squared = (future**2).sum((2, 3))
        constant = ((future - future.mean((0, 1))) ** 2).sum((2, 3))
        assert point["prediction"]["mse"] == pytest.approx(squared.mean(), rel=1e-5)
        assert point["prediction"]["per_frame"]["mse"] == pytest.approx(squared.mean(0), rel=1e-5)
        assert point["skill"] == pytest.approx(1 - squared.mean() / constant.mean(), rel=1e-4)
        low, high = point["skill_interval"]
        assert low < point["skill"] < high
    errors = [point["prediction"]["mse"] for point in result["points"]]
    assert errors == sorted(errors)


def test_the_table_says_what_the_json_says(tmp_path):
    models = {"black": black, "grey": lambda *asked: black(*asked) + 0.05}
    result = trainer.difficulty(models, {"speed": [4, 1]}, tmp_path, **ASKED)
    assert json.loads((tmp_path / "difficulty.json").read_text()) == result
    with (tmp_path / "difficulty.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(result["points"]) == 4
    for row, point in zip(table, result["points"], strict=True):
        prediction, baselines = point["prediction"], point["baselines"]
        expected = {
            "model": point["model"],
            "speed": point["at"]["speed"],
            "sequences": COUNT,
            "steps": PREDICT,
            "mse": prediction["mse"],
            "mse_low": prediction["interval"]["mse"][0],
            "mse_high": prediction["interval"]["mse"][1],
            **{name: prediction[name] for name in ("mae", "psnr", "ssim", "ssim_openstl", "ce")},
            "skill": point["skill"],
            "skill_low": point["skill_interval"][0],
            "skill_high": point["skill_interval"][1],
            "mean_frame_mse": baselines["mean frame"]["mse"],
            "known_dynamics_mse": baselines["known dynamics"]["mse"],
            "entropy_floor": point["entropy_floor"],
            "data": f"{BASE}&speed={point['at']['speed']:g}",
        }
        assert row == {name: "" if v is None else str(v) for name, v in expected.items()}
    assert [row["model"] for row in table] == ["black", "grey", "black", "grey"]
    assert [row["speed"] for row in table] == ["4.0", "4.0", "1.0", "1.0"]


def test_a_model_scores_the_same_whoever_stands_beside_it(tmp_path):
    alone = trainer.difficulty(black, {"speed": [2]}, tmp_path / "alone", **ASKED)
    others = {"grey": lambda *asked: black(*asked) + 0.5, "model": black}
    both = trainer.difficulty(others, {"speed": [2]}, tmp_path / "both", **ASKED)
    assert both["points"][1] == alone["points"][0]
    assert both["points"][0]["baselines"] == alone["points"][0]["baselines"]


def test_what_two_points_differ_by_is_their_difficulty():
    """Sequence i has the same digits, starts and directions all along an axis."""
    base = f"{BASE}&first_frame=start&rounding=subpixel"
    for axes in ({"speed": [1, 4]}, {"noise": [0, 30]}, {"turn": [0, 0.5]}, {"digits": [2, 3]}):
        points = find_points(base, axes, CONTEXT, PREDICT)
        one, other = (rendered(point.address) for point in points)
        np.testing.assert_array_equal(one.glyph_index, other.glyph_index[:, :2])
        np.testing.assert_array_equal(one.position[:, 0], other.position[:, 0, :2])
        assert not np.array_equal(one.frames, other.frames)


def test_along_frames_the_model_looks_ahead_as_far_as_there_are_frames(tmp_path):
    result = trainer.difficulty(black, {"frames": [5, 9]}, tmp_path / "out", **ASKED)
    assert of_points(result, "steps") == [1, 5]
    near, far = (point["prediction"]["per_frame"]["mse"] for point in result["points"])
    assert near == far[:1]
    longer = ASKED | {"base": f"{BASE}&frames=9"}  # which on its own changes nothing
    for asked in (ASKED, longer):
        point = trainer.difficulty(black, {"speed": [3.6]}, tmp_path / "out", **asked)["points"][0]
        assert point["prediction"]["per_frame"]["mse"] == pytest.approx(far[:PREDICT], rel=1e-6)


def test_along_turn_nobody_knows_what_comes(tmp_path):
    result = trainer.difficulty(black, {"turn": [0, 0.5]}, tmp_path / "out", **ASKED)
    assert of_points(result, "at") == [{"turn": 0}, {"turn": 0.5}]
    known = [point["baselines"]["known dynamics"]["mse"] for point in result["points"]]
    assert known[0] == pytest.approx(0, abs=1e-8)
    assert known[1] > 1


def test_axes_are_read_as_words():
    assert parse_axes(["speed=1,2..4", " digits = 1 , 2"]) == {
        "speed": ["1", "2..4"],
        "digits": ["1", "2"],
    }


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["speed"], "'speed' is no FIELD=VALUE,VALUE, such as speed=1,2,4"),
        (["=1,2"], "'=1,2' is no FIELD=VALUE,VALUE, such as speed=1,2,4"),
        (["speed=1", "speed=2"], "axis 'speed' is named twice; give all its values to one"),
    ],
)
def test_words_that_are_no_axis_are_refused(words, line):
    with pytest.raises(InputError) as raised:
        parse_axes(words)
    assert str(raised.value) == line


FIELDS = ", ".join(GeneratorConfig.model_fields)


@pytest.mark.parametrize(
    ("base", "axes", "line"),
    [
        (BASE, {"size": [1]}, f"axis 'size' does not exist; choose turn or a field: {FIELDS}"),
        (BASE, {"seed": [1, 2]}, f"axis 'seed' does not exist; choose turn or a field: {FIELDS}"),
        (BASE, {}, "0 axes asked for; a curve takes one, a map two"),
        (
            BASE,
            {"speed": [1], "digits": [1], "noise": [1]},
            "3 axes asked for; a curve takes one, a map two",
        ),
        (BASE, {"speed": []}, "axis 'speed' has no values; name at least one"),
        (BASE, {"speed": ["1&digits=3"]}, "axis 'speed': '1&digits=3' is no value of a field"),
        (BASE, {"speed": [1, "1.0"]}, "speed=1: is asked for twice; once is enough"),
        (
            BASE,
            {"speed": [1, -1]},
            f"{BASE}&speed=-1: speed: -1.0 is out of range, allowed are 0..4096",
        ),
        (
            "live:easy",
            {"overlap": ["max", "none"]},
            "live:easy?overlap=none: overlap: input should be 'max', 'add' or 'over', got 'none'",
        ),
        ("live:hardest", {"speed": [1]}, None),
        (
            "sets/bounce",
            {"speed": [1]},
            "sets/bounce: is not live data; name live:PRESET or live:FILE.toml",
        ),
        (
            f"{BASE}&frames=6",
            {"speed": [1]},
            f"{BASE}&frames=6&speed=1: sequences have 6 frames, context 4 and predict 3 need 7; "
            "add frames=7",
        ),
        (
            BASE,
            {"frames": [5, 4]},
            f"{BASE}&frames=4: a context of 4 leaves none of 4 frames to predict; ask for 5 or "
            "more",
        ),
        (BASE, {"canvas": [40, 20]}, None),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_any_work(base, axes, line, tmp_path):
    def predict(context, steps):
        raise AssertionError("was asked")

    asked = ASKED | {"base": base}
    with pytest.raises(InputError) as raised:
        trainer.difficulty(predict, axes, tmp_path / "out", **asked)
    assert line is None or str(raised.value) == line
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for out, line in (
        ("file", "is no folder; name another"),
        ("a/b", "is no folder; make it first"),
    ):
        with pytest.raises(InputError, match=line):
            trainer.difficulty(black, {"speed": [1]}, tmp_path / out, **ASKED)


def row(number):
    """Return numbers that differ from each other and from row to row."""
    names = ("mse", "skill", "mean_frame_mse", "known_dynamics_mse")
    told = {name: number + 10 * place for place, name in enumerate(names)}
    return told | {
        f"{n}_{end}": told[n] + by for n in names[:2] for end, by in (("low", -1), ("high", 1))
    }


def picture(content):
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_a_figure_is_the_same_however_the_numbers_are_ordered():
    table = [row(number) for number in range(6)]
    names = ["LSTM", "ConvLSTM"]
    ordered = draw("title", names, {"speed": [1.0, 2.0, 8.0]}, table)
    mixed = draw("title", names, {"speed": [8.0, 1.0, 2.0]}, [*table[4:], *table[:4]])
    np.testing.assert_array_equal(picture(mixed), picture(ordered))
    words = draw("title", names, {"overlap": ["max", "add", "over"]}, table)
    assert picture(words).shape == picture(ordered).shape == (845, 910, 3)


def test_a_map_has_the_first_axis_to_the_right_and_the_second_up():
    axes = {"speed": [1.0, 2.0, 4.0], "digits": [1, 2]}
    for place, (right, up) in enumerate([(r, u) for r in range(3) for u in range(2)]):
        table = [row(0) | {"mse": float(number == place)} for number in range(6)]
        pixels = picture(draw("title", ["model"], axes, table))
        errors = pixels[:, : pixels.shape[1] // 2]  # beside them is the map of skill
        low, high = ((errors == color).all(-1) for color in ((68, 1, 84), (253, 231, 36)))
        where, whole = np.argwhere(high).mean(0), np.argwhere(low | high)
        share = (where - whole.min(0)) / np.ptp(whole, axis=0)
        assert (int(share[1] * 3), int(share[0] * 2)) == (right, 1 - up)


def test_a_map_is_the_same_however_the_numbers_are_ordered():
    table = [row(number) for number in range(6)]
    axes = {"speed": [1.0, 2.0, 4.0], "digits": [1, 2]}
    ordered = draw("title", ["model"], axes, table)
    turned = [table[place] for place in (1, 0, 3, 2, 5, 4)]
    mixed = draw("title", ["model"], axes | {"digits": [2, 1]}, turned)
    np.testing.assert_array_equal(picture(mixed), picture(ordered))
    two = picture(draw("title", ["one", "other"], axes, [*table, *table]))
    assert two.shape[1] == picture(ordered).shape[1]
    assert two.shape[0] > picture(ordered).shape[0]


def test_what_is_not_finite_is_a_gap():
    table = [row(1), dict.fromkeys(row(1))]
    for axes in ({"speed": [1.0, 2.0]}, {"speed": [1.0, 2.0], "digits": [1]}):
        assert picture(draw("title", ["model"], axes, table)).std() > 0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Runs on stored and live data, one that only reconstructs, one that predicts less."""
    root = tmp_path_factory.mktemp("difficulty")
    data = make_data(root / "data")
    live = "live:easy?canvas=30&frames=7"
    for name, address, *assignments in (
        ("stored", data),
        ("live", live),
        ("reconstructs", data, "decoders=reconstruct"),
        ("short", data, "predict=2"),
    ):
        options = tiny_options("steps=1", "eval_sequences=2", *assignments)
        mmtrain("fit", address, "--run", root / name, *options)
    return root


def test_runs_are_drawn_from_what_they_were_trained_on(root, tmp_path):
    command = ("--axis", "speed=1,2", "-o", tmp_path / "out", "--sequences", COUNT)
    done = mmtrain("difficulty", root / "live", root / "stored", *command, "--json")
    result = json.loads(done.stdout)
    assert result["base"] == "live:easy?canvas=30&frames=7"
    checkpoint = "step-00000001.pt"
    assert result["models"] == [
        {"name": name, "run": str(root / name), "checkpoint": checkpoint}
        for name in ("live", "stored")
    ]
    assert done.stderr.splitlines()[0].startswith("speed=1: live, MSE ")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"difficulty.{kind}" for kind in ("csv", "json", "png")
    }
    model = trainer.load_model(root / "stored", "cpu")
    asked = {"num_sequences": COUNT, "context": CONTEXT, "steps": PREDICT}
    point = result["points"][3]
    assert (point["model"], point["at"]) == ("stored", {"speed": 2.0})
    scored = trainer.score(model.generate, f"{result['base']}&speed=2", **asked).as_json()
    scored["baselines"] = {name: scored["baselines"][name] for name in point["baselines"]}
    assert list(scored["baselines"]) == ["mean frame", "known dynamics"]
    assert {name: point[name] for name in scored} == scored


def test_a_run_on_stored_data_is_drawn_from_the_plain_preset_in_its_frames(root, tmp_path):
    command = ("--axis", "digits=1,2", "-o", tmp_path / "out", "--sequences", COUNT)
    done = mmtrain("difficulty", root / "stored", *command)
    result = json.loads((tmp_path / "out" / "difficulty.json").read_text())
    assert result["base"] == "live:srivastava?canvas=30x30&frames=7"
    for point in result["points"]:
        assert f"{point['prediction']['mse']:.1f}" in done.stdout
        assert f"{point['skill']:.3f}" in done.stdout


def test_runs_that_cannot_stand_in_a_figure_are_refused(root, tmp_path):
    command = ("--axis", "speed=1,2", "-o", tmp_path / "out")
    for runs, line in (
        (
            ["reconstructs"],
            "{}/reconstructs: only reconstructs; name a run with the decoder predict",
        ),
        (
            ["stored", "short"],
            "{0}/short: predict is 2, of {0}/stored 3; only equals share a figure",
        ),
        (["stored", "stored"], "a run is named twice; once is enough"),
    ):
        words = ("difficulty", *(root / run for run in runs), *command)
        assert error_line(*words, code=2) == line.format(root)
    line = error_line("difficulty", root / "stored", *command, "--base", "live:easy", code=2)
    assert line == (
        "live:easy?speed=1: frames are (64, 64), the model of "
        f"{root}/stored was trained on (30, 30)"
    )
    assert not Path(tmp_path / "out").exists()
