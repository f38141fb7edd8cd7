"""List and print presets: `mmgen presets`."""

import sys

import click


@click.command()
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """List the presets, or print one as TOML that can be edited and fed back.

    Example: mmgen presets srivastava > mine.toml
    """
    from mmgen.config import to_toml
    from mmgen.presets import PRESETS, find_preset

    if name is None:
        for known, (_, description) in PRESETS.items():
            click.echo(f"{known:12} {description}")
    else:
        sys.stdout.write(to_toml(find_preset(name)))
