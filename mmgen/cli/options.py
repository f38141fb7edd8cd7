"""What several commands share: options, and opening a data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mmgen.shard.reader import DataSet


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


def open_data(data: Path) -> "DataSet":
    """Open the data set that a command was given."""
    from mmgen.shard.reader import open_dataset

    return open_dataset(data)
