"""An experiment file: variants of a run x difficulties of the data x seeds, and what they mean.

Nothing is opened here but the file itself: it is known before any work which runs there will be.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from mmgen.errors import MmgenError
from mmgen.fields import Frozen, Integer, read_toml, validated
from trainer.address import is_live
from trainer.config import PRESETS, TrainConfig, load_config
from trainer.errors import InputError, TrainerError

HEADS = ("prediction", "reconstruction")
SKILL = "skill"
_MAX_NAME = 60  # characters; two of them and a seed make the name of a folder


def score_places() -> tuple[str, ...]:
    """Return what `mmtrain evaluate --json` has a number for, by its place there."""
    from trainer.metrics import METRICS  # torch takes a second

    scores = [name for name, metric in METRICS.items() if metric.score]
    return (
        *(f"{head}.{score}" for head in HEADS for score in scores),
        *(f"teacher_forced.{head}.{score}" for head in HEADS for score in scores),
        SKILL,
    )


def _plain(value: Any) -> Any:
    """Refuse a list or a table, where one value of a field belongs."""
    if not isinstance(value, (bool, int, float, str)):
        raise ValueError(f"input should be a number, a word, true or false, got {value!r}")
    return value


Value = Annotated[Any, BeforeValidator(_plain)]
Fields = dict[str, Value]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]


class DataRow(Frozen):
    """What runs are trained on, and what they are scored on."""

    train: str = Field(min_length=1, description="DATA, as `mmtrain fit` takes it")
    fixed: Integer | None = Field(
        None,
        ge=1,
        description="sequences of live data that are stored once, to train on them alone, again "
        "and again; unset: all that there is, or without end",
    )
    test: str | None = Field(
        None, min_length=1, description="DATA whose split test scores; unset: the experiment's"
    )

    @model_validator(mode="after")
    def _check_fixed(self) -> Self:
        if self.fixed is not None and not is_live(self.train):
            raise ValueError(
                f"fixed: {self.train} is stored as it is; leave fixed out, or name live: data"
            )
        return self


class ExperimentConfig(Frozen):
    """All of an experiment; a run is preset < set < fields of its variant, and a seed."""

    title: str = Field(min_length=1, description="the question, in a line")
    preset: str = Field("small", description="of `mmtrain fit --preset`")
    set: Fields = Field({}, description="fields of every run, by the names of trainer/config.py")
    seeds: tuple[Seed, ...] = Field(min_length=1, description="a run of each variant for each")
    metrics: tuple[str, ...] = Field(
        ("prediction.mse", SKILL),
        min_length=1,
        description="what table and plots show, by the names of `mmtrain evaluate --json`; rows "
        "are compared by the first",
    )
    test: str | None = Field(
        None,
        min_length=1,
        description="DATA whose split test scores every run; unset: what each is trained on",
    )
    sequences: Integer | None = Field(
        None, ge=1, description="the first ones of the split test; unset: all, 1000 of live data"
    )
    variants: dict[str, Fields] = Field(min_length=1, description="name -> fields that differ")
    data: dict[str, DataRow] = Field(min_length=1, description="name -> what is trained on")

    @field_validator("preset")
    @classmethod
    def _check_preset(cls, name: str) -> str:
        if name not in PRESETS:
            raise ValueError(f"{name!r} does not exist; choose from: {', '.join(PRESETS)}")
        return name

    @field_validator("seeds", "metrics")
    @classmethod
    def _check_twice(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        for value, times in Counter(values).items():
            if times > 1:
                raise ValueError(f"{value} is there {times} times; leave it there once")
        return values

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        places = score_places()
        for value in values:
            if value not in places:
                raise ValueError(f"{value!r} does not exist; metrics are: {', '.join(places)}")
        return values

    @field_validator("variants", "data")
    @classmethod
    def _check_names(cls, named: dict[str, Any]) -> dict[str, Any]:
        folders: dict[str, str] = {}
        for name in named:
            folder = slug(name)
            if not folder or len(name) > _MAX_NAME:
                raise ValueError(
                    f"{name!r} names no folder; take 1 to {_MAX_NAME} characters, a letter a-z or "
                    "a digit among them"
                )
            if (other := folders.setdefault(folder, name)) != name:
                raise ValueError(
                    f"{other!r} and {name!r} would share the folder {folder}; rename one"
                )
        return named

    @model_validator(mode="after")
    def _check_seed(self) -> Self:
        places = {"set": self.set}
        places |= {f"variants.{name}": fields for name, fields in self.variants.items()}
        for place, fields in places.items():
            if "seed" in fields:
                raise ValueError(f"{place}.seed: seeds says it; leave it out here")
        return self

    def test_of(self, row: DataRow) -> str:
        """Return the DATA whose split test scores the runs of a row of data."""
        return row.test or self.test or row.train

    @property
    def cells(self) -> "list[Cell]":
        """All runs; each seed has all of its own before the next one begins.

        raises  InputError that names the variant whose config is refused
        """
        configs = {
            (variant, seed): self._resolve(variant, seed)
            for seed in self.seeds
            for variant in self.variants
        }
        return [
            Cell(variant, data, seed, configs[variant, seed])
            for seed in self.seeds
            for data in self.data
            for variant in self.variants
        ]

    def _resolve(self, variant: str, seed: int) -> TrainConfig:
        fields = self.set | self.variants[variant]
        endless = next((r for r in self.data.values() if is_live(r.train) and not r.fixed), None)
        if endless and "steps" not in fields:
            raise InputError(
                f"variants.{variant}: {endless.train} has no end; say how far to go with steps, "
                "here or in set"
            )
        words = [f"{name}={value}" for name, value in fields.items()]
        try:
            return load_config(self.preset, None, [*words, f"seed={seed}"])
        except (TrainerError, MmgenError) as error:
            raise InputError(f"variants.{variant}: {error}") from error


@dataclass(frozen=True)
class Cell:
    """One run of an experiment: a variant, on a row of data, with a seed."""

    variant: str
    data: str
    seed: int
    config: TrainConfig

    @property
    def name(self) -> str:
        """Name of its folder under FOLDER/runs."""
        return f"{slug(self.variant)}--{slug(self.data)}--seed{self.seed}"


def slug(name: str) -> str:
    """Make a name one of a folder: small letters, digits and points, all else one dash."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")


def load_experiment(path: Path) -> ExperimentConfig:
    """Read and check an experiment file, and the config of every run.

    raises  InputError that names the file and the first thing that is wrong
    """
    experiment = validated(ExperimentConfig, read_toml(path), path)
    try:
        check_metrics(experiment.metrics, experiment.cells)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return experiment


def check_metrics(metrics: Iterable[str], cells: Iterable[Cell]) -> None:
    """Refuse a metric of a decoder that no run has."""
    there = {decoder for cell in cells for decoder in cell.config.model.decoders.split(",")}
    for metric in metrics:
        decoder = "predict" if metric == SKILL or "prediction" in metric else "reconstruct"
        if decoder not in there:
            raise InputError(f"metrics: {metric} needs the decoder {decoder}, no variant has it")
