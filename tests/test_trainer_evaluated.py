"""What an evaluation leaves in a run's folder, other data, and roll-outs as long as one likes."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from trainer_data import CONTEXT, PREDICT, error_line, make_data, mmtrain, stored, tiny_options

from mmgen.generate import render
from mmgen.glyphs import load_glyphs, transposed
from mmgen.presets import load_config
from trainer import load_model
from trainer.source import LiveSource, open_scored

SIDE = 44
FIELDS = (f"canvas={SIDE}", "frames=8")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluated")
    make_data(root / "data", {"train": 22, "val": 5, "test": 20}, fields=FIELDS)
    mmtrain("fit", root / "data", "--run", root / "run", *tiny_options("steps=3"))
    return root


@pytest.fixture(scope="module")
def result(root):
    words = ("evaluate", root / "run", root / "data", "--out-of-domain", "--json")
    return json.loads(mmtrain(*words).stdout)


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_sequence_has_a_row_with_what_made_it_hard(root, result):
    rows = rows_of(root / "run" / "evaluation" / "sequences.csv")
    assert [row["index"] for row in rows] == [str(i) for i in range(20)]
    for head in ("prediction", "reconstruction"):
        for metric in ("mse", "mae", "psnr", "ssim", "ssim_openstl", "ce"):
            mean = np.mean([float(row[f"{head}_{metric}"]) for row in rows])
            assert mean == pytest.approx(result[head][metric], rel=1e-4)
        for t, error in enumerate(result[head]["per_frame"]["mse"], 1):
            mean = np.mean([float(row[f"{head}_mse_{t}"]) for row in rows])
            assert mean == pytest.approx(error, rel=1e-4)
    after = slice(CONTEXT, CONTEXT + PREDICT)
    bounced = stored(root / "data", "test", "bounced")[:, after]
    hidden = 1 - stored(root / "data", "test", "visible")[:, after].astype(float)
    velocity = stored(root / "data", "test", "velocity")[:, after].astype(float)
    expected = {
        "bounces": bounced.sum((1, 2)),
        "overlap": hidden.mean((1, 2)),
        "speed": np.linalg.norm(velocity, axis=-1).mean((1, 2)),
    }
    for name, values in expected.items():
        found = [float(row[name]) for row in rows]
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-6)
    assert len(set(expected["bounces"])) > 1


def test_every_predictor_has_a_row_for_each_frame(root, result):
    rows = rows_of(root / "run" / "evaluation" / "per_frame.csv")
    tables = {
        **{name: result[name] for name in ("prediction", "reconstruction")},
        **result["baselines"],
    }
    assert {row["predictor"] for row in rows} == set(tables)
    for name, table in tables.items():
        mine = [row for row in rows if row["predictor"] == name]
        assert [int(row["frame"]) for row in mine] == list(range(1, len(mine) + 1))
        for metric, values in table["per_frame"].items():
            for row, value in zip(mine, values, strict=True):
                assert float(row[metric] or "inf") == pytest.approx(
                    float("inf") if value is None else value, rel=1e-5
                )


def test_the_worst_sequences_are_shown_worst_first(root, result):
    rows = rows_of(root / "run" / "evaluation" / "sequences.csv")
    order = sorted(rows, key=lambda row: -float(row["prediction_mse"]))
    with Image.open(root / "run" / "evaluation" / "worst.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (16 * (2 * SIDE + 2) + 15 * 8, (CONTEXT + PREDICT) * (SIDE + 2) + 6)
    frames = stored(root / "data", "test")
    for place in (0, 15):
        first_frame = frames[int(order[place]["index"]), 0]
        top = place * (2 * SIDE + 10)
        np.testing.assert_array_equal(pixels[top : top + SIDE, :SIDE], first_frame)


def test_other_data_differ_in_one_thing_each(root, result):
    elsewhere = result["out_of_domain"]
    assert list(elsewhere) == [
        "1 digit", "3 digits", "half speed", "double speed", "fashion", "transposed digits"
    ]  # fmt: skip
    assert elsewhere["fashion"] is None  # nobody downloads what was not asked for
    assert (
        elsewhere["1 digit"]["baselines"]["black"]["mse"]
        < 0.7 * (result["baselines"]["black"]["mse"])
    )
    assert (
        elsewhere["3 digits"]["baselines"]["black"]["mse"] > (result["baselines"]["black"]["mse"])
    )
    slow, fast = (
        elsewhere[name]["baselines"]["copy-last"]["per_frame"]["mse"][0]
        for name in ("half speed", "double speed")
    )
    assert slow < result["baselines"]["copy-last"]["per_frame"]["mse"][0] < fast
    for scored in elsewhere.values():
        if scored:
            assert scored["baselines"]["known dynamics"]["mse"] == 0
            assert scored["skill"] is not None
    shown = mmtrain("evaluate", root / "run", root / "data", "--out-of-domain").stdout
    assert all(name in shown for name in elsewhere)


def test_transposed_digits_move_as_the_others():
    config = load_config(assignments=(*FIELDS, "digits=1", "speed=0"))
    glyphs = transposed(load_glyphs())
    plain = render(config, 4, seed=1)
    source = LiveSource("transposed", "test", config, 1, glyphs)
    frames = np.empty((4, *source.sequence_shape), np.uint8)
    source.read(np.arange(4), frames)
    np.testing.assert_array_equal(
        [known["position"] for known in source.truth(range(4))], plain.position
    )
    for frame, block, (y, x) in zip(
        frames[:, 0], plain.frames[:, 0], plain.position[:, 0, 0].astype(int), strict=True
    ):
        patch = (slice(y, y + 28), slice(x, x + 28))
        np.testing.assert_array_equal(frame[patch], block[patch].T)


def test_an_npy_file_of_frames_is_evaluated_as_the_set_it_is_from(root, result, tmp_path):
    path = tmp_path / "mnist_test_seq.npy"
    np.save(path, stored(root / "data", "test").swapaxes(0, 1))
    found = json.loads(mmtrain("evaluate", root / "run", path, "--json").stdout)
    assert (found["prediction"], found["sequences"]) == (result["prediction"], 20)
    assert found["baselines"]["known dynamics"] is None
    assert "speed" not in rows_of(root / "run" / "evaluation" / "sequences.csv")[0]
    mmtrain("rollout", root / "run", path, "-o", tmp_path / "a.gif")
    line = error_line("fit", path, "--run", tmp_path / "new", *tiny_options("steps=2"), code=2)
    assert line == (
        f"{path}: is a file of frames, which can be scored on; to train, make a data set of it "
        "with `mmgen import`"
    )


@pytest.mark.parametrize("axes", ["TNHW", "NTHW"])
def test_a_file_is_read_in_any_order(root, tmp_path, axes):
    frames = stored(root / "data", "test")[:3]  # as many as would pass for instants
    np.save(tmp_path / "a.npy", frames if axes == "NTHW" else frames.swapaxes(0, 1))
    if axes == "NTHW":  # 3 x 8: taken for 3 instants of 8 sequences
        frames = frames.swapaxes(0, 1)
    source = open_scored(tmp_path / "a.npy", "test")
    read = np.empty((2, *source.sequence_shape), np.uint8)
    num_frames = source.read(np.array([2, 0]), read)
    np.testing.assert_array_equal(read, frames[[2, 0]])
    assert (num_frames == source.shortest).all()


def test_a_rollout_of_100_frames_has_the_truth_of_a_longer_sequence(root, tmp_path):
    out = tmp_path / "a.png"
    words = ("rollout", root / "run", root / "data", "-o", out, "--index", 3)
    mmtrain(*words, "--frames", 100)
    with Image.open(out) as picture:
        pixels = np.asarray(picture)
    config = load_config(assignments=(FIELDS[0], f"frames={CONTEXT + 100}"))
    truth = render(config, [3], seed=3).frames[0]
    model = load_model(root / "run", "cpu")
    said = model.generate(torch.from_numpy(truth[None, :CONTEXT]), 100)[0]
    said = said.clamp(0, 1).mul(255).round().to(torch.uint8)
    for t in (CONTEXT, 50, CONTEXT + 99):
        columns = slice(t * (SIDE + 2) + 6, t * (SIDE + 2) + 6 + SIDE)
        np.testing.assert_array_equal(pixels[:SIDE, columns], truth[t])
        np.testing.assert_array_equal(pixels[SIDE + 2 :, columns], said[t - CONTEXT])


def test_nobody_knows_how_an_imported_sequence_goes_on(root, tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, stored(root / "data", "test").swapaxes(0, 1))
    words = ("rollout", root / "run", path, "-o", tmp_path / "a.gif", "--frames")
    mmtrain(*words, 4)
    assert error_line(*words, 5, code=2) == (
        "frames: 5 after 4 of context were asked for, sequences have 8 and cannot be drawn again "
        f"({path}: there is no config to draw it from; name a data set); lower it"
    )
