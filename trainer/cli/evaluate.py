"""Score a run on a split: `mmtrain evaluate`."""

import json
from pathlib import Path

import click

from trainer.cli.options import print_evaluation


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option(
    "--sequences",
    type=click.IntRange(min=1),
    help="The first ones.  [default: all, or 1000 of live data]",
)
@click.option(
    "--out-of-domain",
    is_flag=True,
    help="Also on other numbers of digits, other speeds, transposed digits and Fashion.",
)
@click.option("--lpips", is_flag=True, help="Also by LPIPS, with the extra lpips.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def evaluate(
    run: Path,
    data: str,
    split: str,
    sequences: int | None,
    out_of_domain: bool,
    lpips: bool,
    device: str,
    as_json: bool,
) -> None:
    """Score the newest checkpoint of RUN on DATA, beside predictors that need no training.

    MSE and MAE are summed over a frame's pixels, CE is nats per frame. The result also goes into
    the run's folder: evaluation.json, and in evaluation/ what every sequence and frame scored, as
    CSV, and the worst sequences as a picture. DATA may be an npy file of frames, such as the
    published mnist_test_seq.npy.

    Example: mmtrain evaluate runs/easy data/easy
    """
    from trainer.evaluated import evaluate_run

    result = evaluate_run(run, data, split, sequences, device, elsewhere=out_of_domain, lpips=lpips)
    if as_json:
        click.echo(json.dumps(result))
    else:
        print_evaluation(result, data)
