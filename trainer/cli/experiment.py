"""Make and compare several runs: `mmtrain experiment`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trainer.experiment.results import Table


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", "folder", required=True, type=click.Path(path_type=Path), help="FOLDER"
)
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Let the workers of a Dask scheduler, tcp://HOST:PORT, make the runs; they share FOLDER.",
)
@click.option("--table", "only_table", is_flag=True, help="Train nothing: all runs must be there.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def experiment(
    file: Path, folder: Path, cluster: str | None, only_table: bool, as_json: bool
) -> None:
    """Train each variant of FILE.toml on its data with each of its seeds, and compare the scores.

    Every run is a run's folder under FOLDER/runs. Killed at any moment, the same command goes on
    with what is missing. FOLDER/table.md has means and 95 % intervals over the seeds, results.csv a
    line a run, results.png and curves.png the same as pictures.

    Example: mmtrain experiment experiments/decoders.toml -o results/decoders
    """
    from trainer.experiment.config import load_experiment

    if only_table and cluster is not None:
        raise click.UsageError("--table trains nothing; leave out --cluster")
    asked = load_experiment(file)

    from trainer.experiment.report import (
        check_complete,
        check_finished,
        report_as_json,
        write_report,
    )

    if only_table:
        check_finished(asked, folder)
    else:
        from trainer.experiment.run import run_experiment

        run_experiment(asked, folder, cluster=cluster, quiet=as_json)
    table = write_report(asked, folder)
    if as_json:
        click.echo(json.dumps(report_as_json(table, folder)))
    else:
        _print(table)
        click.echo(f"{folder}: table.md, results.csv and pictures of it")
    check_complete(table, folder)


def _print(results: "Table") -> None:
    from rich.console import Console
    from rich.table import Table as Printed

    from trainer.experiment.looks import as_notes
    from trainer.experiment.table import as_cells, legend

    header, *lines = as_cells(results)
    printed = Printed(title=results.experiment.title, caption=legend(results))
    for place, column in enumerate(header):
        printed.add_column(column, justify="right" if place else "left", overflow="fold")
    for line in lines:
        printed.add_row(*line)
    # A file has no width: what is too long for 80 characters would be cut.
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(printed)
    for note in as_notes(results):
        click.echo(note)
