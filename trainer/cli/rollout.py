"""Draw what a model makes of a sequence: `mmtrain rollout`."""

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help=".gif or .png")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option("--index", default=0, show_default=True, help="Which sequence.")
@click.option(
    "--frames",
    type=click.IntRange(1, 10_000),
    help="Frames to predict.  [default: as many as the model was trained for]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def rollout(
    run: Path, data: str, out: Path, split: str, index: int, frames: int | None, device: str
) -> None:
    """Draw context, truth, reconstruction and prediction side by side.

    With --frames the truth is the same sequence, drawn again to that length.

    Example: mmtrain rollout runs/easy data/easy -o rollout.gif --frames 100
    """
    from trainer.rollout import check_picture, roll_out, write_rollout

    check_picture(out)
    write_rollout(out, roll_out(run, data, split, index, device, frames))
    click.echo(f"{out}: sequence {index} of {split}")
