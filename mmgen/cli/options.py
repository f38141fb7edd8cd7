"""What several commands share: options, opening a data set, and saying what was made."""

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mmgen.shard.manifest import Manifest
    from mmgen.shard.reader import DataSet


def config_options(command: Any) -> Any:
    """Add --preset, --config, --set and --glyphs, which joins the assignments as the last one."""

    @wraps(command)
    def with_glyphs(
        *args: Any, glyphs: str | None, assignments: tuple[str, ...], **others: Any
    ) -> Any:
        last = () if glyphs is None else (f"glyphs={glyphs}",)
        return command(*args, assignments=assignments + last, **others)

    decorated: Any = with_glyphs
    for option in (
        click.option(
            "--glyphs",
            metavar="SET",
            help="mnist, fashion, kmnist, emnist-letters, qmnist, or a path: IDX images, an .npz, "
            "a folder of those or of PNGs. The same as --set glyphs=SET.",
        ),
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
        decorated = option(decorated)
    return decorated


seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Which sequences, of all there could be."
)


def open_data(data: str) -> "DataSet":
    """Open the data set that a command was given."""
    from mmgen.shard.reader import open_dataset

    return open_dataset(data)


def counted(number: int, thing: str) -> str:
    """Say how many there are: 1 shard, 2 shards."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def told_as_json(out: str, manifest: "Manifest") -> dict[str, Any]:
    """Say where a data set is and how large, as the --json of what made it does."""
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    return {
        "path": out,
        "splits": {name: split.count for name, split in manifest.splits.items()},
        "shards": len(shards),
        "bytes": sum(shard.bytes for shard in shards),
    }
