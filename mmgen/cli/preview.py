"""Draw sequences: `mmgen preview`."""

from pathlib import Path

import click

from mmgen.cli.options import config_options, counted, open_data, seed_option

_MAX_SEQUENCES = 1000


@click.command()
@click.argument("data", required=False)
@config_options
@seed_option
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help=".gif, .png or .mp4"
)
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option("--index", help="Which sequences: I,J or I..J.  [default: the first four]")
@click.option("--overlay", is_flag=True, help="Draw boxes, labels, trajectories and bounces.")
@click.pass_context
def preview(
    ctx: click.Context,
    data: str | None,
    preset: str,
    config: Path | None,
    assignments: tuple[str, ...],
    seed: int,
    out: Path,
    split: str,
    index: str | None,
    overlay: bool,
) -> None:
    """Draw sequences side by side: of the folder DATA, or straight from a preset.

    A PNG shows all frames at once, a GIF or MP4 moves at 10 frames a second.

    Example: mmgen preview --preset srivastava -o a.gif
    """
    import numpy as np

    from mmgen.overlay import Overlay, stored_overlay
    from mmgen.preview import check_picture, write_picture
    from mmgen.progress import progress_bar

    check_picture(out)
    indices = list(range(4)) if index is None else _parse_indices(index)
    drawn = None
    if data is None:
        from mmgen.generate import render
        from mmgen.motions import is_torus
        from mmgen.presets import load_config

        resolved = load_config(preset, config, assignments)
        truth = ("box",) if overlay else ()
        block = render(resolved, indices, split=split, seed=seed, truth=truth)
        frames = block.frames
        if overlay:
            assert block.box is not None, "boxes were asked for"
            tracks = block.label, block.position, block.box, block.bounced
            drawn = Overlay(*tracks, is_torus(resolved.motion))
    else:
        for option in ("preset", "config", "assignments", "glyphs", "seed"):
            if ctx.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError("DATA has its own config and seed; leave out the others")
        stored = open_data(data)[split]
        indices = indices if index else indices[: len(stored)]
        for wanted in indices:
            if not 0 <= wanted < len(stored):
                raise click.BadParameter(
                    f"{wanted} is out of range, {split} has {counted(len(stored), 'sequence')}",
                    param_hint="--index",
                )
        sequences = [stored[wanted] for wanted in indices]
        frames = np.stack([sequence.frames for sequence in sequences])
        drawn = stored_overlay(stored, sequences) if overlay else None
    with progress_bar("drawn", len(indices)) as progress:
        step = write_picture(out, frames, drawn, progress)
    left_out = f", one frame in {step} is shown" if step > 1 else ""
    shown = f"{counted(len(indices), 'sequence')} of {counted(frames.shape[1], 'frame')}"
    click.echo(f"{out}: {shown}{left_out}")


def _parse_indices(text: str) -> list[int]:
    """Read "0,5" or "0..3,9": a range includes both ends, as in a config."""
    indices: list[int] = []
    for part in text.split(","):
        low, dots, high = part.partition("..")
        try:
            found = range(int(low), int(high if dots else low) + 1)
        except ValueError:
            found = range(0)
        if not found:
            raise click.BadParameter(
                f"{text!r} is no list such as 0,5 or 0..3", param_hint="--index"
            )
        if len(indices) + found[-1] - found[0] >= _MAX_SEQUENCES:
            raise click.BadParameter(
                f"{text!r} asks for too many sequences, a picture holds {_MAX_SEQUENCES}",
                param_hint="--index",
            )
        indices += found
    return indices
