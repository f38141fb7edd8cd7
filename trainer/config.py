"""TrainConfig and its parts: every choice of a run, with its unit, default and check."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from mmgen.fields import Frozen, parse_assignments, read_toml, validated
from trainer.errors import InputError


class DataConfig(Frozen):
    """How sequences are cut and grouped."""

    context: int = Field(10, ge=1, description="frames the model sees")
    predict: int = Field(10, ge=1, description="frames after the context that it predicts")
    batch_size: int = Field(128, ge=1, description="sequences of one optimizer step")


class ModelConfig(Frozen):
    """The autoencoder: defaults are those of the 2020 tutorial."""

    hidden: int = Field(2048, ge=1, description="units of each LSTM layer")
    layers: int = Field(2, ge=1, description="LSTM layers of the encoder and of each decoder")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of values dropped between layers")


class OptimizerConfig(Frozen):
    """How the weights change."""

    lr: float = Field(
        5e-4,
        gt=0,
        allow_inf_nan=False,
        description="learning rate of Adam; the peak of a one-cycle",
    )
    schedule: Literal["constant", "one-cycle"] = Field(
        "constant", description="learning rate over the steps: constant, or one-cycle"
    )


class RunConfig(Frozen):
    """How long, where, and what is written on the way."""

    steps: int = Field(10_000, ge=1, description="optimizer steps")
    seed: int = Field(0, ge=0, lt=2**63, description="weights, order of the data and dropout")
    device: str = Field("auto", description="auto (CUDA when it is there), cpu, cuda or cuda:N")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "fp32",
        description="of matrix products; auto: bf16 where the device has instructions for it",
    )
    log_every: int = Field(10, ge=1, description="steps between two lines of metrics.jsonl")
    eval_every: int = Field(500, ge=1, description="steps between two looks at the split val")
    eval_sequences: int = Field(256, ge=1, description="sequences of val looked at")
    checkpoint_every: int = Field(500, ge=1, description="steps between two checkpoints")
    cache_gb: float = Field(
        20.0,
        gt=0,
        allow_inf_nan=False,
        description="disk, in 10^9 bytes, for the shards of remote data sets read last",
    )
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints that stay on disk")


class TrainConfig(Frozen):
    """All of a run; field names are unique over the parts, so `hidden=256` needs no section."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()


PRESETS: dict[str, TrainConfig] = {
    # The model and recipe of the 2020 tutorial.
    "tutorial": TrainConfig(),
    # Learns to see within minutes on two CPU cores.
    "small": TrainConfig(
        data=DataConfig(batch_size=32),
        model=ModelConfig(hidden=512, dropout=0.0),
        optimizer=OptimizerConfig(lr=2e-3, schedule="one-cycle"),
        run=RunConfig(steps=2_000, precision="auto"),
    ),
}

# What --resume may change: it alters neither the weights nor metrics.jsonl's training lines.
RESUMABLE_FIELDS = frozenset({"device", "checkpoint_every", "eval_every", "cache_gb"})


def find_preset(name: str) -> TrainConfig:
    """Return the config of a named preset; InputError lists the names there are."""
    if name not in PRESETS:
        raise InputError(f"preset {name!r} does not exist; choose from: {', '.join(PRESETS)}")
    return PRESETS[name]


def load_config(
    preset: str = "tutorial", path: Path | None = None, assignments: Sequence[str] = ()
) -> TrainConfig:
    """Resolve preset < TOML file (fields alone or in sections) < FIELD=VALUE."""
    fields = find_preset(preset).model_dump()
    if path is not None:
        for section, values in _read_sections(path).items():
            fields[section] |= values
    parts = field_parts()
    for name, value in parse_assignments(assignments).items():
        if name not in parts:
            raise InputError(f"field {name!r} does not exist; fields are: {', '.join(parts)}")
        fields[parts[name]][name] = value
    return parse_config(fields)


def is_set(name: str, path: Path | None, assignments: Sequence[str]) -> bool:
    """Tell whether somebody set a field, in the file or by FIELD=VALUE; a preset is nobody."""
    if name in parse_assignments(assignments):
        return True
    return path is not None and name in _read_sections(path).get(field_parts()[name], {})


def _read_sections(path: Path) -> dict[str, Any]:
    """Read the fields of a TOML file, in sections or without, by section; problems are its."""
    parts = field_parts()
    sections: dict[str, Any] = {}
    for name, value in read_toml(path).items():
        if name in parts:
            sections.setdefault(parts[name], {})[name] = value
        elif isinstance(value, dict) and name in TrainConfig.model_fields:
            sections.setdefault(name, {}).update(value)
        else:
            sections[name] = value
    validated(TrainConfig, sections, path)
    return sections


def parse_config(fields: dict[str, Any]) -> TrainConfig:
    """Check the fields of a run or a caller; InputError names the first bad one."""
    return validated(TrainConfig, fields)


def field_parts() -> dict[str, str]:
    """Return field -> the part of TrainConfig that holds it."""
    return {
        name: part
        for part, field in TrainConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for name in field.annotation.model_fields
    }


def first_difference(stored: TrainConfig, wanted: TrainConfig) -> str | None:
    """Say which field keeps a run from being resumed, None if none does."""
    may_change = RESUMABLE_FIELDS | (
        {"steps"} if wanted.optimizer.schedule == stored.optimizer.schedule == "constant" else set()
    )
    for name, part in field_parts().items():
        there, here = (getattr(getattr(config, part), name) for config in (stored, wanted))
        if name not in may_change and there != here:
            return f"{name} is {there} in the run, asked for is {here}"
    return None
