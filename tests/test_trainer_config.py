"""Every field is set by --set and by file, and says what is wrong with it in one line."""

import pytest

from mmgen.errors import InputError as MmgenInputError
from trainer.config import PRESETS, TrainConfig, field_parts, find_preset, load_config
from trainer.errors import InputError

OTHER = {
    "context": 7,
    "predict": 8,
    "batch_size": 9,
    "hidden": 11,
    "layers": 3,
    "dropout": 0.25,
    "lr": 0.125,
    "schedule": "one-cycle",
    "steps": 12,
    "seed": 2**63 - 1,
    "device": "cpu",
    "precision": "bf16",
    "log_every": 13,
    "eval_every": 14,
    "eval_sequences": 15,
    "checkpoint_every": 16,
    "cache_gb": 3.5,
    "keep_checkpoints": 17,
}


def value_of(config, name):
    return getattr(getattr(config, field_parts()[name]), name)


def test_field_names_are_unique_over_the_parts():
    parts = TrainConfig().model_dump()
    names = [name for fields in parts.values() for name in fields]
    assert len(names) == len(set(names))
    assert sorted(names) == sorted(field_parts()) == sorted(OTHER)


@pytest.mark.parametrize("name", OTHER)
def test_each_field_is_set_by_assignment_and_by_file(name, tmp_path):
    assert value_of(TrainConfig(), name) != OTHER[name]
    changed = load_config(assignments=[f" {name} = {OTHER[name]}"])
    file = tmp_path / "run.toml"
    file.write_text(f"[{field_parts()[name]}]\n{name} = {OTHER[name]!r}\n")
    assert load_config(path=file) == changed
    assert value_of(changed, name) == OTHER[name]
    others = [n for n in OTHER if n != name]
    assert all(value_of(changed, n) == value_of(TrainConfig(), n) for n in others)


def test_assignment_beats_file_beats_preset(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("hidden = 33\n[run]\nsteps = 44\n")
    config = load_config("small", file, ["steps=55", "steps=66"])
    assert (config.model.hidden, config.run.steps) == (33, 66)
    assert config.model.dropout == PRESETS["small"].model.dropout


def test_presets_are_these():
    assert list(PRESETS) == ["tutorial", "small"]
    tutorial, small = (find_preset(name).model_dump() for name in PRESETS)
    assert tutorial["model"] == {"hidden": 2048, "layers": 2, "dropout": 0.1}
    assert tutorial["data"] == {"context": 10, "predict": 10, "batch_size": 128}
    assert tutorial["optimizer"] == {"lr": 5e-4, "schedule": "constant"}
    assert small["model"] == {"hidden": 512, "layers": 2, "dropout": 0.0}
    assert small["data"]["batch_size"] == 32
    assert small["optimizer"] == {"lr": 2e-3, "schedule": "one-cycle"}
    assert small["run"]["precision"] == "auto"


BAD_ASSIGNMENTS = f"""
hidden=0: model.hidden: input should be greater than or equal to 1, got '0'
hidden=2.5: model.hidden: input should be a valid integer, unable to parse string as an integer, \
got '2.5'
context=0: data.context: input should be greater than or equal to 1, got '0'
dropout=1: model.dropout: input should be less than 1, got '1'
lr=0: optimizer.lr: input should be greater than 0, got '0'
lr=inf: optimizer.lr: input should be a finite number, got 'inf'
lr=nan: optimizer.lr: input should be a finite number, got 'nan'
seed=-1: run.seed: input should be greater than or equal to 0, got '-1'
schedule=x: optimizer.schedule: input should be 'constant' or 'one-cycle', got 'x'
precision=x: run.precision: input should be 'auto', 'fp32' or 'bf16', got 'x'
hiden=3: field 'hiden' does not exist; fields are: {", ".join(OTHER)}
hidden: 'hidden' is no FIELD=VALUE, such as digits=3
"""


@pytest.mark.parametrize("written", BAD_ASSIGNMENTS.strip().splitlines())
def test_a_bad_assignment_is_refused_by_name(written):
    assignment, _, line = written.partition(": ")
    with pytest.raises((InputError, MmgenInputError)) as caught:
        load_config(assignments=[assignment])
    assert str(caught.value) == line
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("hiden = 3", "field 'hiden' does not exist; fields are: data, model, optimizer, run"),
        ("[model]\nsize = 3", "field 'model.size' does not exist; fields are: hidden, layers, dro"),
        ("[model]\nlayers = 0", "model.layers: input should be greater than or equal to 1, got 0"),
        ("model = 3", "model: input should be a valid dictionary or instance of ModelConfig, got "),
        ("[model", "is no valid TOML: "),
    ],
)
def test_a_bad_file_is_refused_by_its_name(content, line, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(content)
    with pytest.raises(MmgenInputError) as caught:
        load_config(path=file)
    assert str(caught.value).startswith(f"{file}: {line}")
    assert "\n" not in str(caught.value)
