"""Draw sequences: `mmgen preview`."""

from pathlib import Path

import click

from mmgen.cli.options import config_options, open_data, seed_option


@click.command()
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
        stored = open_data(data)[split]
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
