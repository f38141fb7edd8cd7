"""The command `mmgen`: parse, call, print. Errors become one line here and nowhere else."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmgen import __version__
from mmgen.errors import MmgenError, ShardError, explain

if TYPE_CHECKING:
    from mmgen.shard.reader import DataSet


class OneLineErrors(click.Group):
    """A group whose commands end in one line and the right exit code; bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (MmgenError, OSError, KeyboardInterrupt) as error:
            explained = explain(error)
            if explained is None or ctx.params.get("traceback"):
                raise
            click.echo(f"Error: {explained[0]}", err=True)
            ctx.exit(explained[1])


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--traceback", is_flag=True, help="Show where an error comes from.")
def main(traceback: bool) -> None:
    """Generate Moving MNIST sequences of exactly the difficulty you choose.

    Look at some first: mmgen preview --preset srivastava -o a.gif
    """


def config_options(command: Any) -> Any:
    """Add --preset, --config and --set."""
    for option in (
        click.option(
            "--set",
            "assignments",
            metavar="FIELD=VALUE",
            multiple=True,
            help="Set one field, e.g. digits=3 or frames=10..20; `mmgen presets NAME` lists them.",
        ),
        click.option(
            "--config", type=click.Path(path_type=Path), help="TOML file with fields to change."
        ),
        click.option("--preset", default="srivastava", show_default=True, help="Where to start."),
    ):
        command = option(command)
    return command


seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Which sequences, of all there could be."
)


@main.command()
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


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(data: Path, as_json: bool) -> None:
    """Say what is in a data set.

    Example: mmgen info data/easy
    """
    dataset = _open(data)
    manifest = dataset.manifest
    splits = {
        name: {
            "count": split.count,
            "shards": len(split.shards),
            "bytes": sum(shard.bytes for shard in split.shards),
        }
        for name, split in manifest.splits.items()
    }
    if as_json:
        described = {
            "path": str(data),
            "version": manifest.version,
            "seed": manifest.seed,
            "config": manifest.config,
            "glyphs": manifest.glyphs,
            "codec": manifest.codec,
            "shard_size": manifest.shard_size,
            "splits": splits,
        }
        click.echo(json.dumps(described))
        return
    click.echo(f"{data}: made by mmgen {manifest.version}, seed {manifest.seed}")
    for name, facts in splits.items():
        pool = manifest.glyphs.get(name)
        glyphs = f"glyphs {pool[0]}..{pool[1] - 1}" if pool else "glyphs unknown"
        click.echo(
            f"  {name:6}{facts['count']:>10} sequences{facts['shards']:>6} shards"
            f"{facts['bytes'] / 1e6:>10.1f} MB   {glyphs}"
        )
    for name, value in (manifest.config or {}).items():
        click.echo(f"  {name} = {value}")


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--regrow", metavar="N|all", help="Render N of each split again, compare bytes.")
def verify(data: Path, regrow: str | None) -> None:
    """Check every shard against the manifest, its checksums and, if asked, its config.

    Example: mmgen verify data/easy --regrow 100
    """
    from mmgen.progress import progress_bar
    from mmgen.verify import find_damage, find_difference

    if regrow not in (None, "all") and not (regrow.isdecimal() and int(regrow) > 0):
        raise click.BadParameter("say how many sequences, or all", param_hint="--regrow")
    dataset = _open(data)
    total = sum(len(split) for split in dataset.splits.values())
    problems: list[str] = []
    with progress_bar("checked", total) as progress:
        problems += find_damage(dataset, progress)
    if regrow and not problems:
        wanted = None if regrow == "all" else int(regrow)
        asked = sum(min(wanted or total, len(split)) for split in dataset.splits.values())
        with progress_bar("rendered", asked) as progress:
            problems += find_difference(dataset, wanted, progress)
    for problem in problems:
        click.echo(problem)
    if problems:
        raise ShardError(f"{data}: {len(problems)} of its parts do not hold; each is named above")
    again = f", {regrow} of each split rendered again and equal" if regrow else ""
    click.echo(f"{data}: {total} sequences hold{again}")


@main.command()
@click.argument("data", type=click.Path(path_type=Path), required=False)
@config_options
@seed_option
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help=".gif or .png")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option("--index", help="Which sequences: I,J,...  [default: the first four]")
@click.pass_context
def preview(
    ctx: click.Context,
    data: Path | None,
    preset: str,
    config: Path | None,
    assignments: tuple[str, ...],
    seed: int,
    out: Path,
    split: str,
    index: str | None,
) -> None:
    """Draw sequences side by side: of the folder DATA, or straight from a preset.

    Example: mmgen preview --preset srivastava -o a.gif
    """
    import numpy as np

    from mmgen.preview import check_picture, write_picture

    check_picture(out)
    try:
        indices = [int(part) for part in index.split(",")] if index else list(range(4))
    except ValueError:
        raise click.BadParameter(
            f"{index!r} is no list such as 0,1,2", param_hint="--index"
        ) from None
    if data is None:
        from mmgen.config import load_config
        from mmgen.generate import render

        resolved = load_config(preset, config, assignments)
        frames = render(resolved, indices, split=split, seed=seed).frames
    else:
        for option in ("preset", "config", "assignments", "seed"):
            if ctx.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError("DATA has its own config and seed; leave out the others")
        stored = _open(data)[split]
        indices = indices if index else indices[: len(stored)]
        for wanted in indices:
            if not 0 <= wanted < len(stored):
                raise click.BadParameter(
                    f"{wanted} is out of range, {split} has {len(stored)} sequences",
                    param_hint="--index",
                )
        frames = np.stack([stored[wanted].frames for wanted in indices])
    write_picture(out, frames)
    click.echo(f"{out}: {len(indices)} sequences of {frames.shape[1]} frames")


@main.command()
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """List the presets, or print one as TOML that can be edited and fed back.

    Example: mmgen presets srivastava > mine.toml
    """
    from mmgen.config import PRESETS, find_preset, to_toml

    if name is None:
        for known, (_, description) in PRESETS.items():
            click.echo(f"{known:12} {description}")
    else:
        sys.stdout.write(to_toml(find_preset(name)))


def _open(data: Path) -> "DataSet":
    from mmgen.shard.reader import open_dataset

    return open_dataset(data)
