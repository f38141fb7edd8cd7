"""Make a data set: `mmgen generate`."""

import json
from pathlib import Path

import click

from mmgen.cli.options import config_options, seed_option, told_as_json

_SAID_BY_THE_MANIFEST = ("preset", "config", "assignments", "train", "val", "test", "seed")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@config_options
@click.option("--train", type=int, default=10_000, show_default=True, help="Sequences to train on.")
@click.option("--val", type=int, default=1_000, show_default=True, help="Sequences to validate.")
@click.option("--test", type=int, default=1_000, show_default=True, help="Sequences to test.")
@seed_option
@click.option(
    "--from",
    "origin",
    metavar="MANIFEST",
    type=click.Path(path_type=Path),
    help="Make a data set again from its manifest.json, or the folder that holds it.",
)
@click.option("--shard-size", type=int, help="Sequences a shard.  [default: 8192, or 512 MiB raw]")
@click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: one a core]")
@click.option("--masks", is_flag=True, help="Store which digit is seen at each pixel, too.")
@click.option("--overwrite", is_flag=True, help="Replace the data set in OUT when all is ready.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def generate(
    ctx: click.Context,
    out: Path,
    preset: str,
    config: Path | None,
    assignments: tuple[str, ...],
    train: int,
    val: int,
    test: int,
    seed: int,
    origin: Path | None,
    shard_size: int | None,
    workers: int | None,
    masks: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Render sequences into HDF5 shards in the folder OUT.

    Killed at any moment, the same command finishes the job; the bytes are the same.

    Example: mmgen generate data/easy --set digits=1 --train 50000
    """
    from mmgen.card import dataset_id
    from mmgen.pipeline import generate_dataset
    from mmgen.presets import load_config
    from mmgen.progress import progress_bar
    from mmgen.request import find_origin, read_manifest
    from mmgen.shard import schema

    if origin is None:
        resolved = load_config(preset, config, assignments)
        counts = {"train": train, "val": val, "test": test}
    else:
        _refuse_what_contradicts(ctx)
        original = read_manifest(origin)
        resolved, _ = find_origin(original, str(origin), ctx.params["glyphs"])
        counts = {name: split.count for name, split in original.splits.items()}
        seed = original.seed
        shard_size = original.shard_size if shard_size is None else shard_size
    is_committed = not overwrite and (out / schema.MANIFEST_NAME).is_file()
    num_found = sum(1 for _ in out.glob("*/*.h5")) if is_committed else 0
    with progress_bar("sequences", sum(counts.values()), quiet=as_json) as progress:
        manifest = generate_dataset(
            out,
            resolved,
            counts,
            seed=seed,
            shard_size=shard_size,
            workers=workers,
            masks=masks,
            overwrite=overwrite,
            progress=progress,
        )
    told = told_as_json(out, manifest) | {"id": dataset_id(manifest)}
    if as_json:
        click.echo(json.dumps(told))
        return
    total, size = sum(told["splits"].values()), f"{told['bytes'] / 1e6:.1f} MB"
    there = ", all there already" if num_found == told["shards"] else ""
    click.echo(f"{out}: {told['id']}, {total} sequences in {told['shards']} shards, {size}{there}")


def _refuse_what_contradicts(ctx: click.Context) -> None:
    """Refuse options that say again, or otherwise, what the manifest of --from says."""
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name or "")
        is_given = source is click.core.ParameterSource.COMMANDLINE
        if is_given and param.name in _SAID_BY_THE_MANIFEST:
            raise click.UsageError(
                f"{param.opts[0]} contradicts --from, whose manifest says it; leave it out"
            )
