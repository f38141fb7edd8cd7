"""The examples run as they stand."""

import csv
import os
import re
import sys
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from trainer_data import mmtrain, tiny_options

from trainer.scored import BASELINES

QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the notebook's own machinery
def test_the_quickstart_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Path(sys.executable).parent  # where a shell line finds mmgen and mmtrain
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(QUICKSTART, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    assert "Error" not in printed  # a failing shell line does not fail its cell
    assert (tmp_path / "quickstart" / "rollout.gif").is_file()


def run_example(name: str, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments.split()])
    import_module(name).main()


def test_the_plain_loop_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for steps in (2, 3):
        run_example("plain_loop", f"--steps {steps} --batch-size 2", monkeypatch)
    first, goes_on, last = capsys.readouterr().out.splitlines()
    told = r"squared error per frame \d+\.\d  \(repeating the last frame: \d+\.\d\)"
    assert re.fullmatch(r"step 2/2  " + told, first)
    assert goes_on == "plain_loop.pt: goes on after step 2"
    assert re.fullmatch(r"step 3/3  " + told, last)


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_the_lightning_loop_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightning", reason="the extra `lightning` is not installed")
    monkeypatch.chdir(tmp_path)
    tiny = "--batch-size 2 --val-every 1 --val-sequences 2"
    run_example("lightning_loop", f"{tiny} --steps 1", monkeypatch)
    run_example("lightning_loop", f"{tiny} --steps 2 --resume lightning_loop.ckpt", monkeypatch)
    told = capsys.readouterr().out  # Lightning's bar may stand in front of a line
    assert re.findall(r"(step \d+): squared error", told) == ["step 1", "step 2"]


def test_the_openstl_loaders_say_what_is_in_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("openstl_loaders", "--batch-size 2 --train 5 --val 3 --test 3", monkeypatch)
    train, val, test, speed = capsys.readouterr().out.splitlines()
    assert train.startswith("train: 5 sequences, 2 batches (2, 10, 1, 64, 64) -> ")
    assert val.startswith("val: 3 sequences, 2 batches ")
    assert test.startswith("test: 3 sequences, 2 batches ")
    assert re.fullmatch(r"\d+ sequences/s in this process", speed)


def test_the_convlstm_is_scored_and_drawn_beside_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    live = "live:easy?canvas=32"
    tiny = tiny_options("steps=1", "context=10", "predict=10", "eval_sequences=2")
    mmtrain("fit", live, "--run", "lstm", *tiny)
    given = f"--data {live} --steps 2 --sequences 3 --run lstm --out out"
    run_example("convlstm", given, monkeypatch)
    trained, *scores, written = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"step 2/2  \d+\.\d nats per frame", trained)
    assert [line.partition("  ")[0] for line in scores] == ["ConvLSTM", *BASELINES]
    assert written == "out: convlstm.pt, difficulty.csv, difficulty.json, difficulty.png"
    assert all((tmp_path / "out" / name).is_file() for name in written[5:].split(", "))
    with (tmp_path / "out" / "difficulty.csv").open(newline="") as file:
        drawn = [(row["model"], row["speed"]) for row in csv.DictReader(file)]
    speeds = ("1.0", "2.0", "4.0", "8.0")
    assert drawn == [(model, speed) for speed in speeds for model in ("ConvLSTM", "lstm")]


EXPERIMENT = """
title = "tiny"
preset = "small"
set = { hidden = 8, batch_size = 2, steps = 2, eval_every = 1, eval_sequences = 2 }
seeds = [0, 1]
metrics = ["skill", "prediction.mse"]
sequences = 4
[variants.composite]
"""


@pytest.mark.slow
def test_the_figure_to_cite_is_made_from_two_experiments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, data in {"fixed_sets": "endless", "presets": "easy"}.items():
        live = {"endless": "live:srivastava"}.get(data, f"live:{data}")
        Path(f"{name}.toml").write_text(f'{EXPERIMENT}[data.{data}]\ntrain = "{live}"\n')
        mmtrain("experiment", f"{name}.toml", "-o", f"out/{name}")
    tiny = {"SETS": {"endless": None}, "PRESETS": ("easy",), "SEEDS": (0, 1), "LOOKS": (1, 2)}
    tiny |= {"HIDDEN": 2, "BATCH": 2, "PRESET_STEPS": 1, "VAL": 2, "TEST": 2}
    tiny |= {"AXES": {"speed": [2, 4], "digits": [1]}}
    for name, value in tiny.items():
        monkeypatch.setattr(import_module("skill"), name, value)
    run_example("skill", "out", monkeypatch)
    written = Path("out/skill.csv").read_bytes()
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "out: skill.csv, skill.png"
    rows = list(csv.DictReader(written.decode().splitlines()))
    assert {row["panel"] for row in rows} == {"passes", "speed", "digits", "presets"}
    assert {(row["model"], row["seed"]) for row in rows} == {
        (model, seed) for model in ("LSTM", "ConvLSTM") for seed in "01"
    }
    Path("out/skill.png").unlink()
    run_example("skill", "out", monkeypatch)  # nothing is trained again
    assert Path("out/skill.csv").read_bytes() == written
    assert Path("out/skill.png").is_file()
    assert len([line for line in capsys.readouterr().out.splitlines() if "step" in line]) == 0
