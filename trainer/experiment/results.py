"""What the runs of an experiment have left: a row for each variant and data, means over seeds.

Rows are compared seed by seed: what a seed draws well or badly, it draws for both.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainer.errors import InputError
from trainer.experiment.config import Cell, ExperimentConfig, score_places
from trainer.experiment.folder import ExperimentFolder
from trainer.log import read_looks
from trainer.seeds import Estimate, estimate


@dataclass(frozen=True)
class Result:
    """A finished run.

    train_sequences  how many it was trained on; None without end
    scores           as `mmtrain evaluate --json` prints them
    looks            the lines of metrics.jsonl that are looks at val
    """

    cell: Cell
    steps: int
    train_sequences: int | None
    scores: dict[str, Any]
    looks: list[dict[str, Any]]

    @property
    def passes(self) -> float | None:
        """How often it saw each of its sequences; None where each is new."""
        return self.passes_at(self.steps)

    def passes_at(self, step: int) -> float | None:
        """Return the same after a step."""
        if self.train_sequences is None:
            return None
        return step * self.cell.config.data.batch_size / self.train_sequences


@dataclass(frozen=True)
class Row:
    """The finished runs of one variant on one row of data, by seed."""

    variant: str
    data: str
    results: tuple[Result, ...]

    def values(self, metric: str) -> dict[int, float]:
        """Return seed -> value, of the seeds that have one."""
        found = ((result.cell.seed, find(result.scores, metric)) for result in self.results)
        return {seed: value for seed, value in found if value is not None}

    def estimate(self, metric: str) -> Estimate | None:
        """Return mean and interval over the seeds; None if no seed has a value."""
        values = list(self.values(metric).values())
        return estimate(values) if values else None

    @property
    def passes(self) -> float | None:
        """Passes over its training set, None if there are none or nothing is finished."""
        return self.results[0].passes if self.results else None


@dataclass(frozen=True)
class Table:
    """All that is known of an experiment.

    missing  runs that are not finished, and why
    """

    experiment: ExperimentConfig
    rows: tuple[Row, ...]
    missing: Mapping[str, str]

    @property
    def results(self) -> Iterator[Result]:
        """The finished runs, row by row."""
        return (result for row in self.rows for result in row.results)

    @cached_property
    def references(self) -> dict[str, Row]:
        """The test DATA -> the first row that it scores, to which others are compared."""
        found: dict[str, Row] = {}
        for row in self.rows:
            if row.values(self.experiment.metrics[0]):
                found.setdefault(self.test_of(row), row)
        return found

    def test_of(self, row: Row) -> str:
        """Return the DATA that scores a row."""
        return self.experiment.test_of(self.experiment.data[row.data])

    def difference(self, row: Row) -> Estimate | None:
        """Return the first metric minus that of the row's reference, seed by seed.

        returns  None for the reference itself, and where no seed has both
        """
        reference = self.references.get(self.test_of(row))
        if reference is None or reference is row:
            return None
        metric = self.experiment.metrics[0]
        return paired(row.values(metric), reference.values(metric))

    def label(self, row: Row) -> str:
        """Name a row by what the experiment has several of."""
        parts = [row.variant] if len(self.experiment.variants) > 1 else []
        parts += [row.data] if len(self.experiment.data) > 1 else []
        return ", ".join(parts) or row.variant


def read_table(experiment: ExperimentConfig, folder: ExperimentFolder) -> Table:
    """Read what the runs have left."""
    found: dict[tuple[str, str], list[Result]] = {
        (variant, data): [] for variant in experiment.variants for data in experiment.data
    }
    missing = {}
    for cell in experiment.cells:
        if folder.result(cell).is_file():
            found[cell.variant, cell.data].append(_read_result(folder, cell))
        else:
            missing[cell.name] = folder.why_failed(cell) or "not made yet"
    rows = (Row(*names, tuple(results)) for names, results in found.items())
    return Table(experiment, tuple(rows), missing)


def _read_result(folder: ExperimentFolder, cell: Cell) -> Result:
    path = folder.result(cell)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        steps, sequences, scores = (stored[name] for name in ("steps", "train_sequences", "scores"))
        result = Result(cell, int(steps), sequences, dict(scores), read_looks(folder.run(cell)))
        _ = result.passes, [find(result.scores, metric) for metric in score_places()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: does not parse; delete it, and the run is scored again"
        ) from error
    return result


def find(scores: Mapping[str, Any], metric: str) -> float | None:
    """Return a number of an evaluation by its place, such as prediction.mse; None if undefined."""
    found: Any = scores
    for name in metric.split("."):
        found = (found or {}).get(name)
    return None if found is None else float(found)


def paired(values: Mapping[int, float], others: Mapping[int, float]) -> Estimate | None:
    """Return mean and interval of value minus other, over the seeds that have both."""
    differences = [values[seed] - others[seed] for seed in sorted(values.keys() & others.keys())]
    return estimate(differences) if differences else None
