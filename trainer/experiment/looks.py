"""The looks at val while training: means over the seeds, and from when on two rows are apart.

Rows that are trained on the same DATA, once without end and once on a fixed number of its
sequences, look at the same val. So their looks can be compared, which says when a fixed set falls
behind and how often each of its sequences had come by then.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, get_args

from trainer.config import Metric
from trainer.experiment.results import Row, Table, find, paired
from trainer.experiment.table import told
from trainer.seeds import Estimate, estimate

Curve = dict[int, dict[int, float]]  # step -> seed -> value


@dataclass(frozen=True)
class Comparison:
    """How a row compares with the first one of its variant that looks at the same val.

    differences  step -> value minus that of the other row, seed by seed; two seeds or more
    """

    metric: str
    row: Row
    other: Row
    differences: dict[int, Estimate]

    @property
    def last(self) -> Estimate:
        """The difference at the last look."""
        return self.differences[max(self.differences)]

    @cached_property
    def parting(self) -> int | None:
        """The step from which on the interval stays on one side of 0; None if it does not so."""
        step = None
        for earlier in sorted(self.differences, reverse=True):
            side = _side(self.differences[earlier])
            if side == 0 or side != _side(self.last):
                break
            step = earlier
        return step

    @property
    def passes(self) -> float | None:
        """Passes over the row's own training set at the parting, or else at the last look."""
        return self.row.results[0].passes_at(self.parting or max(self.differences))


def curve_metrics(table: Table) -> list[str]:
    """Return which of the experiment's metrics a look at val has."""
    return [metric for metric in table.experiment.metrics if metric in get_args(Metric)]


def curve_of(row: Row, metric: str) -> Curve:
    """Return the values at the looks that all finished runs of a row have."""
    curves = [
        {line["step"]: find(line["val"], metric) for line in result.looks} for result in row.results
    ]
    shared = (
        [step for step in curves[0] if all(step in curve for curve in curves)] if curves else []
    )
    seeds = [result.cell.seed for result in row.results]
    found: Curve = {}
    for step in shared:
        values = [value for curve in curves if (value := curve[step]) is not None]
        if len(values) == len(curves):
            found[step] = dict(zip(seeds, values, strict=True))
    return found


def mean_curve(row: Row, metric: str) -> dict[int, Estimate]:
    """Return step -> mean and interval over the seeds."""
    return {step: estimate(list(values.values())) for step, values in curve_of(row, metric).items()}


def find_comparisons(table: Table) -> list[Comparison]:
    """Compare each row with the first one of its variant that looks at the same val."""
    pairs = list(_comparable(table))
    found = (
        Comparison(metric, row, other, _differences(row, other, metric))
        for metric in curve_metrics(table)
        for row, other in pairs
    )
    return [comparison for comparison in found if comparison.differences]


def _comparable(table: Table) -> Iterator[tuple[Row, Row]]:
    first: dict[tuple[str, str], Row] = {}
    for row in table.rows:
        other = first.setdefault((row.variant, table.experiment.data[row.data].train), row)
        if other is not row:
            yield row, other


def _differences(row: Row, other: Row, metric: str) -> dict[int, Estimate]:
    """Return those at the looks that both have; one seed says nothing of chance."""
    here, there = curve_of(row, metric), curve_of(other, metric)
    return {
        step: difference
        for step in sorted(here.keys() & there.keys())
        if (difference := paired(here[step], there[step])) and difference.count > 1
    }


def _side(difference: Estimate) -> int:
    """Return 1 or -1 where all of an interval lies above or below 0, else 0."""
    assert difference.interval is not None
    low, high = difference.interval
    return (low > 0) - (high < 0)


def as_notes(table: Table) -> list[str]:
    """Say of each comparison, in a sentence, whether and when the rows part."""
    return [_told(table, comparison) for comparison in find_comparisons(table)]


def _told(table: Table, found: Comparison) -> str:
    passes = "" if found.passes is None else f" ({found.passes:.1f} passes)"
    who = f"{table.label(found.row)}: {found.metric} on val"
    other = table.label(found.other)
    last = f"{told(found.last, found.metric, '+')} at the last look"
    if found.parting is None:
        return f"{who} is not apart from that of {other} at the end{passes}: {last}"
    side = "above" if found.last.mean > 0 else "below"
    return f"{who} stays {side} that of {other} from step {found.parting} on{passes}: {last}"


def comparisons_as_json(table: Table) -> list[dict[str, Any]]:
    """Return what `mmtrain experiment --json` prints of them."""
    return [
        {
            "metric": found.metric,
            "variant": found.row.variant,
            "data": found.row.data,
            "other": found.other.data,
            "parting": found.parting,
            "passes": found.passes,
            "last": asdict(found.last),
        }
        for found in find_comparisons(table)
    ]
