"""What an experiment ends in: results.csv, table.md, results.png and curves.png in its folder."""

from pathlib import Path
from typing import Any

from mmgen.shard.manifest import write_atomic
from trainer.errors import InputError, RunError
from trainer.experiment.config import ExperimentConfig
from trainer.experiment.folder import ExperimentFolder, make_request
from trainer.experiment.looks import as_notes, comparisons_as_json
from trainer.experiment.plots import write_curves, write_results
from trainer.experiment.results import Table, read_table
from trainer.experiment.table import as_json, as_markdown, results_csv


def write_report(experiment: ExperimentConfig, root: Path) -> Table:
    """Write everything of the runs that are finished, and say which are missing."""
    table = read_table(experiment, ExperimentFolder(root))
    write_atomic(root / "results.csv", results_csv(table))
    write_atomic(root / "table.md", as_markdown(table, as_notes(table)))
    write_results(root / "results.png", table)
    write_curves(root / "curves.png", table)
    return table


def report_as_json(table: Table, root: Path) -> dict[str, Any]:
    """Return what `mmtrain experiment --json` prints."""
    return {"folder": str(root)} | as_json(table) | {"comparisons": comparisons_as_json(table)}


def check_finished(experiment: ExperimentConfig, root: Path) -> None:
    """Refuse to make a table of a folder that is not this experiment's, or not finished."""
    folder = ExperimentFolder(root)
    if not folder.is_there:
        raise InputError(f"{root}: holds no experiment; leave out --table to make it")
    folder.check(make_request(experiment))
    table = read_table(experiment, folder)
    if table.missing:
        raise InputError(
            f"{root}: {_told_missing(table)}; leave out --table to go on with what is missing"
        )


def check_complete(table: Table, root: Path) -> None:
    """Say that runs have failed, once all else is done."""
    if table.missing:
        raise RunError(
            f"{root}: {_told_missing(table)}; the same command tries again what is missing"
        )


def _told_missing(table: Table) -> str:
    count = len(table.missing)
    name, reason = next(iter(table.missing.items()))
    total = count + len(list(table.results))
    are = "is" if count == 1 else "are"
    return f"{count} of {total} runs {are} not finished: {name}: {reason}"
