"""`mmtrain fit --dry-run`: it says what would be trained, and leaves no trace."""

import json
import os
import tomllib

import pytest
import torch
from trainer_data import make_data, mmtrain, tiny_config, tiny_options

from trainer.checkpoint import list_checkpoints, load_checkpoint
from trainer.config import PRESETS, load_config
from trainer.dry_run import as_text, dry_run
from trainer.errors import InputError
from trainer.roofline import count_step


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("dry") / "data", fields=("canvas=30", "frames=7..8"))


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_it_prints_a_file_that_config_reads_again(data, tmp_path):
    options = tiny_options("cell=peephole", "clip_norm=1e-06", "best=prediction.ce", "lr=3e-4")
    done = mmtrain("fit", data, "--run", tmp_path / "run", *options, "--dry-run")
    path = tmp_path / "again.toml"
    path.write_text(done.stdout)
    config = tiny_config("cell=peephole", "clip_norm=1e-06", "best=prediction.ce", "lr=3e-4")
    assert load_config(path=path) == config
    assert tomllib.loads(done.stdout).keys() == {"data", "model", "optimizer", "run"}
    assert list(tmp_path.iterdir()) == [path]


def test_every_preset_reads_back_as_it_was_written(data, tmp_path):
    said = dry_run(tiny_config(), data, tmp_path / "run")
    for name, preset in PRESETS.items():
        path = tmp_path / f"{name}.toml"
        path.write_text(as_text(said | {"config": preset.model_dump()}))
        assert load_config(path=path) == preset


def test_it_says_sizes_and_the_first_batch(data, tmp_path):
    options = tiny_options("batch_size=22")
    done = mmtrain("fit", data, "--run", tmp_path / "run", *options, "--dry-run", "--json")
    result = json.loads(done.stdout)
    config = tiny_config("batch_size=22")
    cost = count_step(config, 30 * 30)
    assert result["config"] == config.model_dump()
    assert result["parameters"] == cost.num_parameters
    assert result["memory_bytes"]["total"] == cost.memory.total
    assert result["first_batch"] == {"step": 1, "frames": [22, 8, 30, 30], "num_frames": [7, 8]}
    assert 0 < result["floor_s"]["total"] < 1
    assert (result["device"], result["precision"], result["ranks"]) == ("cpu", "fp32", 1)
    text = mmtrain("fit", data, "--run", tmp_path / "run", *options, "--dry-run").stdout
    assert f"{cost.num_parameters:,} parameters on cpu, products in fp32; ranks: 1\n" in text
    assert "step 1, uint8 (22, 8, 30, 30), 7 to 8 frames a sequence\n" in text


def test_a_rank_counts_its_part_of_the_batch(data, tmp_path, monkeypatch):
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    for name, value in (place | {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}).items():
        monkeypatch.setitem(os.environ, name, value)
    result = dry_run(tiny_config(), data, tmp_path / "run")
    assert (result["ranks"], result["first_batch"]["frames"][0]) == (2, 2)
    activations = count_step(tiny_config("batch_size=2"), 30 * 30).memory.activations
    assert result["memory_bytes"]["activations"] == activations
    monkeypatch.setitem(os.environ, "RANK", "1")
    done = mmtrain("fit", data, "--run", tmp_path / "run", *tiny_options(), "--dry-run")
    assert done.stdout == ""


def test_it_looks_at_a_run_as_resuming_would_and_touches_nothing(data, tmp_path):
    run = tmp_path / "run"
    mmtrain("fit", data, "--run", run, *tiny_options("steps=2"))
    before = files_of(run)
    longer = tiny_config("steps=3")
    assert dry_run(longer, data, run, resume=True)["first_batch"]["step"] == 3
    assert dry_run(longer, data, run, overwrite=True)["first_batch"]["step"] == 1
    with pytest.raises(InputError, match="run: holds a run; resume it, overwrite it, or name"):
        dry_run(longer, data, run)
    assert files_of(run) == before

    (newest,) = list_checkpoints(run)
    checkpoint = load_checkpoint(newest)
    del checkpoint["model"]["encoder.lstm.weight_hh_l1"]
    torch.save(checkpoint, newest)
    with pytest.raises(InputError, match=r"02\.pt: does not fit its run \(RuntimeError\); remove"):
        dry_run(longer, data, run, resume=True)


def test_a_model_larger_than_the_machine_is_only_counted(data, tmp_path):
    result = dry_run(tiny_config("hidden=200000"), data, tmp_path / "run")
    assert result["memory_bytes"]["total"] > 1e13
