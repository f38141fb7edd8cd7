"""Anybody's model, and anybody's file of predictions, get the table that ours gets."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from trainer_data import CONTEXT, PREDICT, error_line, make_data, mmtrain, stored

import trainer
from trainer.errors import InputError
from trainer.scoring import score_predictions
from trainer.source import open_scored

COUNT = 70  # more than a batch of 64, no multiple of it
CUT = {"context": CONTEXT, "steps": PREDICT}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scoring") / "data"
    return make_data(folder, {"test": COUNT}, fields=("canvas=30", "frames=8"))


@pytest.fixture(scope="module")
def frames(data):
    return stored(data, "test")


def truth_of(frames):
    """Know the sequences by their order."""
    place = 0

    def predict(context, steps):
        nonlocal place
        place += len(context)
        return frames[place - len(context) : place, CONTEXT : CONTEXT + steps] / 255

    return predict


def test_a_model_that_cheats_has_skill_1(data, frames):
    found = trainer.score(truth_of(frames), data, **CUT).as_json()
    assert found["prediction"]["mse"] == pytest.approx(0, abs=1e-9)
    assert (found["skill"], found["sequences"]) == (pytest.approx(1), COUNT)
    assert found["prediction"]["ssim"] == pytest.approx(1)
    assert found["reconstruction"] is None


def test_baselines_may_be_asked_for_by_name(data, frames):
    whole = trainer.score(truth_of(frames), data, **CUT).as_json()
    names = ("mean frame", "known dynamics")
    found = trainer.score(truth_of(frames), data, **CUT, baselines=names).as_json()
    for name, table in whole["baselines"].items():
        assert found["baselines"].pop(name) == (table if name in names else None)
    for name in whole.keys() - {"baselines"}:
        assert found[name] == whole[name]


def test_the_mean_frame_has_skill_0(data, frames):
    mean = torch.from_numpy(frames[:, CONTEXT : CONTEXT + PREDICT] / 255).mean((0, 1))

    def predict(context, steps):
        return mean.expand(len(context), steps, 30, 30)

    found = trainer.score(predict, data, **CUT).as_json()
    assert found["skill"] == pytest.approx(0, abs=1e-6)
    assert found["prediction"]["mse"] == pytest.approx(found["baselines"]["mean frame"]["mse"])


def test_what_predict_is_shown_and_may_return(data, frames):
    """Bytes of the context, in order; a module with gradients, an array, doubles, any device."""
    shown = []

    def predict(context, steps):
        assert (context.dtype, context.is_inference()) == (torch.uint8, False)
        shown.append(context)
        weight = torch.ones(1, requires_grad=True, dtype=torch.float64)
        return weight * (context[:, -1:] / 255).expand(-1, steps, -1, -1)

    found = trainer.score(predict, data, **CUT)
    np.testing.assert_array_equal(torch.cat(shown), frames[:, :CONTEXT])
    copied = found.frames["copy-last"]["mse"]
    np.testing.assert_allclose(found.frames["prediction"]["mse"], copied, rtol=1e-6)
    assert found.frames["prediction"]["mse"].shape == (COUNT, PREDICT)


@pytest.mark.parametrize(
    ("returned", "line"),
    [
        (torch.zeros(COUNT), r"predict returned \(70,\), expected is \(64, 3, 30, 30\)"),
        (torch.full((64, 3, 30, 30), torch.nan), "predict returned what is no number"),
    ],
)
def test_what_predict_must_not_return(data, returned, line):
    with pytest.raises(ValueError, match=line):
        trainer.score(lambda context, steps: returned, data, **CUT)


def test_colour_and_live_data():
    address = "live:srivastava?canvas=30&color=random&frames=7"
    found = trainer.score(
        lambda context, steps: torch.zeros(len(context), steps, 30, 30, 3),
        address,
        num_sequences=5,
        **CUT,
    ).as_json()
    assert found["prediction"]["mse"] == found["baselines"]["black"]["mse"] > 0
    with pytest.raises(InputError, match="have 7 frames, context 6 and predict 3 need 9; lower"):
        trainer.score(lambda context, steps: context, address, context=6, steps=3)


@pytest.fixture(params=[np.float32, np.float64])
def predictions(request, tmp_path, frames):
    path = tmp_path / "predictions.npy"
    noise = np.random.default_rng(0).normal(0, 0.1, (COUNT, PREDICT, 30, 30))
    exact = frames[:, CONTEXT : CONTEXT + PREDICT] / 255 + noise
    np.save(path, exact.astype(request.param))
    return path


def test_a_file_of_predictions_scores_as_the_model_that_wrote_it(data, predictions):
    array = np.load(predictions)
    place = 0

    def predict(context, steps):
        nonlocal place
        place += len(context)
        return array[place - len(context) : place]

    expected = trainer.score(predict, data, **CUT).as_json()
    assert (
        score_predictions(predictions, open_scored(data, "test"), context=CONTEXT).as_json()
        == expected
    )


def test_the_command_prints_and_keeps_what_was_scored(data, predictions, tmp_path):
    out = tmp_path / "scores"
    words = ("score", predictions, data, "--context", CONTEXT)
    result = json.loads(mmtrain(*words, "-o", out, "--json").stdout)
    assert result == json.loads((out / "evaluation.json").read_text())
    rows = list(csv.DictReader((out / "evaluation" / "sequences.csv").read_text().splitlines()))
    assert [int(row["index"]) for row in rows] == list(range(COUNT))
    mean = np.mean([float(row["prediction_mse"]) for row in rows])
    assert mean == pytest.approx(result["prediction"]["mse"], rel=1e-5)
    assert all(float(row["speed"]) == pytest.approx(3.6, abs=0.01) for row in rows)
    with Image.open(out / "evaluation" / "worst.png") as picture:
        assert picture.size[0] == (CONTEXT + PREDICT) * 32 + 6
        assert picture.size[1] == 16 * 62 + 15 * 8
    rows = list(csv.DictReader((out / "evaluation" / "horizon_mse.csv").read_text().splitlines()))
    assert [float(row["model"]) for row in rows] == pytest.approx(
        result["prediction"]["per_frame"]["mse"]
    )
    for name in ("horizon_ssim", "horizon_ce", "sequences_overlap"):
        with Image.open(out / "evaluation" / f"{name}.png") as picture:
            assert min(picture.size) > 100
    page = tmp_path / "page.html"
    mmtrain("report", out, "-o", page)
    for text in (f"predictions of {predictions}", f"{result['skill']:.3f}", 'id="difficulty"'):
        assert text in page.read_text()
    assert 'id="training"' not in page.read_text()
    assert (tmp_path / "page_files" / "horizon_psnr.csv").is_file()
    shown = mmtrain(*words).stdout
    for text in ("prediction", "known dynamics", f"{result['prediction']['ssim']:.3f}", "skill"):
        assert text in shown


def test_the_published_layout_is_data_too(data, frames, predictions, tmp_path):
    """(T, N, H, W) of bytes, of which nobody knows how it was drawn."""
    path = tmp_path / "mnist_test_seq.npy"
    np.save(path, frames.swapaxes(0, 1))
    known = score_predictions(predictions, open_scored(data, "test"), context=CONTEXT).as_json()
    found = score_predictions(predictions, open_scored(path, "test"), context=CONTEXT).as_json()
    assert found["prediction"] == known["prediction"]
    for name, table in known["baselines"].items():
        is_drawn = name in ("constant velocity", "known dynamics")
        assert found["baselines"][name] == (None if is_drawn else table)
    assert found["skill"] is None
    assert "n/a" in mmtrain("score", predictions, path, "--context", CONTEXT).stdout
    line = error_line("score", predictions, path, "--split", "val", code=2)
    assert line == f"{path}: is a file of frames, it has no split 'val', only test"


@pytest.mark.parametrize(
    ("array", "line"),
    [
        (np.zeros((2, 3, 30, 31)), r"frames are (30, 31), those of {data} are (30, 30)"),
        (np.zeros((2, 3, 30, 30), np.uint8), "holds uint8; predictions are floats on the scale 0"),
        (np.zeros((2, 30, 30)), "has the shape (2, 30, 30); expected is (N, T, H, W), or"),
        (np.zeros((71, 3, 30, 30)), "71 sequences asked for, test has 70"),
        (np.full((2, 3, 30, 30), np.nan), "holds what is no number, among the first 2 sequences"),
        (np.zeros((2, 30, 30, 30)), "have 8 frames, context 4 and predict 30 need 34; lower them"),
        (np.array([[None]]), "is no npy file, or not whole; save the array with numpy.save"),
    ],
)
def test_a_bad_file_of_predictions_is_one_line(data, tmp_path, array, line):
    path = tmp_path / "predictions.npy"
    np.save(path, array)
    words = ("score", path, data, "--context", CONTEXT, "-o", tmp_path / "out")
    assert line.format(data=data) in error_line(*words, code=2)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_cut_or_missing_is_one_line(data, predictions):
    whole = predictions.read_bytes()
    for content in (whole[:-8], whole[:100], b"", b"PK\3\4"):
        predictions.write_bytes(content)
        line = error_line("score", predictions, data, code=2)
        assert "is no npy file, or not whole" in line
    predictions.unlink()
    line = error_line("score", predictions, data, code=2)
    assert line == f"{predictions}: cannot be read (No such file or directory)"


@pytest.mark.slow
def test_ten_thousand_sequences_score_as_those_of_others_do():
    """Against numbers found by another generator: 10 000 sequences, SSIM 150 of them."""

    def black(context, steps):
        return torch.zeros(len(context), steps, 64, 64)

    found = trainer.score(black, "live:openstl", num_sequences=10_000).as_json()
    baselines = found["baselines"]
    for name, mse, mae, ssim, ssim_openstl in (
        ("black", 174.5, 202.1, 0.7726, 0.7786),
        ("copy-last", 286.6, 338.2, 0.661, 0.670),
        ("mean frame", 153.4, 346.7, 0.226, 0.331),
    ):
        table = baselines[name]
        assert table["mse"] == pytest.approx(mse, abs=1.5)
        assert table["mae"] == pytest.approx(mae, abs=2)
        assert (table["ssim"], table["ssim_openstl"]) == pytest.approx(
            (ssim, ssim_openstl), abs=0.012
        )
    assert baselines["mean frame"]["ce"] == pytest.approx(674.2, abs=4)
    assert baselines["copy-last"]["ce"] == pytest.approx(1771.6, abs=10)
    assert found["entropy_floor"] == pytest.approx(86.42, abs=0.5)
    horizon = [202, 251, 272, 293, 300, 307, 307, 311, 310, 312]
    assert baselines["copy-last"]["per_frame"]["mse"] == pytest.approx(horizon, abs=4)
    assert baselines["known dynamics"]["mse"] == 0
