"""Experiments: refused before the first run, finished after any end, compared seed by seed."""

import csv
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from experiment_data import BATCH, FIXED, LIVE, STEPS, TEXT, changed
from PIL import Image
from trainer_data import damaged, error_line, make_data, mmtrain, stored

from mmgen.generate import render
from trainer.address import parse_live
from trainer.config import PRESETS
from trainer.errors import InputError
from trainer.experiment.config import (
    Cell,
    DataRow,
    ExperimentConfig,
    load_experiment,
    score_places,
)
from trainer.experiment.folder import ExperimentFolder
from trainer.experiment.looks import as_notes, find_comparisons
from trainer.experiment.results import Result, Row, Table
from trainer.experiment.run import check_experiment
from trainer.lock import locked
from trainer.seeds import estimate, student_quantile

FIRST = "both--endless--seed0"
NAMES = [
    f"{variant}--{data}--seed{seed}"
    for seed in (0, 1)
    for data in ("endless", "9-fixed")
    for variant in ("both", "only-the-future")
]

# What is changed in the file (=> is read as a newline), and the line that it must end in.
BAD_FILES = """
title = "Does it matter?" -> #
  title: field required
[0, 1] -> [0, 0]
  seeds: 0 is there 2 times; leave it there once
[0, 1] -> [-1]
  seeds: input should be greater than or equal to 0, got -1
[0, 1] -> [true]
  seeds: input should be a number, got True
"tutorial" -> "big"
  preset: 'big' does not exist; choose from: {presets}
sequences = 7 -> runs = 7
  field 'runs' does not exist; fields are: {fields}
fixed = 9 -> fixde = 9
  field 'data.9 fixed.fixde' does not exist; fields are: train, fixed, test
fixed = 9 -> fixed = 0
  data.9 fixed.fixed: input should be greater than or equal to 1, got 0
[data."9 fixed"] -> [data.Endless]
  data: 'endless' and 'Endless' would share the folder endless; rename one
[data."9 fixed"] -> [data."?!"]
  data: '?!' names no folder; take 1 to 60 characters, a letter a-z or a digit among them
[data."9 fixed"] -> [data.endless]
  is no valid TOML: Cannot declare ('data', 'endless') twice (at line 16, column 14)
"live:srivastava?canvas=30&frames=8&seed=3"=>fixed -> "sets/a"=>fixed
  data.9 fixed: fixed: sets/a is stored as it is; leave fixed out, or name live: data
dropout = 0.0 -> seed = 3
  variants.Both.seed: seeds says it; leave it out here
dropout = 0.0 -> dropout = [0.1]
  variants.Both.dropout: input should be a number, a word, true or false, got [0.1]
dropout = 0.0 -> dropout = 1
  variants.Both: model.dropout: input should be less than 1, got '1'
dropout = 0.0 -> loss = "ce"
  variants.Both: loss: ce takes probabilities; set output=sigmoid, or loss=mse
steps = 6 -> log_every = 1
  variants.Both: {live} has no end; say how far to go with steps, here or in set
"prediction.mse", -> "prediction.mes",
  metrics: 'prediction.mes' does not exist; metrics are: {metrics}
dropout = 0.0 -> decoders = "predict"
  metrics: reconstruction.mse needs the decoder reconstruct, no variant has it
"""

# The same for what is found where the data are opened.
BAD_DATA = """
batch_size = 4 -> batch_size = 10
  variants.Both on data.9 fixed: fixed: 9 sequences are fewer than the batch_size 10
context = 4 -> context = 6
  variants.Both on data.endless: {live}: sequences of train have 8 frames, context 6 and predict \
3 need 9; lower them
device = "cpu" -> device = "gpu"
  variants.Both on data.endless: device: 'gpu' is unknown; use auto, cpu, cuda or cuda:N
sequences = 7 -> test = "live:easy"
  variants.Both on data.endless: live:easy: frames of test are (64, 64), of train (30, 30)
sequences = 7 -> test = "live:srivastava?canvas=30&frames=6"
  variants.Both on data.endless: live:srivastava?canvas=30&frames=6: sequences of test have 6 \
frames, context 4 and predict 3 need 7; lower them
sequences = 7 -> sequences = 8=>test = "{root}/data"
  variants.Both on data.endless: sequences: 8 asked for, {root}/data has 7
sequences = 7 -> test = "{root}/nothing"
  data.endless: {root}/nothing: is no data set (no manifest.json); make one with `mmgen generate`
"""


def rows_of(table):
    return re.findall(r"^(\S.*) -> (.*)\n  (.*)$", table, re.M)


def content(root):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def results_of(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A finished experiment, its file, and a stored data set."""
    root = tmp_path_factory.mktemp("experiment")
    (root / "a.toml").write_text(TEXT)
    mmtrain("experiment", root / "a.toml", "-o", root / "done")
    make_data(root / "data")
    return root


@pytest.mark.parametrize(("old", "new", "line"), rows_of(BAD_FILES))
def test_a_bad_file_is_one_line_and_exit_code_2(tmp_path, old, new, line):
    path = tmp_path / "a.toml"
    path.write_text(changed(old, new))
    places = {"presets": ", ".join(PRESETS), "live": LIVE, "metrics": ", ".join(score_places())}
    places["fields"] = ", ".join(ExperimentConfig.model_fields)
    found = error_line("experiment", path, "-o", tmp_path / "new", code=2)
    assert found == f"{path}: {line.format(**places)}"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("old", "new", "line"), rows_of(BAD_DATA))
def test_what_a_run_would_refuse_is_refused_before_the_first(root, tmp_path, old, new, line):
    path = tmp_path / "a.toml"
    path.write_text(changed(old, new).replace("{root}", str(root)))
    found = error_line("experiment", path, "-o", tmp_path / "new", code=2)
    assert found == line.format(root=root, live=LIVE)
    assert list(tmp_path.iterdir()) == [path]


def test_folders_of_others_are_left_alone(root, tmp_path):
    done, path = root / "done", tmp_path / "other.toml"
    before = content(done)
    for old, new, difference in (
        ("hidden = 4", "hidden = 5", "variants.Both.model.hidden is 4, asked for is 5"),
        ("[0, 1]", "[0, 1, 2]", "seeds is [0, 1], asked for is [0, 1, 2]"),
        ("fixed = 9", "fixed = 10", "data.9 fixed.fixed is 9, asked for is 10"),
        ("variants.Both", "variants.Each", "variants.Each is only in the file"),
    ):
        path.write_text(changed(old, new))
        line = f"{done}: holds another experiment ({difference}); name another folder"
        for flags in ((), ("--table",)):
            assert error_line("experiment", path, "-o", done, *flags, code=2) == line
    used = f"{done}: another process is at work there; wait, or name another folder"
    with locked(done / "experiment.json", "never"):
        assert error_line("experiment", root / "a.toml", "-o", done, code=2) == used
    else_ = f"{root / 'data'}: holds something else; name an empty or a new folder"
    assert error_line("experiment", root / "a.toml", "-o", root / "data", code=2) == else_
    assert content(done) == before


def test_a_file_that_comes_to_mean_other_data_is_refused(tmp_path):
    """The address stays, what is drawn changes."""
    kind, path = tmp_path / "kind.toml", tmp_path / "a.toml"
    kind.write_text("canvas = 30\nframes = 8\n")
    path.write_text(TEXT.replace(LIVE, f"live:{kind}").replace("[0, 1]", "[0]"))
    mmtrain("experiment", path, "-o", tmp_path / "out")
    kind.write_text("canvas = 30\nframes = 8\ndigits = 1\n")
    line = error_line("experiment", path, "-o", tmp_path / "out", code=2)
    assert "holds another experiment (data.endless.train_sha256 is " in line


def test_every_run_is_a_normal_one_and_has_a_line(root):
    done = root / "done"
    lines = results_of(done)
    assert sorted(line["run"] for line in lines) == sorted(NAMES)
    for line in lines:
        run = done / "runs" / line["run"]
        printed = mmtrain("evaluate", run, LIVE, "--sequences", 7, "--json").stdout
        scores = json.loads(printed)
        assert float(line["prediction.mse"]) == scores["prediction"]["mse"]
        both = line["variant"] == "Both"
        wanted = str(scores["reconstruction"]["mse"]) if both else ""
        assert line["reconstruction.mse"] == wanted
        assert line["steps"] == str(STEPS)
        passes = STEPS * BATCH / FIXED if line["data"] == "9 fixed" else None
        assert line["passes"] == ("" if passes is None else str(passes))
        config = json.loads((run / "config.json").read_text())["config"]
        assert (str(config["run"]["seed"]), config["model"]["hidden"]) == (line["seed"], 4)


def test_a_fixed_set_is_the_beginning_of_the_endless_stream(root):
    config, seed = parse_live(LIVE)
    for split, count in (("train", FIXED), ("val", 5)):
        wanted = render(config, range(count), split=split, seed=seed).frames
        np.testing.assert_array_equal(stored(root / "done/data/9-fixed", split), wanted)


def from_two(values):
    """Mean and interval of two values, by their t quantile."""
    mean, half = values.mean(), 12.7062 * values.std(ddof=1) / np.sqrt(2)
    interval = pytest.approx([mean - half, mean + half], rel=1e-4)
    return {"mean": pytest.approx(mean), "interval": interval, "count": 2}


def test_the_table_has_means_intervals_and_differences(root):
    told = json.loads(mmtrain("experiment", root / "a.toml", "-o", root / "done", "--json").stdout)
    page = (root / "done" / "table.md").read_text()
    values = {}
    for line in sorted(results_of(root / "done"), key=lambda line: line["seed"]):
        row = values.setdefault((line["variant"], line["data"]), [])
        row.append(float(line["prediction.mse"]))
    order = [("Both", "endless"), ("Both", "9 fixed")]
    order += [("only the future", data) for _, data in order]
    assert [(row["variant"], row["data"]) for row in told["rows"]] == order
    first = np.array(values[order[0]])
    for row, names in zip(told["rows"], order, strict=True):
        mine = np.array(values[names])
        found = row["scores"]["prediction.mse"]
        assert found == from_two(mine)
        if names != order[0]:
            assert row["difference"] == from_two(mine - first)
        low, high = (f"{bound:.1f}" for bound in found["interval"])
        assert f"| {', '.join(names)} | 2 | {mine.mean():.1f} [{low}, {high}] | " in page
    assert told["rows"][2]["scores"]["reconstruction.mse"] is None
    assert (told["missing"], told["rows"][0]["difference"]) == ({}, None)
    passes = STEPS * BATCH / FIXED
    assert [row["passes"] for row in told["rows"]] == [None, pytest.approx(passes)] * 2


def test_the_same_command_again_changes_no_run(root):
    runs = root / "done" / "runs"
    before = content(runs)
    done = mmtrain("experiment", root / "a.toml", "-o", root / "done")
    assert content(runs) == before
    assert "Does it matter?" in done.stdout
    assert "run 1 of" not in done.stderr


def test_other_metrics_and_another_title_make_another_table_of_the_same_runs(root, tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(
        changed('"prediction.mse", ', "").replace("Does it matter?", "And the past | to come?")
    )
    command = ("experiment", path, "-o", root / "done", "--table")
    told = json.loads(mmtrain(*command, "--json").stdout)
    assert list(told["rows"][0]["scores"]) == ["reconstruction.mse"]
    assert (root / "done" / "table.md").read_text().startswith("# And the past | to come?\n")


def test_pictures_are_drawn(root):
    for name in ("results.png", "curves.png"):
        with Image.open(root / "done" / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 10


def test_the_table_of_what_is_not_finished_is_refused(root, tmp_path):
    command = ("experiment", root / "a.toml", "--table", "-o")
    line = f"{tmp_path / 'new'}: holds no experiment; leave out --table to make it"
    assert error_line(*command, tmp_path / "new", code=2) == line
    part = tmp_path / "part"
    (part / "runs").mkdir(parents=True)
    (part / "experiment.json").write_bytes((root / "done" / "experiment.json").read_bytes())
    assert error_line(*command, part, code=2) == (
        f"{part}: 8 of 8 runs are not finished: {FIRST}: not made yet; leave out --table to go on "
        "with what is missing"
    )
    usage = mmtrain(*command, part, "--cluster", "tcp://a:1", code=2).stderr
    assert usage.endswith("Error: --table trains nothing; leave out --cluster\n")


# The fourth run is trained, and ends before it is scored.
KILLED = """
import os, signal, sys
from trainer.cli import main
from trainer.experiment import run

scored, evaluate_run = [], run.evaluate_run

def kill_at_the_fourth(*words):
    scored.append(words)
    if len(scored) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate_run(*words)

run.evaluate_run = kill_at_the_fourth
main(sys.argv[1:])
"""


def test_a_killed_experiment_is_finished_by_the_same_command(root, start_python, tmp_path):
    out = tmp_path / "out"
    command = ("experiment", root / "a.toml", "-o", out)
    begun = start_python("-c", KILLED, *command)
    assert begun.wait(timeout=120) == -signal.SIGKILL
    finished = [out / "runs" / name for name in NAMES[:3]]
    assert sorted(path.parent for path in out.glob("runs/*/result.json")) == sorted(finished)
    before = [content(run) for run in finished]
    mmtrain(*command)
    assert [content(run) for run in finished] == before
    assert (out / "results.csv").read_bytes() == (root / "done" / "results.csv").read_bytes()


def test_a_signal_ends_a_run_with_a_checkpoint_and_how_to_go_on(tmp_path):
    path, out = tmp_path / "a.toml", tmp_path / "out"
    path.write_text(changed(f"steps = {STEPS}", "steps = 1000000"))

    def interrupt():
        while not list(out.glob("runs/*/checkpoints/*.pt")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    line = error_line("experiment", path, "-o", out, code=130)
    how = "ended by a signal: what is complete stays; the same command goes on"
    assert line == f"{FIRST}: {how}"
    assert [run.name for run in (out / "runs").iterdir()] == [FIRST]
    assert not (out / "failed").exists()


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path):
    path, out = tmp_path / "a.toml", tmp_path / "out"
    wild = changed("dropout = 0.0", "lr = 1e30\nmax_skipped = 1").replace("[0, 1]", "[5]")
    path.write_text(wild)
    for _ in range(2):
        done = mmtrain("experiment", path, "-o", out, code=1)
        last = done.stderr.splitlines()[-1]
        assert last.startswith(
            f"Error: {out}: 2 of 4 runs are not finished: both--endless--seed5: step "
        )
        assert last.endswith("; the same command tries again what is missing")
    assert [line["variant"] for line in results_of(out)] == ["only the future"] * 2
    page = (out / "table.md").read_text()
    assert "| Both, endless | 0 | - | - | - | - | - |" in page
    assert re.search(
        r"\| only the future, endless \| 1 \| [\d.]+ \(n = 1\) \| - \| first row", page
    )
    assert re.search(r"Missing:\n\n- both--endless--seed5: step \d: .* not finite", page)
    assert not list((out / "runs").glob("both--*/result.json"))


def test_what_has_failed_is_made_once_the_reason_is_gone(tmp_path):
    data = make_data(tmp_path / "data", shard_size=1)
    path, out = tmp_path / "a.toml", tmp_path / "out"
    endless = TEXT.partition('[data."9 fixed"]')[0]
    path.write_text(endless.replace("[0, 1]", f'[0]\ntest = "{data}"'))
    with damaged(data, "test", 3):
        line = error_line("experiment", path, "-o", out, code=1)
        assert line.startswith(f"{out}: 2 of 2 runs are not finished: {FIRST}: {data}/test/")
        assert "test-000003.h5: " in (out / "failed" / f"{FIRST}.txt").read_text()
    mmtrain("experiment", path, "-o", out)
    assert len(results_of(out)) == 2
    assert list((out / "failed").iterdir()) == []


def test_a_result_that_does_not_parse_is_named(root):
    path = root / "done" / "runs" / FIRST / "result.json"
    whole = path.read_bytes()
    path.write_text("{}")
    try:
        line = error_line("experiment", root / "a.toml", "-o", root / "done", code=2)
    finally:
        path.write_bytes(whole)
    assert line == f"{path}: does not parse; delete it, and the run is scored again"


@pytest.mark.parametrize(
    ("freedom", "quantile"),  # of printed tables
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (30, 2.042)],
)
def test_quantiles_are_those_of_printed_tables(freedom, quantile):
    assert student_quantile(0.95, freedom) == pytest.approx(quantile, abs=6e-4)


def test_an_interval_by_hand():
    """1, 2, 3, 4: standard deviation 1.290994, standard error 0.645497, times 3.182446."""
    found = estimate([1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.count) == (2.5, 4)
    assert found.interval == pytest.approx((0.445739, 4.554261), abs=1e-5)
    assert estimate([7.0]).interval is None


@pytest.fixture
def invented(root):
    """A table whose fixed rows differ from the endless one, seed by seed, as a test says."""

    def make(*differences):
        experiment = load_experiment(root / "a.toml")
        data = {"endless": DataRow(train=LIVE), "fixed": DataRow(train=LIVE, fixed=10)}
        fields = {"seeds": (0, 1, 2), "data": data, "variants": {"Both": {}}}
        experiment = experiment.model_copy(update=fields)
        config = experiment.cells[0].config
        rows = []
        for name, by_look in (("endless", [(0, 0, 0)] * len(differences)), ("fixed", differences)):
            results = []
            for seed in (0, 1, 2):
                looks = [
                    {"step": 5 * n, "val": {"prediction": {"mse": 100 * seed + values[seed]}}}
                    for n, values in enumerate(by_look, 1)
                ]
                cell = Cell("Both", name, seed, config)
                count = experiment.data[name].fixed
                results.append(Result(cell, 5 * len(differences), count, {}, looks))
            rows.append(Row("Both", name, tuple(results)))
        return Table(experiment, tuple(rows), {})

    return make


def test_rows_part_where_differences_begin_to_stay_on_one_side(invented):
    """Each mean is far from 0 beside its spread, but for the second; seeds are 100 apart."""
    table = invented((5, 5.1, 5.2), (-1, 0, 1), (-4, -4.1, -4.2), (3, 3.1, 3.2), (4, 4.1, 4.3))
    (found,) = find_comparisons(table)
    assert (found.row.data, found.other.data) == ("fixed", "endless")
    assert (found.parting, found.passes) == (20, 20 * BATCH / 10)
    half = 4.302653 * np.std([4, 4.1, 4.3], ddof=1) / np.sqrt(3)
    assert found.last.interval[0] == pytest.approx(np.mean([4, 4.1, 4.3]) - half, rel=1e-5)
    (note,) = as_notes(table)
    assert note.startswith(
        "fixed: prediction.mse on val stays above that of endless from step 20 on (8.0 passes): +4"
    )


def test_rows_that_are_not_apart_at_the_end_are_said_to_be_a_tie(invented):
    table = invented((3, 3.1, 3.2), (-1, 0, 1))
    (found,) = find_comparisons(table)
    assert (found.parting, found.passes) == (None, 10 * BATCH / 10)
    (note,) = as_notes(table)
    assert note == (
        "fixed: prediction.mse on val is not apart from that of endless at the end (4.0 passes): "
        "+0.0 [-2.5, +2.5] at the last look"
    )


def test_rows_on_other_data_are_not_compared_while_they_train(invented):
    table = invented((3, 3.1, 3.2))
    data = table.experiment.data | {"fixed": DataRow(train=f"{LIVE}&digits=1", fixed=10)}
    experiment = table.experiment.model_copy(update={"data": data})
    assert find_comparisons(Table(experiment, table.rows, {})) == []


def test_a_launcher_of_ranks_is_refused(root, tmp_path, monkeypatch):
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    for name, value in (ranks | {"MASTER_ADDR": "localhost", "MASTER_PORT": "9"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        InputError, match="is no job for torchrun: each of its runs has one process"
    ):
        check_experiment(load_experiment(root / "a.toml"), ExperimentFolder(tmp_path / "out"))


SHIPPED = sorted((Path(__file__).parent.parent / "experiments").glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_experiments_are_ready_to_run(path, tmp_path):
    experiment = load_experiment(path)
    check_experiment(experiment, ExperimentFolder(tmp_path / "out"))
    assert experiment.title.endswith("?")
    assert path.read_text().startswith("# ")
    assert experiment.seeds == (0, 1, 2)


def test_the_shipped_experiments_are_the_documented_ones():
    names = ["cells", "decoders", "digits", "fixed_sets", "loss", "presets", "teacher_forcing"]
    assert [path.stem for path in SHIPPED] == names
