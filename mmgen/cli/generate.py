"""Make a data set: `mmgen generate`."""

import json
from pathlib import Path

import click

from mmgen.cli.options import config_options, seed_option


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@config_options
@click.option("--train", type=int, default=10_000, show_default=True, help="Sequences to train on.")
@click.option("--val", type=int, default=1_000, show_default=True, help="Sequences to validate.")
@click.option("--test", type=int, default=1_000, show_default=True, help="Sequences to test.")
@seed_option
@click.option("--shard-size", type=int, help="Sequences a shard.  [default: 8192, or 512 MiB raw]")
@click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: one a core]")
@click.option("--overwrite", is_flag=True, help="Replace the data set in OUT when all is ready.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def generate(
    out: Path,
    preset: str,
    config: Path | None,
    assignments: tuple[str, ...],
    train: int,
    val: int,
    test: int,
    seed: int,
    shard_size: int | None,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Render sequences into HDF5 shards in the folder OUT.

    Killed at any moment, the same command finishes the job; the bytes are the same.

    Example: mmgen generate data/easy --set digits=1 --train 50000
    """
    from mmgen.config import load_config
    from mmgen.pipeline import generate_dataset
    from mmgen.progress import progress_bar

    resolved = load_config(preset, config, assignments)
    counts = {"train": train, "val": val, "test": test}
    was_complete = not overwrite and (out / "manifest.json").is_file()
    with progress_bar("sequences", sum(counts.values()), quiet=as_json) as progress:
        manifest = generate_dataset(
            out,
            resolved,
            counts,
            seed=seed,
            shard_size=shard_size,
            workers=workers,
            overwrite=overwrite,
            progress=progress,
        )
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    num_bytes = sum(shard.bytes for shard in shards)
    if as_json:
        counted = {name: split.count for name, split in manifest.splits.items()}
        click.echo(
            json.dumps(
                {"path": str(out), "splits": counted, "shards": len(shards), "bytes": num_bytes}
            )
        )
    else:
        total = sum(split.count for split in manifest.splits.values())
        there = ", all there already" if was_complete else ""
        size = f"{num_bytes / 1e6:.1f} MB"
        click.echo(f"{out}: {total} sequences in {len(shards)} shards, {size}{there}")
