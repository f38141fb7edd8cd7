"""Draw error and skill against what makes sequences hard: `mmtrain difficulty`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("run", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--axis",
    "axes",
    multiple=True,
    required=True,
    metavar="FIELD=VALUE,VALUE...",
    help="What is varied: once for a curve, twice for a map.",
)
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder for the results."
)
@click.option(
    "--base",
    metavar="live:PRESET?FIELD=VALUE",
    help="What all points have in common.  [default: the run's data if live, or live:srivastava]",
)
@click.option(
    "--sequences",
    type=click.IntRange(min=2),
    default=1000,
    show_default=True,
    help="Sequences of each point.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def difficulty(
    run: tuple[Path, ...],
    axes: tuple[str, ...],
    out: Path,
    base: str | None,
    sequences: int,
    device: str,
    as_json: bool,
) -> None:
    """Score RUN along one or two axes of difficulty; write difficulty.csv, .json and .png.

    An axis is any field of the generator: speed=1,2,4,8 or digits=1,2,3 or overlap=max,add,over;
    values may be ranges: speed=1..2,2..4. Two more mean something of their own: turn=0,0.1,0.3 is
    the chance that a digit turns in a frame, and frames=15,20,30 how far the run looks ahead: it
    predicts all frames that follow its context. Each point is a test set of its own, rendered and
    never stored. All have the same digits, starts and directions. Several runs share the figure.

    Example: mmtrain difficulty runs/easy --axis speed=1,2,4,8 -o difficulty
    """
    from trainer.difficulty_axes import parse_axes
    from trainer.difficulty_curves import rows
    from trainer.difficulty_runs import difficulty_of_runs

    result = difficulty_of_runs(
        run,
        parse_axes(axes),
        out,
        base=base,
        num_sequences=sequences,
        device=device,
        say=lambda line: click.echo(line, err=True),
    )
    if as_json:
        click.echo(json.dumps(result))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"test of {result['base']}, {sequences} sequences at each point, per frame")
    columns = [*result["points"][0]["at"], "MSE", "95 %", "mean frame", "known dynamics", "skill"]
    for column in ("model", *columns):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows(result):
        table.add_row(*_cells(row, len(result["axes"])))
    Console().print(table)


def _cells(row: Mapping[str, Any], num_axes: int) -> list[str]:
    from trainer.difficulty_axes import as_label

    values = list(row.values())[: 1 + num_axes]
    return [
        *map(as_label, values),
        _written(row["mse"], 1),
        f"{_written(row['mse_low'], 1)} to {_written(row['mse_high'], 1)}",
        _written(row["mean_frame_mse"], 1),
        _written(row["known_dynamics_mse"], 1),
        _written(row["skill"], 3),
    ]


def _written(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
