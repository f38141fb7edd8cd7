"""The command line: its contract, its results, and one line with an exit code for bad input."""

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from trainer_data import assert_same, error_line, make_data, mmtrain, tiny_config, tiny_options

from mmgen.config import GeneratorConfig
from trainer import stopping
from trainer.checkpoint import load_checkpoint
from trainer.cli import main
from trainer.config import PRESETS, DataConfig
from trainer.log import read_jsonl
from trainer.metrics import METRICS
from trainer.run_folder import Request, held_folder
from trainer.scored import BASELINES

CONTRACT = {
    "fit": "DATA --run --preset --config --set --steps --device --resume --overwrite --init-from "
    "--reference --deterministic --max-time --dry-run --json",
    "evaluate": "RUN DATA --split --sequences --out-of-domain --lpips --device --json",
    "score": "PREDICTIONS DATA --split --context --lpips -o --out --json",
    "rollout": "RUN DATA -o --out --split --index --frames --device",
    "difficulty": "RUN --axis -o --out --base --sequences --device --json",
    "experiment": "FILE -o --out --cluster --table --json",
    "features": "RUN DATA -o --out --split --sequences --device --json",
    "probe": "RUN DATA -o --out --split --sequences --steps --seed --device --json",
    "classify": "DATA --rows --run --cell --seeds --steps --set --device --overwrite --json",
    "report": "RUN -o --out --device",
    "bench": "--preset --set --device --reference --json",
}

# A command, and below it the line that it must end in.
BAD_INPUT = """
fit {root}/nothing --run {new}
  {root}/nothing: is no data set (no manifest.json); make one with `mmgen generate`
fit {root}/data --run {new} {tiny} --set context=6
  {root}/data: sequences of train have 8 frames, context 6 and predict 3 need 9; lower them
fit {root}/data --run {new} {tiny} --set decoders=reconstruct --set context=9
  {root}/data: sequences of train have 8 frames, context needs 9; lower it
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
  preset 'big' does not exist; choose from: {presets}
fit {root}/data --run {new} --config {root}/bad.toml
  {root}/bad.toml: field 'data.size' does not exist; fields are: {data_fields}
fit {root}/data --run {new} --device gpu
  device: 'gpu' is unknown; use auto, cpu, cuda or cuda:N
fit {root}/data --run {new} {tiny} --device cuda:99
  device: 'cuda:99' is not there ({num_cuda} CUDA devices); use cpu
fit {root}/data --run {new} {tiny} --set precision=tf32
  precision: tf32 needs a CUDA device of compute capability 8.0 or more; use fp32 or bf16
fit {root}/data --run {new} {tiny} --set decoders=predict --set best=reconstruction.mse
  best: reconstruction.mse needs the decoder reconstruct, decoders is predict
fit {root}/data --run {new} {tiny} --set patience=0
  run.patience: input should be greater than or equal to 1, got '0'
fit {root}/data --run {new} {tiny} --init-from {root}/bad.toml
  {root}/bad.toml: is neither a checkpoint nor a state dict (UnpicklingError)
fit {root}/data --run {new} {tiny} --init-from {root}/nothing
  {root}/nothing: cannot be read (No such file or directory)
fit {root}/data --run {new} {tiny} --init-from {root}/model.bin --set hidden=7
  {root}/model.bin: hidden is 6 in the file, 7 here; set it so, or take another
fit {root}/data --run {new} {tiny} --init-from {root}/model.bin --set layers=1
  {root}/model.bin: layers is 2 in the file, 1 here; set it so, or take another
fit {root}/data --run {new} {tiny} --init-from {root}/model.bin --set cell=peephole
  {root}/model.bin: cell is lstm in the file, peephole here; set it so, or take another
fit {root}/wide --run {new} {tiny} --init-from {root}/model.bin
  {root}/model.bin: values of a frame is 900 in the file, 960 here; set it so, or take another
fit {root}/data --run {root}/run --resume {tiny} --init-from {root}/model.bin
  {root}/run: cannot be resumed: it began from weights drawn by its seed, asked for is {bin}
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
score {root}/nothing.npy {root}/data
  {root}/nothing.npy: cannot be read (No such file or directory)
score {root}/nothing.npy {root}/data -o {root}/data/request.json
  {root}/data/request.json: is no folder; name another
difficulty {root}/run --axis size=1,2 -o {new}
  axis 'size' does not exist; choose turn or a field: {fields}
difficulty {root}/run --axis speed=1,-1 -o {new}
  live:srivastava?canvas=30x30&frames=7&speed=-1: speed: -1.0 is out of range, allowed are 0..4096
difficulty {root}/run --axis speed=1 --axis digits=1 --axis noise=1 -o {new}
  3 axes asked for; a curve takes one, a map two
difficulty {root}/run --axis speed -o {new}
  'speed' is no FIELD=VALUE,VALUE, such as speed=1,2,4
difficulty {root}/run --axis speed=1 -o {new} --base live:easy
  live:easy?speed=1: frames are (64, 64), the model of {root}/run was trained on (30, 30)
difficulty {root}/run --axis speed=1 -o {new} --base {root}/data
  {root}/data: is not live data; name live:PRESET or live:FILE.toml
difficulty {root}/data --axis speed=1 -o {new}
  {root}/data: is no run; make one with `mmtrain fit DATA --run {root}/data`
features {root}/run {root}/data -o {root}/nothing/a.h5
  {root}/nothing: is no folder; make it first
features {root}/run {root}/data -o {new}.h5 --sequences 8
  {root}/data: 8 sequences asked for, test has 7
probe {root}/young {root}/data
  {root}/young: has no checkpoint yet; run its `mmtrain fit` again with --resume
probe {root}/run {root}/data --split test
  split: probes are scored on test; take labels from train or val
probe {root}/run {root}/data --sequences 4
  {root}/data: 4 sequences of train are too few, probing needs 5
experiment {root}/nothing.toml -o {new}
  {root}/nothing.toml: cannot be read (No such file or directory)
classify --run {new}
  --rows and DATA are both missing; name one
classify --rows {root}/data --run {new}
  --rows and DATA exclude each other; name one
classify --rows --run {new} --cell tanh
  cell: input should be 'lstm', 'gru' or 'rnn', got 'tanh'
classify --rows --run {root}/data
  {root}/data: holds something else; name an empty or a new folder
classify live:easy --run {new}
  live:easy: live data have no end; say how far to go with --steps N
report {root}/run -o {root}/nothing/page.html
  {root}/nothing: is no folder; make it first
report {root}/run -o {root}
  {root}: is a folder; name a file for the page
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
    weights = load_checkpoint(root / "run" / "checkpoints" / "step-00000002.pt")["model"]
    torch.save(weights, root / "model.bin")
    torch.save({f"module.{name}": weight for name, weight in weights.items()}, root / "inner.bin")
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
    places |= {"presets": ", ".join(PRESETS), "num_cuda": torch.cuda.device_count()}
    places |= {"data_fields": ", ".join(DataConfig.model_fields), "bin": root / "model.bin"}
    words = command.format(**places).split()
    assert error_line(*words, code=2) == line.format(**places)
    if words[0] == "fit":  # and is known without training
        assert error_line(*words, "--dry-run", code=2) == line.format(**places)
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


def test_json_tells_how_a_run_ended_and_nothing_else_speaks(root, tmp_path):
    options = tiny_options("steps=4", "eval_every=1", "lr=1e-30", "patience=2")
    done = mmtrain("fit", root / "data", "--run", tmp_path / "run", *options, "--json")
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert list(result) == ["run", "steps", "ended", "val", "best"]
    assert (result["steps"], result["ended"], result["val"]["step"]) == (3, "patience", 3)
    mse = result["val"]["prediction"]["mse"]
    best = {"step": 1, "metric": "prediction.mse", "value": mse, "looks_since": 2}
    assert result["best"] == best
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000001.pt", "step-00000003.pt"]


def test_a_set_without_val_has_neither_looks_nor_a_best(tmp_path):
    make_data(tmp_path / "data", {"train": 4})
    options = (*tiny_options("steps=2", "eval_every=1", "patience=1"), "--json")
    done = mmtrain("fit", tmp_path / "data", "--run", tmp_path / "run", *options)
    result = json.loads(done.stdout)
    assert (result["steps"], result["val"], result["best"]) == (2, None, None)
    assert not (tmp_path / "run" / "best.json").exists()


@pytest.mark.parametrize("name", ["run/checkpoints/step-00000002.pt", "model.bin", "inner.bin"])
def test_first_weights_are_those_of_a_file(root, tmp_path, name):
    options = (*tiny_options("steps=1", "lr=1e-30"), "--init-from", root / name)
    mmtrain("fit", root / "data", "--run", tmp_path / "run", *options)
    begun = load_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000001.pt")
    assert_same(begun["model"], torch.load(root / "model.bin", weights_only=True))
    request = json.loads((tmp_path / "run" / "config.json").read_text())
    assert request["init_from"] == str(root / name)


def test_a_run_goes_on_without_the_file_of_its_first_weights(root, tmp_path):
    weights = tmp_path / "first.bin"
    weights.write_bytes((root / "model.bin").read_bytes())
    command = ("fit", root / "data", "--run", tmp_path / "run", *tiny_options(), "--resume")
    mmtrain(*command, "--steps", 1, "--init-from", weights)
    weights.unlink()
    assert json.loads(mmtrain(*command, "--steps", 2, "--json").stdout)["steps"] == 2


def test_the_reference_learns_as_the_fast_model_does(root, tmp_path):
    options = tiny_options("steps=4", "log_every=1", "dropout=0.3", "decoder_input=scheduled")
    for name, flags in (("fast", ()), ("plain", ("--reference",))):
        mmtrain("fit", root / "data", "--run", tmp_path / name, *options, *flags)
    fast, plain = (read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("fast", "plain"))
    assert [line["step"] for line in fast] == [1, 2, 3, 4, 4]
    assert (fast[-1].pop("val"), fast[:4]) == (
        {head: pytest.approx(scores, rel=1e-5) for head, scores in plain[-1].pop("val").items()},
        [pytest.approx(line, rel=1e-5) for line in plain[:4]],
    )


@pytest.fixture
def as_it_was():
    """Leave torch, and what tells cuBLAS, as they were."""
    before = torch.are_deterministic_algorithms_enabled(), dict(os.environ)
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.deterministic = False
    os.environ.clear()
    os.environ.update(before[1])


@pytest.mark.usefixtures("as_it_was")
def test_deterministic_runs_are_equal_bit_for_bit(root, tmp_path):
    options = tiny_options("steps=3", "log_every=1", "dropout=0.3", "input_dropout=0.2")
    for name in ("one", "other"):
        command = ("fit", root / "data", "--run", tmp_path / name, *options)
        mmtrain(*command, "--deterministic")
        assert torch.are_deterministic_algorithms_enabled()
    paths = [tmp_path / name / "checkpoints" / "step-00000003.pt" for name in ("one", "other")]
    assert_same(*map(load_checkpoint, paths))


def test_max_time_ends_with_a_checkpoint_and_how_to_go_on(root, tmp_path, monkeypatch):
    """By a clock on which each look takes 0.01 s: a busy machine may need 0.3 s for no step."""
    monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=count(0, 0.01).__next__))
    options = tiny_options("steps=100000", "log_every=1", "eval_every=100000")
    command = ("fit", root / "data", "--run", tmp_path / "run", *options, "--max-time", 0.3)
    done = mmtrain(*command, "--resume")
    (told,) = done.stdout.splitlines()
    steps = read_jsonl(tmp_path / "run" / "metrics.jsonl")[-1]["step"]
    assert told.startswith(f"{tmp_path / 'run'}: {steps} of 100000 steps in the time given; go on ")
    again = json.loads(mmtrain(*command, "--resume", "--json").stdout)
    assert again["ended"] == "max-time"
    assert again["steps"] > steps > 0
    assert "--max-time" in mmtrain(*command[:-1], 0, code=2).stderr


def test_names_may_have_spaces_and_hangul(root, tmp_path):
    folder = tmp_path / "한글 폴더"
    shutil.copytree(root / "data", folder / "자료 1")
    run = folder / "훈련 1"
    mmtrain("fit", folder / "자료 1", "--run", run, *tiny_options("steps=1"))
    told = mmtrain("evaluate", run, folder / "자료 1").stdout
    assert "prediction" in told
    page = folder / "보고 1.html"
    mmtrain("report", run, "-o", page)
    assert "자료 1" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command",
    [
        "fit {root}/data --run /proc/a {tiny}",
        "rollout {root}/run {root}/data -o /proc/a.gif",
        "features {root}/run {root}/data -o /proc/a.h5",
        "difficulty {root}/run --axis speed=1 --sequences 2 -o /proc/a",
        "report {root}/run -o /proc/a.html",
        "classify {root}/data --run /proc/a --steps 1 --set hidden=4 --set batch_size=4",
    ],
)
def test_what_cannot_be_written_is_one_line(root, command):
    """Not even by root, as which tests may run."""
    words = command.format(root=root, tiny=" ".join(tiny_options("steps=1"))).split()
    assert re.match(r"/proc/a\S*: No such file or directory$", error_line(*words, code=1))


def test_a_run_whose_log_is_damaged_is_reported_up_to_there(root, tmp_path):
    run = shutil.copytree(root / "run", tmp_path / "run")
    (run / "metrics.jsonl").write_text('{"step": 1, "prediction_loss": 1.0}\n{"step": "2"}\n')
    mmtrain("report", run, "-o", tmp_path / "page.html")
    assert "step 2" not in (tmp_path / "page_files" / "loss.csv").read_text()


def test_a_run_in_use_is_left_alone(root):
    run = root / "run"
    before = sorted(path.stat().st_mtime_ns for path in run.rglob("*"))
    command = ["fit", root / "data", "--run", run, *tiny_options("steps=2")]
    with held_folder(run, Request(tiny_config("steps=2"), {}), overwrite=False):
        for flags in (["--resume"], ["--overwrite"], ["--resume", "--dry-run"]):
            line = error_line(*command, *flags, code=2)
            assert line == f"{run}: another process trains there; wait, or name another run"
    assert sorted(path.stat().st_mtime_ns for path in run.rglob("*")) == before


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
    assert list(result["baselines"]) == list(BASELINES)
    tables = [result["prediction"], result["reconstruction"], *result["baselines"].values()]
    for table, length in zip(tables, (3, 4, 3, 3, 3, 3, 3), strict=True):
        metrics = [name for name in METRICS if name != "lpips"]
        assert list(table) == [*metrics, "interval", "per_frame"]
        assert all(len(table["per_frame"][metric]) == length for metric in metrics)
        assert all(table["interval"][metric] for metric in ("mse", "mae"))
    text = mmtrain(*command).stdout
    for name, table in (("prediction", tables[0]), ("copy-last", tables[3])):
        numbers = [re.escape(f"{table[metric]:.1f}") for metric in ("mse", "mae", "ce")]
        assert re.search(rf"\b{name}\b.*" + ".*".join(numbers), text), text
    assert "infinite" in text  # the cross-entropy of a black frame
