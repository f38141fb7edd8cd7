"""Write other people's file layouts: `mmgen export`."""

from pathlib import Path

import click

from mmgen.cli.options import counted, open_data


@click.command()
@click.argument("data")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "kind",
    type=click.Choice(["npy", "npz", "gif", "mp4"]),
    required=True,
    help="What to write.",
)
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option(
    "--sequences",
    type=int,
    help="How many, from the first one on.  [default: all; of gif and mp4 16]",
)
def export(data: str, out: Path, kind: str, split: str, sequences: int | None) -> None:
    """Write a split of DATA in a layout that other loaders read unchanged.

    npy is one uint8 array (T, N, H, W). OUT is a file that ends in .npy, or a folder, which
    torchvision.datasets.MovingMNIST(OUT) then reads; for OpenSTL name the file
    DATA_ROOT/moving_mnist/mnist_test_seq.npy.

    npz is the layout of PredRNN (clips, dims, input_raw_data); the first half of the frames is the
    input. OUT is a file that ends in .npz, or a folder.

    gif and mp4 fill a new folder OUT with one animation a sequence.

    Nothing that exists is replaced; T is the longest sequence, the others are black at the end.

    Example: mmgen export data/easy benchmark --to npy
    """
    from mmgen.export import export_split, num_exported
    from mmgen.progress import progress_bar

    stored = open_data(data)[split]
    count = num_exported(stored, kind, sequences)
    with progress_bar("sequences", count) as progress:
        written = export_split(stored, out, kind, count, progress)
    frames = counted(stored.sequence_shape[0], "frame")
    click.echo(f"{written}: {counted(count, 'sequence')} of {frames}")
