"""Make a data set: `mmgen generate`."""

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmgen.cli.options import config_options, counted, seed_option, told_as_json

if TYPE_CHECKING:
    from mmgen.parts import Part
    from mmgen.shard.manifest import Manifest

_SAID_BY_THE_MANIFEST = ("preset", "config", "assignments", "train", "val", "test", "seed")


@click.command()
@click.argument("out")
@config_options
@click.option("--train", type=int, default=10_000, show_default=True, help="Sequences to train on.")
@click.option("--val", type=int, default=1_000, show_default=True, help="Sequences to validate.")
@click.option("--test", type=int, default=1_000, show_default=True, help="Sequences to test.")
@seed_option
@click.option(
    "--from",
    "origin",
    metavar="MANIFEST",
    help="Make a data set again from its manifest.json, or the folder that holds it.",
)
@click.option("--shard-size", type=int, help="Sequences a shard.  [default: 8192, or 512 MiB raw]")
@click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: one a core]")
@click.option(
    "--codec",
    metavar="NAME",
    help="How frames are packed: gzip, zstd, lz4, none, or auto: gzip unless a sample hardly "
    "shrinks. zstd is smaller, lz4 is read faster.  [default: gzip, or that of --from]",
)
@click.option("--masks", is_flag=True, help="Store which digit is seen at each pixel, too.")
@click.option("--overwrite", is_flag=True, help="Replace the data set in OUT when all is ready.")
@click.option(
    "--shards", metavar="A:B", help="Make only these, counted over train, val, test; B is left out."
)
@click.option(
    "--task",
    metavar="I/N",
    help="Make the I-th of N parts, from 0 on. In a Slurm array each task makes its part unless "
    "this or --shards says otherwise; 0/1 is all.",
)
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Let the workers of a Dask scheduler, tcp://HOST:PORT, make the shards; they share OUT.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def generate(
    ctx: click.Context,
    out: str,
    preset: str,
    config: Path | None,
    assignments: tuple[str, ...],
    train: int,
    val: int,
    test: int,
    seed: int,
    origin: str | None,
    shard_size: int | None,
    workers: int | None,
    codec: str | None,
    masks: bool,
    overwrite: bool,
    shards: str | None,
    task: str | None,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Render sequences into HDF5 shards in the folder OUT.

    OUT may be an address such as s3://bucket/folder (the extra s3 brings its driver): shards are
    made on the disk that TMPDIR names, one a thread, and put there when they are complete.

    Killed at any moment, the same command finishes the job; the bytes are the same.

    Example: mmgen generate data/easy --set digits=1 --train 50000
    """
    from mmgen.pipeline import prepare
    from mmgen.presets import load_config
    from mmgen.progress import progress_bar
    from mmgen.request import find_origin, read_manifest
    from mmgen.shard import schema
    from mmgen.shard.places import find_place

    part_of = _find_part(shards, task, cluster, workers, overwrite)
    if origin is None:
        resolved = load_config(preset, config, assignments)
        counts = {"train": train, "val": val, "test": test}
    else:
        _refuse_what_contradicts(ctx)
        original = read_manifest(origin)
        resolved, _ = find_origin(original, find_place(origin).name, ctx.params["glyphs"])
        counts = {name: split.count for name, split in original.splits.items()}
        seed = original.seed
        shard_size = original.shard_size if shard_size is None else shard_size
        codec = original.codec if codec is None else codec
    run = prepare(
        resolved,
        counts,
        seed=seed,
        shard_size=shard_size,
        workers=workers,
        masks=masks,
        codec="gzip" if codec is None else codec,
        cluster=cluster,
    )
    planned = run.shards
    part = part_of(len(planned)) if part_of else range(len(planned))
    place = find_place(out)
    is_old = not overwrite and place.exists(schema.MANIFEST_NAME)
    total = sum(planned[number].count for number in part)
    with progress_bar("sequences", total, quiet=as_json) as show:

        def progress(amount: int, num_bytes: int) -> None:
            nonlocal is_old
            is_old &= num_bytes == 0
            show(amount, num_bytes)

        manifest: Manifest | None
        if part_of:
            manifest = run.finish_part(out, part, progress)
        elif overwrite:
            manifest = run.replace(out, progress)
        else:
            manifest = run.finish(out, progress)
    if manifest:
        _tell(place.name, manifest, as_json, is_old=is_old)
    else:
        _tell_part(place.name, part, len(planned), as_json)


def _find_part(
    shards: str | None,
    task: str | None,
    cluster: str | None,
    workers: int | None,
    overwrite: bool,
) -> "Part | None":
    """Find out which part of the shards is asked for, None if it is all of them."""
    from mmgen.parts import parse_task, part_of_range, part_of_task, slurm_task

    is_part = shards is not None or task is not None
    if shards is not None and task is not None:
        raise click.UsageError("--shards and --task both name a part; leave one out")
    if cluster is not None and (is_part or workers):
        raise click.UsageError(
            "--cluster makes all shards with the cluster's own workers; leave out --shards, --task "
            "and --workers"
        )
    found: Part | None = None
    if shards is not None:
        found = partial(part_of_range, shards)
    elif cluster is None:
        index, count = slurm_task(os.environ) if task is None else parse_task(task)
        if count > 1:
            found = partial(part_of_task, index, count)
            if task is None:
                click.echo(
                    f"this is task {index} of the {count} of a Slurm array and makes that part; "
                    "--task 0/1 makes all",
                    err=True,
                )
    if found and overwrite:
        raise click.UsageError(
            "--overwrite replaces a whole set when all of it is ready, which a part never is; "
            "make the parts in a new folder"
        )
    return found


def _tell(out: str, manifest: "Manifest", as_json: bool, *, is_old: bool) -> None:
    from mmgen.card import dataset_id

    told = told_as_json(out, manifest) | {"id": dataset_id(manifest)}
    if as_json:
        click.echo(json.dumps(told))
        return
    sequences = counted(sum(told["splits"].values()), "sequence")
    shards, size = counted(told["shards"], "shard"), f"{told['bytes'] / 1e6:.1f} MB"
    there = ", all there already" if is_old else ""
    click.echo(f"{out}: {told['id']}, {sequences} in {shards}, {size}{there}")


def _tell_part(out: str, part: range, num_shards: int, as_json: bool) -> None:
    if as_json:
        bounds = [part.start, part.stop]
        click.echo(json.dumps({"path": out, "part": bounds, "of": num_shards, "waits": True}))
        return
    which = f"shards {part.start}..{part.stop - 1}" if part else "no shard"
    click.echo(f"{out}: {which} of {num_shards} done, waiting for the others")


def _refuse_what_contradicts(ctx: click.Context) -> None:
    """Refuse options that say again, or otherwise, what the manifest of --from says."""
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name or "")
        is_given = source is click.core.ParameterSource.COMMANDLINE
        if is_given and param.name in _SAID_BY_THE_MANIFEST:
            raise click.UsageError(
                f"{param.opts[0]} contradicts --from, whose manifest says it; leave it out"
            )
