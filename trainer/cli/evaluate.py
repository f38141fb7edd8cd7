"""Score a run on a split: `mmtrain evaluate`."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option(
    "--sequences",
    type=click.IntRange(min=1),
    help="The first ones.  [default: all, or 1000 of live data]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def evaluate(
    run: Path, data: str, split: str, sequences: int | None, device: str, as_json: bool
) -> None:
    """Score the newest checkpoint of RUN on DATA, beside predictors that know nothing.

    MSE and MAE are summed over a frame's pixels, CE is nats per frame. The result also goes into
    the run's folder, for `mmtrain report`.

    Example: mmtrain evaluate runs/easy data/easy
    """
    from trainer.evaluation import evaluate_run, metric_rows

    result = evaluate_run(run, data, split, sequences, device)
    if as_json:
        click.echo(json.dumps(result))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{split} of {data}, {result['sequences']} sequences, per frame")
    for column in ("", "MSE", "MAE", "CE (nats)"):
        table.add_column(column, justify="left" if not column else "right")
    for row in metric_rows(result):
        table.add_row(*row)
    Console().print(table)
