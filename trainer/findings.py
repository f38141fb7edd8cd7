"""What `evaluate`, `probe` and `difficulty` left in a run's folder: untrusted files, so checked.

Each is None, or empty, where the command has not been run.
"""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer.errors import InputError
from trainer.evaluated import EVALUATION_NAME, FOLDER
from trainer.metrics import METRICS
from trainer.scored import BASELINES

_MAX_ROWS = 40  # of a table on the page; the file has all
_MAX_PICTURES = 24
_PNG = b"\x89PNG\r\n\x1a\n"

Numbers = list[float | None]


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Scores(_Read):
    """The scores of one predictor, a field for each of METRICS beside these.

    None is a number that is infinite or undefined.
    """

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, float | None] = Field(init=False)
    interval: dict[str, tuple[float, float] | None] = {}
    per_frame: dict[str, Numbers]

    @model_validator(mode="before")
    @classmethod
    def _leave_what_is_known(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        known = {name: value for name, value in fields.items() if name in cls.model_fields}
        return known | {metric: fields.get(metric) for metric in METRICS}

    @model_validator(mode="after")
    def _has_errors(self) -> Self:
        if not self.per_frame.get("mse"):
            raise ValueError("no mse per frame")
        return self

    def mean(self, metric: str) -> float | None:
        """Return the mean over sequences and frames."""
        return (self.__pydantic_extra__ or {}).get(metric)


class Heads(_Read):
    """The scores of each decoder there is."""

    prediction: Scores | None = None
    reconstruction: Scores | None = None


class Elsewhere(Heads):
    """The scores of a model and of baselines on sequences of another kind."""

    baselines: dict[str, Scores | None]
    skill: float | None = None

    @model_validator(mode="after")
    def _has_what_is_shown(self) -> Self:
        if self.prediction and not {"mean frame", "known dynamics"} <= set(self.baselines):
            raise ValueError("baselines are missing")
        return self


class Evaluation(Heads):
    """The result of `mmtrain evaluate --json`, as far as it is shown."""

    data: str = Field(min_length=1)
    split: str = Field(min_length=1)
    sequences: int = Field(ge=1)
    checkpoint: str = ""
    predictions: str = ""  # the file they are from, where they are no run's
    context: int | None = None
    teacher_forced: Heads | None = None
    baselines: dict[str, Scores | None] | None = None
    entropy_floor: float | None = None
    skill: float | None = None
    skill_interval: tuple[float, float] | None = None
    out_of_domain: dict[str, Elsewhere | None] = {}

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.prediction is None and self.reconstruction is None:
            raise ValueError("no decoder was scored")
        return self

    @property
    def head(self) -> str:
        """What is drawn and ranked: the prediction, where there is one."""
        return "reconstruction" if self.prediction is None else "prediction"

    @property
    def model(self) -> Scores:
        """The scores of the head."""
        scores = self.prediction or self.reconstruction
        assert scores is not None
        return scores

    def predictors(self) -> dict[str, Scores]:
        """Return the model, and the baselines its head has, by name."""
        baselines = (self.baselines or {}) if self.prediction else {}
        ordered = sorted(baselines, key=(*BASELINES, *baselines).index)
        there = {name: scores for name in ordered if (scores := baselines[name]) is not None}
        return {"model": self.model, **there}


def read_evaluation(run: Path) -> Evaluation | None:
    """Read RUN/evaluation.json; InputError if it is damaged."""
    path = run / EVALUATION_NAME
    if not path.is_file():
        return None
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except (ValidationError, ValueError) as error:
        raise InputError(f"{path}: does not parse; run `mmtrain evaluate` again") from error


def read_sequences(run: Path, count: int | None) -> dict[str, NDArray[np.float64]]:
    """Read the table of single sequences: column -> a value a sequence, NaN where there is none.

    count   sequences of the split, None if there is no end of them
    raises  InputError if it is damaged, or names a sequence that the split has not
    """
    path = run / FOLDER / "sequences.csv"
    if not path.is_file():
        return {}
    try:
        header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
        values = [[float(cell or "nan") for cell in row] for row in rows]
        table = dict(zip(header, np.array(values, np.float64).T, strict=True))
        index = table["index"]
        if not ((index >= 0) & (index < (count or math.inf)) & (index % 1 == 0)).all():
            raise ValueError("no index of a sequence")
    except (ValueError, KeyError, csv.Error) as error:
        raise InputError(f"{path}: does not parse; run `mmtrain evaluate` again") from error
    return table


class Table(NamedTuple):
    """The first rows of a table, and how many there are."""

    header: list[str]
    rows: list[list[str]]
    num_rows: int


@dataclass(frozen=True)
class Finding:
    """What another command found: pictures and tables by the names of their files."""

    pictures: dict[str, bytes]
    tables: dict[str, Table]


def read_finding(run: Path, name: str) -> Finding | None:
    """Gather RUN/NAME.json, and what lies in RUN/NAME/; None if there is nothing.

    raises  InputError for a table that does not parse
    """
    folder = run / name
    pictures = {}
    for path in sorted(folder.glob("*.png"))[:_MAX_PICTURES]:
        content = path.read_bytes()
        if content.startswith(_PNG):
            pictures[path.stem] = content
    tables: dict[str, Table] = {}
    files = [run / f"{name}.json", *sorted(folder.glob("*.json")), *sorted(folder.glob("*.csv"))]
    for path in filter(Path.is_file, files):
        rows = _read_table(path, name)
        if len(rows) > 1:  # of two files of a name the CSV stays
            header, *rest = rows
            tables[path.stem] = Table(header, rest[:_MAX_ROWS], len(rest))
    return Finding(pictures, tables) if pictures or tables else None


def _read_table(path: Path, command: str) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".csv":
            return [[_written(cell) for cell in row] for row in csv.reader(io.StringIO(text))]
        return [["", "value"], *_leaves(json.loads(text))]
    except (ValueError, RecursionError, csv.Error) as error:
        raise InputError(f"{path}: does not parse; run `mmtrain {command}` again") from error


def _leaves(value: Any, name: str = "") -> list[list[str]]:
    """Return a row for each number and text in nested objects; lists are left to the pictures."""
    if isinstance(value, Mapping):
        return [
            row
            for key, inner in value.items()
            for row in _leaves(inner, f"{name} / {key}" if name else str(key))
        ]
    return [] if isinstance(value, list) else [[name, _written(value)]]


def _written(value: Any) -> str:
    """Write a number to four digits, anything else as it is."""
    try:
        return str(value) if str(value).isdecimal() else f"{float(value):.4g}"
    except (TypeError, ValueError):
        return "" if value is None else str(value)
