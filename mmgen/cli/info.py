"""Say what a data set holds: `mmgen info`."""

import json

import click

from mmgen.cli.options import counted, open_data
from mmgen.errors import InputError


@click.command()
@click.argument("data")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--bibtex", "as_bibtex", is_flag=True, help="Print how to cite it.")
def info(data: str, as_json: bool, as_bibtex: bool) -> None:
    """Say what is in a data set.

    Example: mmgen info data/easy
    """
    from mmgen.card import bibtex, dataset_id

    if as_json and as_bibtex:
        raise click.UsageError("--json and --bibtex exclude each other; leave one out")
    manifest = open_data(data).manifest
    if as_bibtex:
        click.echo(bibtex(manifest), nl=False)
        return
    try:
        identity = dataset_id(manifest)
        shown = identity
    except InputError as error:  # a set of a later version can be described all the same
        identity, shown = None, f"unknown: {error}"
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
            "id": identity,
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
    if manifest.config is None:
        click.echo(f"{data}: imported by mmgen {manifest.version}")
    else:
        click.echo(f"{data}: made by mmgen {manifest.version}, seed {manifest.seed}")
    click.echo(f"  id {shown}")
    for name, facts in splits.items():
        pool = manifest.glyphs.get(name)
        glyphs = f"glyphs {pool[0]}..{pool[1] - 1}" if pool else "glyphs unknown"
        click.echo(
            f"  {name:6}{counted(facts['count'], 'sequence'):>20}"
            f"{counted(facts['shards'], 'shard'):>13}{facts['bytes'] / 1e6:>10.1f} MB   {glyphs}"
        )
    for name, value in (manifest.config or {}).items():
        click.echo(f"  {name} = {value}")
