"""Write latents and their labels: `mmtrain features`."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="FILE.h5")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option(
    "--sequences",
    type=click.IntRange(min=1),
    help="The first ones.  [default: all, or 1000 of live data]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def features(
    run: Path,
    data: str,
    out: Path,
    split: str,
    sequences: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Write what the encoder of RUN makes of DATA to an HDF5 file, with the ground truth.

    latent, label, position, velocity, glyph_index and index: the state of all layers after the
    context, and what is true of each digit at the last frame of the context.

    Example: mmtrain features runs/easy data/easy -o latents.h5
    """
    from trainer.latents import write_features

    count, size = write_features(run, data, out, split, sequences, device)
    if as_json:
        click.echo(json.dumps({"file": str(out), "sequences": count, "values": size}))
    else:
        click.echo(f"{out}: {count} latents of {size} values, {split} of {data}")
