"""The classifier: what it computes, what it reads, what it counts, and what a run leaves behind."""

import csv
import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import trainer_oracle
from PIL import Image
from trainer_data import error_line, make_data, mmtrain, stored, tiny_options

from trainer.classifier import Classifier, ClassifyConfig
from trainer.classify import evaluate, train
from trainer.confusion import ANSWERS, count_one, count_several
from trainer.labelled import Labelled, Rows, Sequences
from trainer.log import RunLog

CPU = torch.device("cpu")
TINY = ("device=cpu", "hidden=6", "layers=1", "batch_size=4", "steps=3")
OPTIONS = [word for field in TINY for word in ("--set", field)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Sequences of one digit."""
    folder = tmp_path_factory.mktemp("classify") / "one"
    return make_data(folder, fields=("canvas=30", "frames=3..5", "digits=1"))


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Sequences of one digit to three."""
    folder = tmp_path_factory.mktemp("classify") / "several"
    return make_data(folder, fields=("canvas=30", "frames=3", "digits=1..3"))


def classified(*args):
    return json.loads(mmtrain("classify", *args, *OPTIONS, "--json").stdout)


def test_the_default_is_the_tutorials_model():
    model = Classifier(ClassifyConfig(), 28)
    assert sum(weight.numel() for weight in model.parameters()) == 214_282
    assert {name: tuple(weight.shape) for name, weight in model.state_dict().items()} == {
        "recurrent.weight_ih_l0": (512, 28),
        "recurrent.weight_hh_l0": (512, 128),
        "recurrent.bias_ih_l0": (512,),
        "recurrent.bias_hh_l0": (512,),
        "recurrent.weight_ih_l1": (512, 128),
        "recurrent.weight_hh_l1": (512, 128),
        "recurrent.bias_ih_l1": (512,),
        "recurrent.bias_hh_l1": (512,),
        "fc.weight": (10, 128),
        "fc.bias": (10,),
    }


@pytest.mark.parametrize(("cell", "num_states"), [("lstm", 2), ("gru", 1), ("rnn", 1)])
def test_logits_are_those_of_numpy_after_the_last_frame(cell, num_states):
    torch.manual_seed(0)
    model = Classifier(ClassifyConfig(cell=cell, hidden=5, num_classes=3), 6)
    frames = torch.randint(0, 256, (3, 4, 2, 3), dtype=torch.uint8)
    num_frames = torch.tensor([4, 1, 3])
    found = model(frames, num_frames).detach()
    weights = {name: weight.double().numpy() for name, weight in model.state_dict().items()}
    for sequence, count, logits in zip(frames.numpy(), num_frames, found, strict=True):
        states = [(np.zeros(5),) * num_states for _ in range(2)]
        for frame in sequence[:count]:
            x = frame.ravel() / 255
            for number, state in enumerate(states):
                first, last = "recurrent.", f"_l{number}"
                layer = {
                    name.removeprefix(first).removesuffix(last): weight
                    for name, weight in weights.items()
                    if name.endswith(last)
                }
                states[number] = trainer_oracle.step(cell, layer, x, state)
                x = states[number][0]
        expected = weights["fc.weight"] @ x + weights["fc.bias"]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6)


class Flashes:
    """Pixel c lights up at some time in sequences of class c: what no last frame tells."""

    num_values, num_train, num_test = 3, None, 40

    def __init__(self, *, has_one):
        self.has_one = has_one

    def train(self, batch_size, seed):
        rng = np.random.default_rng(seed)
        while True:
            yield self.drawn(rng, batch_size)

    def test(self, batch_size):
        yield self.drawn(np.random.default_rng(10**6), self.num_test)

    def drawn(self, rng, count):
        labels = rng.integers(0, 3, count)
        present = np.eye(3, dtype=bool)[labels] if self.has_one else rng.random((count, 3)) < 0.5
        frames = np.zeros((count, 5, 1, 3), np.uint8)
        for sequence, classes in zip(frames, present, strict=True):
            for label in np.flatnonzero(classes):
                sequence[rng.integers(0, 4), 0, label] = 255
        target = torch.from_numpy(labels if self.has_one else present.astype(np.float32))
        return Labelled(torch.from_numpy(frames), torch.full((count,), 5), target)


@pytest.mark.parametrize("has_one", [True, False], ids=["one", "several"])
def test_what_flashed_is_learned_in_a_second(tmp_path, has_one):
    config = ClassifyConfig(hidden=8, layers=1, num_classes=3, lr=0.03, batch_size=16)
    examples = Flashes(has_one=has_one)
    log = RunLog(tmp_path, 200, 16, quiet=True)
    untrained = evaluate(Classifier(config, 3), examples)
    trained = evaluate(train(config, examples, 200, 0, CPU, log), examples)
    assert untrained.accuracy < 0.7
    assert trained.accuracy == 1
    assert trained.per_class == [1, 1, 1]


def test_classes_are_counted_true_ones_down_said_ones_across():
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 4, (2, 50))
    truth[truth == 2] = 0
    confusion = count_one(truth, said, 4)
    expected = np.zeros((4, 4), int)
    for true_class, class_said in zip(truth, said, strict=True):
        expected[true_class, class_said] += 1
    np.testing.assert_array_equal(confusion.counts, expected)
    assert confusion.accuracy == np.trace(expected) / 50 == np.mean(truth == said)
    shares = [np.mean(said[truth == label] == label) for label in (0, 1, 3)]
    assert confusion.per_class == [shares[0], shares[1], None, shares[2]]
    assert (confusion + confusion).accuracy == confusion.accuracy
    assert (confusion + confusion).counts.sum() == 100


def test_of_several_classes_each_is_a_question():
    rng = np.random.default_rng(0)
    truth, said = rng.random((2, 50, 4)) < 0.5  # as many classes as there are answers
    said[:20] = truth[:20]
    confusion = count_several(truth, said)
    assert confusion.columns == list(ANSWERS)
    for label, (found, missed, false_alarm, absent) in enumerate(confusion.counts):
        pairs = list(zip(truth[:, label], said[:, label], strict=True))
        assert pairs.count((True, True)) == found
        assert pairs.count((True, False)) == missed
        assert pairs.count((False, True)) == false_alarm
        assert pairs.count((False, False)) == absent
        assert confusion.per_class[label] == (found + absent) / 50
    whole = sum(row == other for row, other in zip(truth.tolist(), said.tolist(), strict=True))
    assert 20 <= whole < 50
    assert confusion.accuracy == whole / 50


def read_mnist(part):
    """Read images and labels as their publishers describe the files."""
    folder = Path(__file__).parent.parent / "data" / "mnist"
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        return images, np.frombuffer(file.read(), np.uint8, offset=8)


def test_rows_are_all_training_images_once_an_epoch_and_the_test_images():
    rows = Rows(10)
    assert (rows.num_train, rows.num_test, rows.num_values) == (60_000, 10_000, 28)
    images, labels = read_mnist("train")
    batches = rows.train(30_000, seed=0)
    first, second, third = (next(batches) for _ in range(3))
    seen = Counter(
        (image.tobytes(), label)
        for batch in (first, second)
        for image, label in zip(batch.frames.numpy(), batch.target.tolist(), strict=True)
    )
    assert seen == Counter(
        (image.tobytes(), label) for image, label in zip(images, labels.tolist(), strict=True)
    )
    assert not np.array_equal(first.frames, images[:30_000])
    assert not np.array_equal(first.frames, third.frames)
    tested = list(rows.test(4_000))
    assert [len(part.target) for part in tested] == [4_000, 4_000, 2_000]
    images, labels = read_mnist("t10k")
    np.testing.assert_array_equal(torch.cat([part.frames for part in tested]), images)
    np.testing.assert_array_equal(torch.cat([part.target for part in tested]), labels)
    assert all((part.num_frames == 28).all() for part in tested)


def test_rows_need_no_numba():
    code = (
        "import sys\nfrom trainer.labelled import Rows\nRows(10)\n"
        "print(sorted({'numba', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_batches_have_the_label_of_each_sequence(one):
    examples = Sequences(one, 10)
    labels, frames = stored(one, "train", "label")[:, 0], stored(one, "train")
    of_frames = {row.tobytes(): label for row, label in zip(frames, labels, strict=True)}
    batches = examples.train(4, seed=1)
    for batch in (next(batches) for _ in range(8)):
        found = [of_frames[row.tobytes()] for row in batch.frames.numpy()]
        assert batch.target.tolist() == found
        assert batch.num_frames.min() >= 3
    tested = list(examples.test(3))
    assert (
        torch.cat([part.target for part in tested]).tolist()
        == stored(one, "test", "label")[:, 0].tolist()
    )


def test_of_several_digits_any_set_of_classes_may_be_present(several):
    examples = Sequences(several, 10)
    assert not examples.has_one
    labels = stored(several, "test", "label")
    assert {len(set(row) - {-1}) for row in labels} > {1}
    (tested,) = examples.test(7)
    found = [set(np.flatnonzero(row)) for row in tested.target]
    assert found == [set(row) - {-1} for row in labels]


def test_live_data_have_labels_too(one):
    asked = "live:srivastava?canvas=30&frames=3..5&digits=1&seed=3"
    live = Sequences(asked, 10)
    assert (live.num_train, live.num_test, live.has_one) == (None, 1000, True)
    batch = next(live.train(22, seed=0))
    assert batch.target.tolist() == stored(one, "train", "label")[:, 0].tolist()
    np.testing.assert_array_equal(batch.frames, stored(one, "train"))


@pytest.mark.parametrize("name", ["one", "several"])
def test_a_run_keeps_what_it_reached(request, tmp_path, name):
    data, run = request.getfixturevalue(name), tmp_path / "run"
    result = classified(data, "--run", run, "--seeds", 2)
    assert json.loads((run / "classification.json").read_text()) == result
    assert [one["seed"] for one in result["seeds"]] == [0, 1]
    assert (result["train"], result["test"]) == (22, 7)
    assert result["accuracy"] == np.mean([one["accuracy"] for one in result["seeds"]])
    asked = json.loads((run / "config.json").read_text())
    assert (asked["classify"]["hidden"], asked["data"]) == (6, str(data))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["seed"], line["step"]) for line in lines] == [(0, 3), (1, 3)]
    with (run / "confusion.csv").open() as file:
        header, *rows = csv.reader(file)
    total = np.sum([one["confusion"] for one in result["seeds"]], 0)
    assert header == ["label", *result["columns"]]
    np.testing.assert_array_equal(np.array(rows, int), np.column_stack([range(10), total]))
    if result["one_class_each"]:
        assert np.trace(total) / total.sum() == pytest.approx(result["accuracy"])
    with Image.open(run / "confusion.png") as picture:
        assert picture.format == "PNG"


def test_the_checkpoint_says_what_the_last_seed_said(one, tmp_path):
    result = classified(one, "--run", tmp_path / "run", "--seeds", 2)
    saved = torch.load(tmp_path / "run" / "classifier.pt", weights_only=True)
    model = Classifier(ClassifyConfig(**saved["config"]), saved["num_values"])
    model.load_state_dict(saved["model"])
    num_frames = torch.from_numpy(stored(one, "test", "num_frames"))
    said = model(torch.from_numpy(stored(one, "test")), num_frames).argmax(1).numpy()
    counts = np.array(result["seeds"][1]["confusion"])
    assert counts.sum() == 7
    np.testing.assert_array_equal(np.bincount(said, minlength=10), counts.sum(0))
    truth = stored(one, "test", "label")[:, 0]
    np.testing.assert_array_equal(np.bincount(truth, minlength=10), counts.sum(1))
    assert result["seeds"][1]["accuracy"] == np.mean(said == truth)
    line = error_line("evaluate", tmp_path / "run", one, code=2)
    assert line == f"{tmp_path / 'run'}: is a digit classifier; name a run of `mmtrain fit`"


def test_a_seed_fixes_the_result_whatever_was_trained_before(one, tmp_path):
    runs = {"both": ("--seeds", 2), "second": ("--set", "seed=1"), "again": ("--set", "seed=1")}
    lines = {}
    for name, options in runs.items():
        classified(one, "--run", tmp_path / name, *options)
        lines[name] = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    assert lines["again"] == lines["second"] == lines["both"][1:]
    first, second = (json.loads(line)["loss"] for line in lines["both"])
    assert first != second


def test_steps_are_those_of_the_epochs_unless_they_are_named(one, tmp_path):
    options = ("--set", "device=cpu", "--set", "hidden=4", "--set", "batch_size=10")
    for name, asked, last in (("epochs", ("--set", "epochs=3"), 6), ("steps", ("--steps", 5), 5)):
        mmtrain("classify", one, "--run", tmp_path / name, *options, *asked)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["step"] == last


@pytest.mark.parametrize("field", ClassifyConfig.model_fields)
def test_every_field_can_be_set(one, tmp_path, field):
    values = {"cell": "gru", "lr": "0.5", "seed": "3", "steps": "2", "device": "cpu"}
    value = values.get(field, "11")
    mmtrain("classify", one, "--run", tmp_path / "run", *OPTIONS, "--set", f"{field}={value}")
    asked = json.loads((tmp_path / "run" / "config.json").read_text())["classify"]
    assert str(asked[field]) == value


def test_the_table_has_every_seed_and_the_mean(several, tmp_path):
    run = tmp_path / "run"
    said = mmtrain("classify", several, "--run", run, *OPTIONS, "--seeds", 3, "--cell", "rnn")
    result = json.loads((run / "classification.json").read_text())
    numbers = [row.split() for row in said.stdout.splitlines() if "." in row and "│" in row]
    for row, one in zip(numbers, result["seeds"], strict=False):
        assert row[1] == str(one["seed"])
        assert f"{100 * one['accuracy']:.2f}" in row
    assert numbers[3][1] == "mean"
    assert f"{100 * result['accuracy']:.2f}" in numbers[3]
    assert said.stdout.splitlines()[-1].startswith(f"{run}: {result['parameters']} parameters")
    assert said.stderr.count("right, trained in") == 3


def test_a_folder_is_overwritten_only_if_it_holds_a_classifier(one, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    command = ("classify", one, "--run", run, *OPTIONS)
    mmtrain(*command)
    (run / "left.txt").touch()
    assert error_line(*command, code=2) == (
        f"{run}: holds a classifier; overwrite it, or name another folder"
    )
    assert (run / "left.txt").exists()
    mmtrain(*command, "--overwrite")
    assert not (run / "left.txt").exists()
    mmtrain("fit", one, "--run", other, *tiny_options("steps=1", "context=2", "predict=1"))
    for folder, words in ((other, command), (run, ("fit", one, *tiny_options("context=2")))):
        line = error_line(*words, "--run", folder, "--overwrite", code=2)
        assert line == f"{folder}: holds something else; name an empty or a new folder"


def test_a_set_without_labels_is_refused(tmp_path, run_mmgen):
    np.save(tmp_path / "frames.npy", np.zeros((4, 6, 30, 30), np.uint8))
    run_mmgen("import", tmp_path / "frames.npy", tmp_path / "data", "--split", "train=4,test=2")
    line = error_line("classify", tmp_path / "data", "--run", tmp_path / "run", code=2)
    assert line == (f"{tmp_path}/data: has no labels to learn; name a set made by `mmgen generate`")
    assert not (tmp_path / "run").exists()


def test_a_label_that_is_no_class_is_refused(one, tmp_path):
    highest = stored(one, "train", "label").max()
    command = ("classify", one, "--run", tmp_path / "run", *OPTIONS, "--set", "num_classes=2")
    assert error_line(*command, code=2) == (
        f"{one}: holds the label {highest}; set num_classes={highest + 1} or more"
    )
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_ends_the_run(one, tmp_path):
    command = ("classify", one, "--run", tmp_path / "run", *OPTIONS, "--set", "lr=1e38")
    line = error_line(*command, "--cell", "rnn", "--set", "steps=20", code=1)
    assert line == "the loss of seed 0 is nan at step 10; lower lr"


@pytest.mark.slow
def test_rows_of_mnist_are_read_as_the_tutorial_reads_them(tmp_path):
    done = mmtrain("classify", "--rows", "--run", tmp_path / "run", "--device", "cpu", "--json")
    result = json.loads(done.stdout)
    assert (result["parameters"], result["train"], result["test"]) == (214_282, 60_000, 10_000)
    assert result["accuracy"] >= 0.97
