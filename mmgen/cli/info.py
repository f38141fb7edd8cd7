"""Say what a data set holds: `mmgen info`."""

import json
from pathlib import Path

import click

from mmgen.cli.options import open_data


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(data: Path, as_json: bool) -> None:
    """Say what is in a data set.

    Example: mmgen info data/easy
    """
    dataset = open_data(data)
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
