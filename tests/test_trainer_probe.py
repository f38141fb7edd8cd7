"""`mmtrain probe` from a run to its table, and encoders trained with the labels."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from trainer_data import CONTEXT, error_line, make_data, mmtrain, stored, tiny_options

from mmgen import imports
from trainer import load_model
from trainer.latents import encode, truth_at
from trainer.probe import one_two_five, probe_run
from trainer.probe_fit import Scale
from trainer.probe_tables import few_label_table, scores_csv
from trainer.probe_targets import MEASURES, constant_answer, make_targets
from trainer.probe_tune import Tuned, best_answers, tune, unchanged
from trainer.source import open_source

COUNTS = {"train": 14, "val": 6, "test": 40}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("probe")
    fields = ("canvas=30", "frames=8", "digits=1..2", "classes=0,1,7")
    make_data(root / "data", COUNTS, fields=fields, seed=10)
    mmtrain("fit", root / "data", "--run", root / "run", *tiny_options("steps=2"))
    return root


@pytest.fixture(scope="module")
def result(root):
    said = mmtrain("probe", root / "run", root / "data", "--steps", 3, "--json")
    assert "frozen linear" in said.stderr
    return json.loads(said.stdout)


def test_every_encoder_is_probed_with_every_number_of_labels(result):
    found = {}
    for row in result["rows"]:
        found.setdefault((row["encoder"], row["probe"]), []).append(
            (row["labels"], row["sequences"])
        )
        for name in MEASURES:
            low, high = row[name]["interval"]
            assert low <= row[name]["value"] <= high
    assert [labels for labels, _ in found["frozen", "linear"]] == [2, 5, None]
    several = [(e, p) for e in ("frozen", "random") for p in ("linear", "mlp")]
    several += [("fine-tuned", "linear"), ("scratch", "linear")]
    for name in several:
        assert found[name] == found["frozen", "linear"]
    alone = {("none", "chance"), ("frozen", "shuffled linear"), ("frozen", "shuffled mlp")}
    assert set(found) == {*several, *alone}
    assert all(found[name] == [(None, 14)] for name in alone)
    assert result["sequences"] == {"labelled": 14, "test": 40}
    assert result["classes"] == [0, 1, 7]


def test_chance_is_the_best_answer_without_looking(root, result):
    """Counted in the data set itself; one digit of several asks for the most frequent classes."""
    train, test = (stored(root / "data", split, "label") for split in ("train", "test"))
    counts = {c: sum(c in labels for labels in train) for c in (0, 1, 7)}
    ranked = sorted(counts, key=lambda c: -counts[c])
    assert counts == {0: 7, 1: 9, 7: 3}
    shares = []
    for labels in test:
        true = set(labels.tolist()) - {-1}
        shares.append(len(true & set(ranked[: len(true)])) / len(true))
    assert result["rows"][0]["digits"]["value"] == pytest.approx(np.mean(shares))


def test_the_same_seed_gives_the_same_result(root, result):
    again = probe_run(root / "run", root / "data", steps=3)
    assert again == result
    assert json.loads((root / "run" / "probe.json").read_text()) == result


def test_live_data_can_be_probed(root):
    address = "live:easy?canvas=30&frames=8&classes=0,1"
    found = probe_run(root / "run", address, num_sequences=6, steps=1)
    assert found["sequences"] == {"labelled": 6, "test": 1000}


def test_tables_and_curves_are_written(root, result):
    text = (root / "run" / "probe" / "scores.csv").read_text()
    lines = list(csv.DictReader(text.splitlines()))
    assert len(lines) == len(result["rows"])
    for line, row in zip(lines, result["rows"], strict=True):
        assert line["labels"] == ("" if row["labels"] is None else str(row["labels"]))
        for name in MEASURES:
            assert float(line[name]) == row[name]["value"]
            assert [float(line[f"{name}_{end}"]) for end in ("low", "high")] == row[name][
                "interval"
            ]
    with Image.open(root / "run" / "probe" / "few_labels.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 100
    header, rows = few_label_table(result, "digits")
    assert header[:3] == ["labels", "sequences", "frozen linear"]
    assert [row[0] for row in rows] == ["2", "5", "all"]
    undefined = {**result["rows"][0], "velocity": {"value": None, "interval": [None, None]}}
    assert scores_csv({"rows": [undefined]}).endswith(",,,\n")


def test_the_table_shows_intervals_beside_chance(root, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    out, options = tmp_path / "out", ("--steps", 1, "--seed", 1, "--split", "val")
    told = mmtrain("probe", root / "run", root / "data", "-o", out, *options).stdout
    assert sorted(path.name for path in out.iterdir()) == ["few_labels.png", "scores.csv"]
    found = json.loads((root / "run" / "probe.json").read_text())
    for measure in MEASURES:
        first = found["rows"][0][measure]
        low, high = first["interval"]
        assert f"{first['value']:.3f} {low:.2f}..{high:.2f}" in told
    assert "6 labelled sequences of val, 40 of test" in told
    assert (found["seed"], found["steps"], found["split"]) == (1, 1, "val")


@pytest.fixture
def learning(root):
    """A model, its source of one digit a sequence, 400 labelled sequences, and what learns them."""
    model = load_model(root / "run", "cpu")
    source = open_source("live:easy?canvas=30&frames=8&classes=0,1,7", "train")
    labels = make_targets(truth_at(source, 0, 400, CONTEXT - 1), np.array([0, 1, 7]))
    scale = Scale.of(torch.cat(list(encode(model, source, CONTEXT, 400))))
    return model, source, labels, Tuned(model, CONTEXT, labels, scale)


def test_tuning_learns_the_labels_through_the_encoder(learning):
    model, source, labels, tuned = learning
    before = model.encoder.lstm.weight_ih_l0.detach().clone()
    decoder = model.predict_decoder.fc.weight.detach().clone()
    frames, scaled = tuned.read(source, torch.arange(400)), tuned.scaled(labels)
    first = tuned.losses(frames, scaled)
    bests = tune(tuned, source, torch.arange(400), labels, 150, seed=0)
    for number, best in enumerate(bests):
        best.restore()
        share = tuned.losses(frames, scaled)[number] / first[number]
        assert share < (0.5, 1.001, 1.001)[number]  # six units that find digits find no more
        answer = best_answers(tuned, bests, source, 400)[number]
        best.restore()
        assert torch.equal(answer, tuned.answers(source, 400)[number])
    bests[0].restore()
    assert not torch.equal(model.encoder.lstm.weight_ih_l0, before)
    assert torch.equal(model.predict_decoder.fc.weight, decoder)


def test_an_untrained_head_answers_with_the_mean(learning):
    _, source, labels, tuned = learning
    answer = tuned.answers(source, 400)
    expected = constant_answer(labels, 400)
    np.testing.assert_allclose(answer.position, expected.position, rtol=1e-5)
    np.testing.assert_allclose(answer.velocity, expected.velocity, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer.digits, expected.digits.log(), rtol=1e-5)


def test_weights_are_given_back_whatever_happens(learning):
    model, *_ = learning
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def change_and_fail():
        with unchanged(model.encoder):
            for weight in model.encoder.parameters():
                weight.data.add_(1)
            raise RuntimeError("now")

    with pytest.raises(RuntimeError, match="now"):
        change_and_fail()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_labels_are_counted_as_the_axis_of_a_plot():
    numbers = one_two_five()
    assert [next(numbers) for _ in range(7)] == [1, 2, 5, 10, 20, 50, 100]


def test_data_without_truth_are_refused(root):
    np.save(root / "frames.npy", stored(root / "data", "test"))
    source = imports.open_source(root / "frames.npy", "NTHW")
    imports.import_dataset(source, root / "imported", {"train": (0, 30), "test": (30, 40)})
    line = error_line("probe", root / "run", root / "imported", code=2)
    assert line == (
        f"{root}/imported: has no label of its digits, and probing needs ground truth; take a set "
        "of `mmgen generate`, or live:PRESET"
    )


def test_too_little_is_refused(root):
    line = error_line("probe", root / "run", root / "data", "--sequences", 4, code=2)
    assert line == f"{root}/data: 4 sequences of train are too few, probing needs 5"
    late = "live:srivastava?canvas=30&frames=8&appear=7"
    line = error_line("probe", root / "run", late, "--sequences", 9, code=2)
    assert line == (
        f"{late}: after {CONTEXT} frames fewer than 5 sequences of train show a digit; nothing can "
        "be asked"
    )
