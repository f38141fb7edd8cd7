"""Make a data set of somebody else's file: `mmgen import`."""

import json
from pathlib import Path

import click

from mmgen.cli.options import counted, told_as_json


@click.command("import")
@click.argument("file", metavar="FILE.npy", type=click.Path(path_type=Path))
@click.argument("out")
@click.option(
    "--split",
    metavar="SPLIT|SPLIT=N,...",
    default="test",
    show_default=True,
    help="Which split it becomes, or sequences for each, from the start: train=9000,test=1000.",
)
@click.option(
    "--axes",
    type=click.Choice(["TNHW", "NTHW"]),
    help="Whether time or the sequence is the first axis.  [default: TNHW, unless doubtful]",
)
@click.option("--shard-size", type=int, help="Sequences a shard.  [default: 8192, or 512 MiB raw]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def import_(
    file: Path, out: str, split: str, axes: str | None, shard_size: int | None, as_json: bool
) -> None:
    """Write the sequences of an npy file as HDF5 shards in the folder OUT.

    OUT may be an address such as s3://bucket/folder.

    The file is uint8 (T, N, H, W), as mnist_test_seq.npy is, or (T, N, H, W, 3) in colour. Nothing
    is known but the frames: digits, positions and the config stay unknown.

    Killed at any moment, the same command finishes the job; the bytes are the same.

    Example: mmgen import mnist_test_seq.npy data/published
    """
    from mmgen.imports import import_dataset, open_source, parse_splits
    from mmgen.progress import progress_bar
    from mmgen.shard.places import find_place

    source = open_source(file, axes)
    splits = parse_splits(split, source)
    total = sum(last - first for first, last in splits.values())
    with progress_bar("sequences", total, quiet=as_json) as progress:
        manifest = import_dataset(source, out, splits, shard_size=shard_size, progress=progress)
    name = find_place(out).name
    told = told_as_json(name, manifest)
    trains_on_test = "train" in splits and (source.is_published or "test" in splits)
    if as_json:
        told["source"] = {"sha256": source.sha256, "is_published": source.is_published}
        click.echo(json.dumps(told | {"trains_on_test_data": trains_on_test}))
        return
    whole = counted(source.shape[0], "sequence")
    sequences = f"{total} of {whole}" if total < source.shape[0] else whole
    shards, size = counted(told["shards"], "shard"), f"{told['bytes'] / 1e6:.1f} MB"
    click.echo(f"{name}: {sequences} in {shards}, {size}")
    if source.is_published:
        click.echo(f"{file} is the published test set of Srivastava et al. 2015")
    if trains_on_test:
        why = "the file is a test set" if source.is_published else "test is cut from the same file"
        click.echo(f"split train is test data, as in the tutorial's protocol: {why}")
