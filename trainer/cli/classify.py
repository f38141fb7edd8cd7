"""Train the many-to-one recurrent classifier: `mmtrain classify`."""

import json
from pathlib import Path
from typing import Any

import click

from trainer.errors import InputError


@click.command()
@click.argument("data", required=False)
@click.option("--rows", is_flag=True, help="Read MNIST images row by row, in place of DATA.")
@click.option("--run", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--cell", help="lstm, gru or rnn.  [default: lstm]")
@click.option("--seeds", type=int, help="Trainings, each with another seed.  [default: 1]")
@click.option("--steps", type=int, help="Optimizer steps.  [default: those of 2 epochs]")
@click.option(
    "--set", "assignments", metavar="FIELD=VALUE", multiple=True, help="Set one field: lr=0.001."
)
@click.option("--device", help="auto (CUDA when it is there), cpu, cuda or cuda:N.")
@click.option("--overwrite", is_flag=True, help="Throw an earlier classifier in the folder away.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def classify(
    data: str | None,
    rows: bool,
    run: Path,
    cell: str | None,
    seeds: int | None,
    steps: int | None,
    assignments: tuple[str, ...],
    device: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train a recurrent classifier of digits on train, and test it on test.

    It reads the frames of a sequence one by one and says the digit after the last. Where DATA have
    several digits a sequence, it says of each class whether it is present, and what is right is the
    whole set. --rows is the protocol of the 2020 tutorial: each MNIST image is a sequence of 28
    rows; all 60 000 training images are trained on, the 10 000 test images are tested on.

    Example: mmtrain classify --rows --seeds 5 --run runs/rows
    """
    if rows == (data is not None):
        both = "exclude each other; name one" if rows else "are both missing; name one"
        raise InputError(f"--rows and DATA {both}")

    from mmgen.fields import parse_assignments, validated
    from trainer.classifier import ClassifyConfig
    from trainer.classify import classify as train_and_test

    synonyms = {"cell": cell, "seeds": seeds, "steps": steps, "device": device}
    given = {name: value for name, value in synonyms.items() if value is not None}
    config = validated(ClassifyConfig, parse_assignments(assignments) | given)
    result = train_and_test(config, data, run, overwrite=overwrite, quiet=as_json)
    if as_json:
        click.echo(json.dumps(result))
        return
    _print(result)
    click.echo(f"{run}: {result['parameters']} parameters, tested on {result['test']} sequences")


def _print(result: dict[str, Any]) -> None:
    """Print every seed's accuracy, and their mean."""
    from rich.console import Console
    from rich.table import Table

    whole = "right" if result["one_class_each"] else "whole set right"
    table = Table(title=f"test of {result['data']}")
    table.add_column("seed")
    table.add_column(f"{whole} (%)", justify="right")
    table.add_column("classes, least to most (%)", justify="right")
    for one in result["seeds"]:
        shares = [100 * share for share in one["per_class"] if share is not None]
        between = f"{min(shares):.2f} to {max(shares):.2f}"
        table.add_row(str(one["seed"]), f"{100 * one['accuracy']:.2f}", between)
    table.add_row("mean", f"{100 * result['accuracy']:.2f}", "")
    Console().print(table)
