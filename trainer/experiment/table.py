"""An experiment's results in words: CSV, JSON, and a page of Markdown."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from trainer.experiment.config import score_places
from trainer.experiment.results import Row, Table, find
from trainer.metrics import METRICS
from trainer.result_files import as_csv
from trainer.seeds import Estimate

_DIGITS = 3  # of a skill
_NOTHING = "-"


def results_csv(table: Table) -> str:
    """Write a line a finished run, with every number that some run has."""
    results = list(table.results)
    there = [m for m in score_places() if any(find(r.scores, m) is not None for r in results)]
    rows = []
    for result in results:
        cell = result.cell
        named = [cell.variant, cell.data, cell.seed, cell.name, result.steps, result.passes]
        rows.append([*named, *(find(result.scores, metric) for metric in there)])
    return as_csv(["variant", "data", "seed", "run", "steps", "passes", *there], rows)


def as_cells(table: Table) -> list[list[str]]:
    """Return the words of the table, the first line names the columns."""
    metrics = table.experiment.metrics
    header = ["", "seeds", *metrics, "difference", "steps", "passes"]
    lines = [header]
    for row in table.rows:
        is_reference = table.references.get(table.test_of(row)) is row
        difference = "first row" if is_reference else told(table.difference(row), metrics[0], "+")
        scores = [told(row.estimate(metric), metric) for metric in metrics]
        passes = _NOTHING if row.passes is None else f"{row.passes:.1f}"
        count = str(len(row.results))
        lines.append([table.label(row), count, *scores, difference, _steps(row), passes])
    return lines


def legend(table: Table) -> str:
    """Say what the numbers of the table are."""
    return (
        "Means over the seeds, in brackets their 95 % interval (Student's t). The difference is "
        f"{table.experiment.metrics[0]} minus that of the first row that the same DATA scores, "
        "seed by seed."
    )


def told(estimate: Estimate | None, metric: str, sign: str = "") -> str:
    """Write a mean and its interval with the digits that its metric is worth."""
    if estimate is None:
        return _NOTHING
    score = METRICS.get(metric.rpartition(".")[2])
    form = f"{sign}.{score.digits if score else _DIGITS}f"
    if estimate.interval is None:
        return f"{estimate.mean:{form}} (n = 1)"
    low, high = estimate.interval
    return f"{estimate.mean:{form}} [{low:{form}}, {high:{form}}]"


def _steps(row: Row) -> str:
    steps = sorted({result.steps for result in row.results})
    return " to ".join(str(step) for step in dict.fromkeys(steps[:1] + steps[-1:])) or _NOTHING


def as_json(table: Table) -> dict[str, Any]:
    """Return what `mmtrain experiment --json` prints of the rows."""
    metrics = table.experiment.metrics
    rows = [
        {
            "variant": row.variant,
            "data": row.data,
            "seeds": [result.cell.seed for result in row.results],
            "steps": [result.steps for result in row.results],
            "passes": row.passes,
            "scores": {metric: _as_json(row.estimate(metric)) for metric in metrics},
            "difference": _as_json(table.difference(row)),
        }
        for row in table.rows
    ]
    return {"title": table.experiment.title, "rows": rows, "missing": dict(table.missing)}


def _as_json(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else asdict(estimate)


def as_markdown(table: Table, notes: Sequence[str]) -> str:
    """Write the page of an experiment: what was asked and run, the table, notes below it."""
    header, *lines = as_cells(table)
    page = [f"# {table.experiment.title}", "", _asked(table), ""]
    page += [
        _markdown_line(header),
        _markdown_line(["---", *["--:"] * (len(header) - 1)]),
        *map(_markdown_line, lines),
        "",
        legend(table),
    ]
    page += ["", *(f"- {note}" for note in notes)] if notes else []
    missing = [f"- {name}: {reason}" for name, reason in table.missing.items()]
    page += ["", "Missing:", "", *missing] if missing else []
    return "\n".join(page) + "\n"


def _asked(table: Table) -> str:
    """Say what all runs share."""
    experiment = table.experiment
    fields = "".join(f", {name} = {value}" for name, value in experiment.set.items())
    seeds = ", ".join(map(str, experiment.seeds))
    counts = {str(result.scores["sequences"]) for result in table.results}
    scored = f"{' or '.join(sorted(counts))} sequences of " if counts else ""
    tests = ", ".join(dict.fromkeys(table.test_of(row) for row in table.rows))
    return f"Preset {experiment.preset}{fields}; seeds {seeds}. Test: {scored}{tests}."


def _markdown_line(words: Sequence[str]) -> str:
    return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |"
