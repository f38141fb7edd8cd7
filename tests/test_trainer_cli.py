"""The command line: its contract, its results, and one line with an exit code for bad input."""

import json
import re
import subprocess
import sys

import pytest
from trainer_data import error_line, make_data, mmtrain, tiny_options

from mmgen.config import GeneratorConfig
from trainer.cli import main

CONTRACT = {
    "fit": "DATA --run --preset --config --set --steps --device --resume --overwrite --json",
    "evaluate": "RUN DATA --split --sequences --device --json",
    "rollout": "RUN DATA -o --out --split --index --device",
    "report": "RUN -o --out --device",
}

# A command, and below it the line that it must end in.
BAD_INPUT = """
fit {root}/nothing --run {new}
  {root}/nothing: is no data set (no manifest.json); make one with `mmgen generate`
fit {root}/data --run {new} {tiny} --set context=6
  {root}/data: sequences of train have 8 frames, context 6 and predict 3 need 9; lower them
fit {root}/data --run {new} {tiny} --set batch_size=23
  batch_size: 23 is more than the 22 sequences there are; lower batch_size or generate more
fit {root}/data --run {root}/data {tiny}
  {root}/data: holds something else; name an empty or a new folder
fit {root}/data --run {root}/run {tiny}
  {root}/run: holds a run; resume it, overwrite it, or name another folder
fit {root}/data --run {root}/run --resume {tiny} --set hidden=7 --set seed=1
  {root}/run: cannot be resumed: hidden is 6 in the run, asked for is 7
fit {root}/wide --run {root}/run --resume {tiny}
  the run was trained on frames (30, 30), the data set now has (30, 32)
fit {root}/data --run {new} --preset big
  preset 'big' does not exist; choose from: tutorial, small
fit {root}/data --run {new} --config {root}/bad.toml
  {root}/bad.toml: field 'data.size' does not exist; fields are: context, predict, batch_size
fit {root}/data --run {new} --device gpu
  device: 'gpu' is unknown; use auto, cpu, cuda or cuda:N
fit {root}/data --run {new} --steps 0
  run.steps: input should be greater than or equal to 1, got '0'
fit {root}/data --run {new} --resume --overwrite
  --resume and --overwrite exclude each other
fit {root}/data={root} --run {new} {tiny}
  {root}/data={root}: is no data set (no manifest.json); make one with `mmgen generate`
fit {root}/data=0 --run {new} {tiny}
  {root}/data=0: a weight is a number above 0
fit {root}/data=1 {root}/wide=2 --run {new} {tiny}
  {root}/data: frames are (30, 30), of {root}/wide (30, 32); only equal ones can be mixed
fit live:easy --run {new} --device cpu
  live:easy: live data have no end; say how far to go with --steps N
fit {root}/data live:easy --run {new} --preset small --set device=cpu
  live:easy: live data have no end; say how far to go with --steps N
fit live: --run {new} {tiny}
  live:: names no preset; write live:srivastava or live:FILE.toml
fit live:easy?seed=x --run {new} {tiny}
  live:easy?seed=x: seed is no whole number from 0 to 9223372036854775807
evaluate {root}/run live:easy
  live:easy: frames are (64, 64), the model was trained on (30, 30)
evaluate {root}/run live:easy?size=3&canvas=30
  live:easy?size=3&canvas=30: field 'size' does not exist; fields are: {fields}
evaluate {root}/data {root}/data
  {root}/data: is no run; make one with `mmtrain fit DATA --run {root}/data`
evaluate {root}/young {root}/data
  {root}/young: has no checkpoint yet; run its `mmtrain fit` again with --resume
evaluate {root}/garbage {root}/data
  {root}/garbage/checkpoints/step-00000002.pt: is no checkpoint of mmtrain (BadZipFile)
evaluate {root}/run {root}/wide
  {root}/wide: frames are (30, 32), the model was trained on (30, 30)
evaluate {root}/run {root}/data --split tset
  {root}/data: has no split 'tset'; there are: train, val, test
evaluate {root}/run {root}/data --sequences 8
  {root}/data: 8 sequences asked for, test has 7
rollout {root}/run {root}/data -o {new}.gif --index 7
  index: 7 is out of range, test has 7 sequences
rollout {root}/run {root}/data -o {new}.gif --index -1
  index: -1 is out of range, test has 7 sequences
rollout {root}/run {root}/data -o {new}.avi
  {new}.avi: unknown kind of picture; end the name in .gif or .png
report {root}/young -o {new}.html
  {root}/young: has no checkpoint yet; run its `mmtrain fit` again with --resume
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data set, one of another canvas, a run, one without a checkpoint, and damaged ones."""
    root = tmp_path_factory.mktemp("cli")
    make_data(root / "data")
    make_data(root / "wide", fields=("canvas=30x32", "frames=8"))
    shard = make_data(root / "torn", {"test": 7}) / "test" / "test-000000.h5"
    shard.write_bytes(shard.read_bytes()[:-100])
    for name in ("run", "young", "garbage"):
        mmtrain("fit", root / "data", "--run", root / name, *tiny_options("steps=2"))
    (root / "young" / "checkpoints" / "step-00000002.pt").unlink()
    (root / "garbage" / "checkpoints" / "step-00000002.pt").write_bytes(b"]e.")
    (root / "bad.toml").write_text("[data]\nsize = 3\n")
    return root


def test_commands_and_options_are_a_contract():
    found = {
        name: " ".join(
            opt.upper() if opt.isidentifier() else opt for p in c.params for opt in p.opts
        )
        for name, c in main.commands.items()
    }
    assert found == CONTRACT
    for name in CONTRACT:
        assert f"Example: mmtrain {name} " in mmtrain(name, "--help").output


def test_help_and_import_load_no_torch():
    code = (
        "import sys, trainer\nfrom trainer.cli import main\n"
        "for words in (['--help'], ['fit', '--help'], ['--version']):\n"
        "    main(words, standalone_mode=False)\n"
        "print(sorted({'torch', 'numba', 'h5py', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("command", "line"), re.findall(r"^(\S.*)\n  (.*)$", BAD_INPUT, re.M))
def test_bad_input_is_one_line_and_exit_code_2(root, tmp_path, command, line):
    places = {"root": root, "new": tmp_path / "new", "tiny": " ".join(tiny_options("steps=2"))}
    places["fields"] = ", ".join(GeneratorConfig.model_fields)
    assert error_line(*command.format(**places).split(), code=2) == line.format(**places)
    assert list(tmp_path.iterdir()) == []


def test_content_that_does_not_hold_is_exit_code_1(root):
    line = error_line("evaluate", root / "run", root / "torn", code=1)
    assert re.match(rf"{root}/torn/test/test-000000\.h5: has \d+ bytes, the manifest says ", line)


def test_fit_overwrites_resumes_and_says_what_it_reached(root, tmp_path):
    run = tmp_path / "run"
    command = ["fit", root / "data", "--run", run, *tiny_options("steps=9"), "--device", "cpu"]
    first = json.loads(mmtrain(*command, "--steps", 2, "--resume", "--json").stdout)
    assert (first["run"], first["steps"], first["val"]["step"]) == (str(run), 2, 2)
    (run / "evaluation.json").touch()
    again = mmtrain(*command, "--steps", 2, "--overwrite")
    mse = first["val"]["prediction"]["mse"]
    assert again.stdout.startswith(f"{run}: 2 steps; val prediction MSE {mse:.1f}, ")
    assert not (run / "evaluation.json").exists()
    assert "parameters on cpu, products in fp32" in again.stderr
    mmtrain(*command, "--steps", 3, "--resume")
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["step-00000002.pt", "step-00000003.pt"]


def test_live_data_train_and_score_as_stored_ones_do(root, tmp_path):
    """The set has seed 3; live val begins with its five sequences, live test with its seven."""
    live = "live:srivastava?canvas=30&frames=8&seed=3"
    options = [*tiny_options("steps=4", "eval_sequences=5"), "--json"]
    watched = json.loads(mmtrain("fit", live, "--run", tmp_path / "live", *options).stdout)
    assert watched["val"]["step"] == 4
    command = ("evaluate", tmp_path / "live")
    stored = json.loads(mmtrain(*command, root / "data", "--json").stdout)
    scores = json.loads(mmtrain(*command, live, "--sequences", 7, "--json").stdout)
    assert (stored.pop("data"), scores.pop("data")) == (str(root / "data"), live)
    assert scores == stored
    assert json.loads(mmtrain(*command, live, "--json").stdout)["sequences"] == 1000
    mmtrain("rollout", tmp_path / "live", live, "-o", tmp_path / "live.gif", "--index", 6)
    mmtrain("rollout", tmp_path / "live", root / "data", "-o", tmp_path / "kept.gif", "--index", 6)
    assert (tmp_path / "live.gif").read_bytes() == (tmp_path / "kept.gif").read_bytes()


def test_a_file_or_a_field_says_how_long_live_training_takes(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[run]\nsteps = 1\n")
    live = "live:srivastava?canvas=30&frames=8"
    for number, words in enumerate((["--config", path], ["--set", "steps=1"])):
        run = tmp_path / f"run-{number}"
        mmtrain("fit", live, "--run", run, *tiny_options("eval_sequences=2"), *words)
        assert (run / "checkpoints" / "step-00000001.pt").exists()


def test_a_mixture_resumes_and_names_its_parts(root, tmp_path):
    live = "live:srivastava?canvas=30&frames=7..8&seed=3"
    often = ("steps=4", "log_every=1", "checkpoint_every=2", "eval_every=4")
    command = ["fit", f"{root / 'data'}=3", f"{live}=1", *tiny_options(*often)]
    mmtrain(*command, "--run", tmp_path / "whole")
    mmtrain(*command, "--run", tmp_path / "half", "--steps", 2)
    mmtrain(*command, "--run", tmp_path / "half", "--resume")
    logs = [(tmp_path / run / "metrics.jsonl").read_bytes() for run in ("half", "whole")]
    assert logs[0] == logs[1]
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["data"] == {str(root / "data"): 3, live: 1}
    less = ["fit", f"{root / 'data'}=2", *command[2:], "--run", tmp_path / "half", "--resume"]
    assert error_line(*less, code=2).startswith("the stream's weights is ")


def test_evaluate_prints_the_documented_json(root):
    def refuse(name):
        raise AssertionError(f"JSON has no {name}")

    command = ["evaluate", root / "run", root / "data", "--sequences", 5]
    result = json.loads(mmtrain(*command, "--json").stdout, parse_constant=refuse)
    described = {"split", "sequences", "prediction", "reconstruction", "baselines", "entropy_floor"}
    assert described <= result.keys()
    assert (result["split"], result["sequences"]) == ("test", 5)
    assert list(result["baselines"]) == ["black", "copy-last", "mean frame"]
    tables = [result["prediction"], result["reconstruction"], *result["baselines"].values()]
    for table, length in zip(tables, (3, 4, 3, 3, 3), strict=True):
        assert sorted(table) == ["ce", "mae", "mse", "per_frame"]
        assert all(len(table["per_frame"][metric]) == length for metric in ("mse", "mae", "ce"))
    text = mmtrain(*command).stdout
    for name, table in (("prediction", tables[0]), ("copy-last", tables[3])):
        numbers = [re.escape(f"{table[metric]:.1f}") for metric in ("mse", "mae", "ce")]
        assert re.search(rf"\b{name}\b.*" + ".*".join(numbers), text), text
    assert "infinite" in text  # the cross-entropy of a black frame
