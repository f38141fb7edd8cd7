"""Axes of difficulty -> points, at each of which one or two fields of the generator are set anew.

A point is a DATA address like any other: `mmtrain evaluate` and `mmgen preview` can look at it too.
Its seed is the base's, and no draw depends on the config, so along an axis sequence i keeps its
digits, its starts and its directions: what two points differ by is their difficulty.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from mmgen.config import GeneratorConfig
from trainer.address import is_live, parse_live
from trainer.errors import InputError
from trainer.source import open_source

Value = int | float | str

SPLIT = "test"  # its digits are in no sequence that anybody trains on
# The one axis that is no field: the chance that a digit turns, which needs the motion of that name.
TURN = "turn"
_MOST_AXES = 2  # a curve, or a map


@dataclass(frozen=True)
class Point:
    """One place on the axes.

    at           axis -> its value here, as a config writes it
    address      of the sequences there
    frame_shape  theirs, (H, W) or (H, W, 3)
    steps        frames to predict after the context
    """

    at: Mapping[str, Value]
    address: str
    frame_shape: tuple[int, ...]
    steps: int

    def __str__(self) -> str:
        return ", ".join(f"{name}={as_label(value)}" for name, value in self.at.items())


def as_label(value: Value) -> str:
    """Write a value as one would set it: 2, not 2.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def parse_axes(words: Sequence[str]) -> dict[str, list[str]]:
    """Read FIELD=VALUE,VALUE,...; InputError for a word that is none, or a field named twice."""
    axes: dict[str, list[str]] = {}
    for word in words:
        name, _, values = (part.strip() for part in word.partition("="))
        if not (name and values):
            raise InputError(f"{word!r} is no FIELD=VALUE,VALUE, such as speed=1,2,4")
        if name in axes:
            raise InputError(f"axis {name!r} is named twice; give all its values to one")
        axes[name] = [value.strip() for value in values.split(",")]
    return axes


def find_points(
    base: str, axes: Mapping[str, Sequence[object]], context: int, steps: int
) -> list[Point]:
    """Return the points of all combinations, the last axis fastest; nothing is rendered yet.

    base     live:PRESET?FIELD=VALUE: what all points have in common
    axes     one or two: field of the generator's config, or "turn" -> its values
    context  frames that are seen; steps more are predicted, or with the axis `frames` all there are
    raises   InputError for what is no axis, a value that no config allows, or too few frames
    """
    if not is_live(base):
        raise InputError(f"{base}: is not live data; name live:PRESET or live:FILE.toml")
    if not 1 <= len(axes) <= _MOST_AXES:
        raise InputError(f"{len(axes)} axes asked for; a curve takes one, a map two")
    for name, values in axes.items():
        _check_axis(name, values)
    points = [
        _find_point(base, dict(zip(axes, values, strict=True)), context, steps)
        for values in product(*axes.values())
    ]
    for number, point in enumerate(points):
        if any(point.at == other.at for other in points[:number]):
            raise InputError(f"{point}: is asked for twice; once is enough")
    return points


def _check_axis(name: str, values: Sequence[object]) -> None:
    fields = GeneratorConfig.model_fields
    if name not in (*fields, TURN):
        raise InputError(
            f"axis {name!r} does not exist; choose {TURN} or a field: {', '.join(fields)}"
        )
    if not values:
        raise InputError(f"axis {name!r} has no values; name at least one")
    for value in values:
        if "&" in str(value):  # in an address another field would follow
            raise InputError(f"axis {name!r}: {value!r} is no value of a field")


def _find_point(base: str, at: Mapping[str, object], context: int, steps: int) -> Point:
    address = base + "".join(_assignments(base, at))
    config, _ = parse_live(address)
    shortest = config.frames.low
    if "frames" in at:
        steps = shortest - context
        if steps < 1:
            raise InputError(
                f"{address}: a context of {context} leaves none of {shortest} frames to predict; "
                f"ask for {context + 1} or more"
            )
    elif shortest < context + steps:
        raise InputError(
            f"{address}: sequences have {shortest} frames, context {context} and predict {steps} "
            f"need {context + steps}; add frames={context + steps}"
        )
    open_source(address, SPLIT)  # refuses what no glyph fits into
    written = config.model_dump() | {TURN: config.turn_chance}
    return Point({name: written[name] for name in at}, address, config.frame_shape, steps)


def _assignments(base: str, at: Mapping[str, object]) -> Iterator[str]:
    """Yield what follows the base: ?FIELD=VALUE, then &FIELD=VALUE."""
    mark = "&" if "?" in base else "?"
    for name, value in at.items():
        yield f"{mark}motion=turn&turn_chance={value}" if name == TURN else f"{mark}{name}={value}"
        mark = "&"
