"""Every field is set by --set and by file, and says what is wrong with it in one line."""

import json

import pytest
from hypothesis import given
from trainer_strategies import model_configs

from mmgen.errors import InputError as MmgenInputError
from trainer.config import (
    PRESETS,
    ModelConfig,
    TrainConfig,
    field_parts,
    find_preset,
    is_set,
    load_config,
    parse_config,
)
from trainer.errors import InputError

OTHER = {
    "context": 7,
    "reconstruct": 6,
    "predict": 8,
    "batch_size": 9,
    "hidden": 11,
    "layers": 3,
    "cell": "peephole",
    "decoders": "predict",
    "decoder_input": "scheduled",
    "feedback": "detached",
    "output": "sigmoid",
    "reverse": False,
    "copy_initial_state": True,
    "dropout": 0.25,
    "input_dropout": 0.125,
    "output_dropout": 0.5,
    "init": "xavier",
    "forget_bias": -0.5,
    "output_bias": "mean",
    "loss": "ce",
    "loss_reduction": "sum",
    "reconstruct_weight": 0.0,
    "predict_weight": 2.5,
    "optimizer": "adamw",
    "lr": 0.125,
    "schedule": "one-cycle",
    "warmup": 18,
    "weight_decay": 0.01,
    "clip_norm": 1.5,
    "ema": 0.999,
    "accumulate": 4,
    "truth_start": 0.75,
    "truth_end": 0.25,
    "truth_steps": 19,
    "steps": 12,
    "seed": 2**63 - 1,
    "device": "cpu",
    "precision": "bf16",
    "log_every": 13,
    "eval_every": 14,
    "eval_sequences": 15,
    "best": "reconstruction.ce",
    "patience": 20,
    "checkpoint_every": 16,
    "cache_gb": 3.5,
    "keep_checkpoints": 17,
    "max_skipped": 21,
    "tensorboard": True,
}
NEEDS = {"loss": "output=sigmoid"}  # what else has to be set


def value_of(config, name):
    return getattr(getattr(config, field_parts()[name]), name)


def test_field_names_are_unique_over_the_parts():
    parts = TrainConfig().model_dump()
    names = [name for fields in parts.values() for name in fields]
    assert len(names) == len(set(names))
    assert sorted(names) == sorted(field_parts()) == sorted(OTHER)


@pytest.mark.parametrize("name", OTHER)
def test_each_field_is_set_by_assignment_and_by_file(name, tmp_path):
    needed = [NEEDS[name]] if name in NEEDS else []
    before = load_config(assignments=needed)
    assert value_of(before, name) != OTHER[name]
    changed = load_config(assignments=[f" {name} = {OTHER[name]}", *needed])
    assert value_of(changed, name) == OTHER[name]
    assert all(value_of(changed, n) == value_of(before, n) for n in OTHER if n != name)
    file = tmp_path / "run.toml"
    for section in (f"[{field_parts()[name]}]\n", ""):
        file.write_text(f"{section}{name} = {json.dumps(OTHER[name])}\n")
        assert load_config(path=file, assignments=needed) == changed
        assert is_set(name, file, [])
        assert not is_set("hidden" if name != "hidden" else "layers", file, [])
    assert is_set(name, None, [f"{name}=0"])
    assert not is_set(name, None, [])


@given(model_configs())
def test_every_form_survives_json(config):
    whole = TrainConfig.model_construct(model=config)
    assert ModelConfig.model_validate(json.loads(config.model_dump_json())) == config
    fields = json.loads(whole.model_dump_json())["model"]
    best = "prediction.mse" if config.predicts else "reconstruction.mse"
    parsed = parse_config({"model": fields})
    assert (parsed.model, parsed.best_metric) == (config, best)


@pytest.mark.parametrize(
    "written", ["predict,reconstruct", " reconstruct , predict ", ["predict", "reconstruct"]]
)
def test_decoders_are_named_in_any_order(written):
    assert ModelConfig(decoders=written).decoders == "reconstruct,predict"
    assert ModelConfig(decoders=written) == ModelConfig()


@pytest.mark.parametrize(
    ("decoders", "reconstructs", "predicts"),
    [("reconstruct", True, False), ("predict", False, True), ("reconstruct,predict", True, True)],
)
def test_a_model_knows_its_decoders(decoders, reconstructs, predicts):
    model = ModelConfig(decoders=decoders)
    assert (model.reconstructs, model.predicts) == (reconstructs, predicts)


def test_assignment_beats_file_beats_preset(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("hidden = 33\n[run]\nsteps = 44\n")
    config = load_config("small", file, ["steps=55", "steps=66"])
    assert (config.model.hidden, config.run.steps) == (33, 66)
    assert config.model.dropout == PRESETS["small"].model.dropout


PAPER = {
    "batch_size": 80,
    "layers": 1,
    "cell": "peephole",
    "decoder_input": "teacher",
    "feedback": "sigmoid",
    "output": "sigmoid",
    "dropout": 0.0,
    "init": "paper",
    "loss": "ce",
    "loss_reduction": "sum",
    "optimizer": "paper-sgd",
    "lr": 1e-4,
    "schedule": "staircase",
    "weight_decay": 1e-4,
    "steps": 1_000_000,
    "best": "prediction.ce",
}
PUBLISHED = {
    "tutorial": {},
    "paper-1layer": PAPER,
    "paper-2layer": {name: value for name, value in PAPER.items() if name != "layers"},
    "shi-fc-lstm": {
        "batch_size": 16,
        "cell": "peephole",
        "decoders": "predict",
        "decoder_input": "unconditional",
        "output": "sigmoid",
        "dropout": 0.0,
        "output_bias": "mean",
        "loss": "ce",
        "lr": 1e-3,
        "steps": 100_000,
        "best": "prediction.ce",
    },
    "small": {
        "batch_size": 32,
        "hidden": 512,
        "dropout": 0.0,
        "lr": 2e-3,
        "schedule": "one-cycle",
        "steps": 2000,
        "precision": "auto",
    },
}


def test_the_tutorials_values_are_the_defaults():
    assert find_preset("tutorial") == TrainConfig()
    expected = {"context": 10, "predict": 10, "batch_size": 128, "hidden": 2048, "layers": 2}
    expected |= {"cell": "lstm", "decoders": "reconstruct,predict", "decoder_input": "free"}
    expected |= {"feedback": "linear", "output": "linear", "reverse": True, "dropout": 0.1}
    expected |= {"copy_initial_state": False, "input_dropout": 0, "output_dropout": 0}
    expected |= {"init": "torch", "loss": "mse", "loss_reduction": "mean", "optimizer": "adam"}
    expected |= {"lr": 5e-4, "schedule": "constant", "weight_decay": 0, "steps": 10_000}
    assert {name: value_of(TrainConfig(), name) for name in expected} == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_these(preset):
    config, default = find_preset(preset), TrainConfig()
    changed = {n for n in field_parts() if value_of(config, n) != value_of(default, n)}
    assert {name: value_of(config, name) for name in changed} == PUBLISHED[preset]
    assert list(PRESETS) == list(PUBLISHED)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_survives_a_file(preset, tmp_path):
    """And a file that says all beats any other preset."""
    config = find_preset(preset)
    file = tmp_path / "run.toml"
    for part, fields in config.model_dump().items():
        lines = [f"{n} = {json.dumps(value)}" for n, value in fields.items() if value is not None]
        with file.open("a") as out:
            out.write("\n".join([f"[{part}]", *lines, ""]))
    assert load_config("tutorial", file) == config


BAD_ASSIGNMENTS = f"""
hidden=0: model.hidden: input should be greater than or equal to 1, got '0'
hidden=2.5: model.hidden: input should be a valid integer, unable to parse string as an integer, \
got '2.5'
context=0: data.context: input should be greater than or equal to 1, got '0'
decoders=x: model.decoders: input should be 'reconstruct,predict', 'reconstruct' or 'predict', \
got 'x'
decoders=: model.decoders: input should be 'reconstruct,predict', 'reconstruct' or 'predict', got ''
cell=x: model.cell: input should be 'lstm', 'peephole', 'gru' or 'rnn', got 'x'
decoder_input=x: model.decoder_input: input should be 'free', 'unconditional', 'teacher' or \
'scheduled', got 'x'
feedback=x: model.feedback: input should be 'linear', 'sigmoid' or 'detached', got 'x'
reverse=x: model.reverse: input should be a valid boolean, unable to interpret input, got 'x'
dropout=1: model.dropout: input should be less than 1, got '1'
output_dropout=-0.1: model.output_dropout: input should be greater than or equal to 0, got '-0.1'
forget_bias=nan: model.forget_bias: input should be a finite number, got 'nan'
lr=0: optimizer.lr: input should be greater than 0, got '0'
lr=inf: optimizer.lr: input should be a finite number, got 'inf'
lr=nan: optimizer.lr: input should be a finite number, got 'nan'
predict_weight=-1: optimizer.predict_weight: input should be greater than or equal to 0, got '-1'
clip_norm=0: optimizer.clip_norm: input should be greater than 0, got '0'
ema=1: optimizer.ema: input should be less than 1, got '1'
truth_end=1.5: optimizer.truth_end: input should be less than or equal to 1, got '1.5'
seed=-1: run.seed: input should be greater than or equal to 0, got '-1'
schedule=x: optimizer.schedule: input should be 'constant', 'cosine', 'one-cycle' or 'staircase', \
got 'x'
precision=x: run.precision: input should be 'auto', 'fp32', 'tf32', 'bf16' or 'fp16', got 'x'
best=mse: run.best: input should be 'prediction.mse', 'prediction.ce', 'reconstruction.mse' or \
'reconstruction.ce', got 'mse'
patience=0: run.patience: input should be greater than or equal to 1, got '0'
hiden=3: field 'hiden' does not exist; fields are: {", ".join(OTHER)}
hidden: 'hidden' is no FIELD=VALUE, such as digits=3
"""

# Fields that make no sense together, and some that do.
BAD_FORMS = """
reconstruct=11: data: reconstruct 11 is more than the context of 10 frames
forget_bias=1 cell=gru: model: cell gru has no forget gate; leave forget_bias unset
forget_bias=1 cell=rnn: model: cell rnn has no forget gate; leave forget_bias unset
decoder_input=unconditional feedback=sigmoid: model: decoder_input unconditional feeds nothing \
back; set feedback=linear
decoder_input=unconditional feedback=detached: model: decoder_input unconditional feeds nothing \
back; set feedback=linear
warmup=5 schedule=one-cycle: optimizer: warmup is for the schedules constant and cosine, not \
one-cycle; set warmup=0
warmup=5 schedule=staircase: optimizer: warmup is for the schedules constant and cosine, not \
staircase; set warmup=0
loss=ce: loss: ce takes probabilities; set output=sigmoid, or loss=mse
best=reconstruction.ce decoders=predict: best: reconstruction.ce needs the decoder reconstruct, \
decoders is predict
best=prediction.mse decoders=reconstruct: best: prediction.mse needs the decoder predict, \
decoders is reconstruct
reconstruct=3 decoders=predict: reconstruct: decoders is predict; leave it unset
predict_weight=0 decoders=predict: predict_weight: 0 leaves nothing to learn
predict_weight=0 reconstruct_weight=0: reconstruct_weight, predict_weight: 0 leaves nothing to learn
accumulate=3: accumulate: 3 parts do not divide batch_size 128
"""
GOOD_FORMS = """
reconstruct=11 context=11
forget_bias=1 cell=peephole
decoder_input=unconditional feedback=linear
warmup=5 schedule=cosine
loss=ce output=sigmoid
loss=mse output=sigmoid
best=reconstruction.ce decoders=reconstruct
reconstruct=3 decoders=reconstruct
predict_weight=0 reconstruct_weight=1
reconstruct_weight=0 decoders=predict
accumulate=3 batch_size=6
"""


@pytest.mark.parametrize("written", BAD_ASSIGNMENTS.strip().splitlines())
def test_a_bad_assignment_is_refused_by_name(written):
    assignment, _, line = written.partition(": ")
    with pytest.raises((InputError, MmgenInputError)) as caught:
        load_config(assignments=[assignment])
    assert str(caught.value) == line
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("written", BAD_FORMS.strip().splitlines())
def test_fields_that_make_no_sense_together_are_refused(written):
    assignments, _, line = written.partition(": ")
    with pytest.raises(MmgenInputError) as caught:
        load_config(assignments=assignments.split())
    assert str(caught.value) == line


@pytest.mark.parametrize("written", GOOD_FORMS.strip().splitlines())
def test_fields_that_make_sense_together_are_taken(written):
    config = load_config(assignments=written.split())
    for assignment in written.split():
        name, _, value = assignment.partition("=")
        assert str(value_of(config, name)).removesuffix(".0") == value


@pytest.mark.parametrize(
    ("content", "assignment"),
    [
        ("reconstruct = 11", "context=12"),
        ("[data]\nreconstruct = 11", "context=12"),
        ("[model]\ncell = 'gru'\nforget_bias = 1.0", "cell=lstm"),
        ("feedback = 'sigmoid'\ndecoder_input = 'unconditional'", "decoder_input=free"),
        ("[optimizer]\nwarmup = 5\nschedule = 'one-cycle'", "schedule=cosine"),
        ("loss = 'ce'", "output=sigmoid"),
        ("best = 'reconstruction.mse'\ndecoders = ['predict']", "decoders=reconstruct"),
        ("predict_weight = 0\nreconstruct_weight = 0", "predict_weight=1"),
        ("[data]\nbatch_size = 30\n[optimizer]\naccumulate = 4", "accumulate=3"),
    ],
)
def test_a_file_may_make_sense_only_with_assignments(content, assignment, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(content)
    name, _, value = assignment.partition("=")
    assert str(value_of(load_config(path=file, assignments=[assignment]), name)) in (
        value,
        f"{value}.0",
    )
    with pytest.raises(MmgenInputError):
        load_config(path=file)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("hiden = 3", "field 'hiden' does not exist; fields are: data, model, optimizer, run"),
        ("[model]\nsize = 3", "field 'model.size' does not exist; fields are: hidden, layers, cel"),
        ("[model]\nlayers = 0", "model.layers: input should be greater than or equal to 1, got 0"),
        ("model = 3", "model: input should be a valid dictionary or instance of ModelConfig, got "),
        ("[model]\nhidden = true", "model.hidden: input should be a number, got True"),
        ("dropout = false", "model.dropout: input should be a number, got False"),
        ("forget_bias = true", "model.forget_bias: input should be a number, got True"),
        ("[data]\nsteps = 3", "field 'data.steps' does not exist; fields are: context, reconst"),
        ("decoders = []", "model.decoders: input should be 'reconstruct,predict', 'reconstruct' "),
        ("loss = 'ce'\nhidden = 0", "model.hidden: input should be greater than or equal to 1, go"),
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
