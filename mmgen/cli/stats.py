"""Say what is in a split, in numbers: `mmgen stats`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from mmgen.cli.options import counted, open_data

_UNITS = {
    "frames": "frames per sequence",
    "digits": "digits per sequence",
    "speed": "speed, px per frame",
    "bounces": "bounces per sequence",
    "brightness": "brightness, mean grey 0..255",
    "lit": "lit pixels, % of a frame",
    "hidden": "hidden ink, % of a digit",
}
_QUANTILES = ("mean", "min", "5%", "median", "95%", "max")
_PREDICTORS = ("black", "copy-last", "mean frame")
_NAME_WIDTH = 30
_LABELS_A_LINE = 10


@click.command()
@click.argument("data")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Draw histograms: a .png")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option("--sequences", type=int, help="Count the first N only.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, with histograms.")
def stats(data: str, out: Path | None, split: str, sequences: int | None, as_json: bool) -> None:
    """Count what a split holds, and what the simplest predictors score on it.

    MSE is summed over a frame's values in [0, 1]; the entropy floor is the cross-entropy, in nats
    per frame, that no prediction can go below.

    Example: mmgen stats data/easy -o easy.png
    """
    from mmgen.histograms import check_histograms, write_histograms
    from mmgen.progress import progress_bar
    from mmgen.stats import measure

    if out:
        check_histograms(out)
    stored = open_data(data)[split]
    with progress_bar("counted", sequences or len(stored), quiet=as_json) as progress:
        measured = measure(stored, sequences, progress)
    if out:
        write_histograms(out, measured)
    told = {"path": str(data)} | measured.as_json()
    if as_json:
        click.echo(json.dumps(told))
        return
    for line in _table(told):
        click.echo(line)
    if measured.missing:
        click.echo(f"digits, motion and overlap: unknown, the set has no {measured.missing[0]}")


def _table(told: dict[str, Any]) -> Iterator[str]:
    height, width, *colors = told["frame_shape"]
    kind = "RGB" if colors else "grey"
    yield (
        f"{told['path']}: split {told['split']}, {counted(told['sequences'], 'sequence')}, "
        f"{counted(told['frames'], 'frame')} of {height}x{width}, {kind}"
    )
    yield _row("", _QUANTILES)
    for name, unit in _UNITS.items():
        if name in told["distributions"]:
            summary = told["distributions"][name]
            scale = 100 if "%" in unit else 1
            yield _row(unit, [_written(summary[key], scale) for key in _QUANTILES])
    if told["labels"] is not None:
        yield from _digit_lines(told)
    yield ""
    yield _row("per frame", ("entropy floor", *(f"MSE {name}" for name in _PREDICTORS)), 16)
    yield _scores("all frames", told)
    if protocol := told["protocol"]:
        some = protocol["sequences"] < told["sequences"]
        of_some = f" of {protocol['sequences']} sequences" if some else ""
        yield _scores("frames {}-{}".format(*protocol["frames"]) + of_some, protocol)


def _digit_lines(told: dict[str, Any]) -> Iterator[str]:
    counted = list(told["labels"].items())
    num_digits = sum(count for _, count in counted)
    for first in range(0, len(counted), _LABELS_A_LINE):
        part = counted[first : first + _LABELS_A_LINE]
        yield _row("label" if first == 0 else "", [label for label, _ in part], 7)
        yield _row("  share of digits", [_percent(count, num_digits) for _, count in part], 7)
    yield _row("digits that never move", [_percent(told["still_digits"], num_digits)])
    for place in ("outside", "absent"):
        share = _percent(told[f"frames_with_digit_{place}"], told["frames"])
        yield _row(f"frames with a digit {place}", [share])


def _scores(name: str, scored: dict[str, Any]) -> str:
    errors = [scored["baselines"].get(predictor, {}).get("mse") for predictor in _PREDICTORS]
    return _row(name, [_written(value) for value in (scored["entropy_floor"], *errors)], 16)


def _row(name: str, cells: Any, width: int = 9) -> str:
    return f"{name:{_NAME_WIDTH}}" + "".join(f"{cell:>{width}}" for cell in cells)


def _written(value: float | None, scale: int = 1) -> str:
    return "-" if value is None else f"{value * scale:.2f}"


def _percent(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"
