"""Score anybody's predictions: `mmtrain score`."""

import json
from pathlib import Path

import click

from trainer.cli.options import print_evaluation


@click.command()
@click.argument("predictions", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option(
    "--context",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Frames that the model saw.",
)
@click.option("--lpips", is_flag=True, help="Also by LPIPS, with the extra lpips.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for JSON, CSV and plots.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def score(
    predictions: Path,
    data: str,
    split: str,
    context: int,
    lpips: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Score PREDICTIONS.npy of any model on DATA, as `mmtrain evaluate` does ours.

    They are floats (N, T, H, W) on the scale 0..1: the T frames after the context of the first N
    sequences of the split, in its order. DATA may be an npy file of frames too.

    Example: mmtrain score predictions.npy data/easy -o scores
    """
    from trainer.evaluated import score_file

    result = score_file(predictions, data, split, context, out, lpips=lpips)
    if out:
        from trainer.score_plots import write_score_plots

        write_score_plots(out)
    if as_json:
        click.echo(json.dumps(result))
    else:
        print_evaluation(result, data)
