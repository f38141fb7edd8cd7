"""Figures of difficulty: curves along one axis, maps over two.

Letters: M models, A and B values of the first and the second axis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trainer.difficulty_axes import Value, as_label
from trainer.result_files import as_png

# What the numbers of an axis are, where its name does not say it.
_UNITS = {
    "speed": "px per frame",
    "acceleration": "px per frame^2",
    "gravity": "px per frame^2",
    "turn": "chance in each frame",
    "rotation": "degrees per frame",
    "scale": "factor per frame",
    "illumination": "factor per frame",
    "noise": "standard deviation in grey levels",
    "occluder_size": "px",
    "missing": "share of the frames",
}
# Skill is 0 and 1 there: name, column of the error, skill, how it is drawn.
_LIMITS = (
    ("mean frame", "mean_frame_mse", 0.0, {"color": "0.55", "linestyle": "--"}),
    ("known dynamics", "known_dynamics_mse", 1.0, {"color": "0.15", "linestyle": ":"}),
)
_ERROR, _SKILL = "MSE per frame", "skill"
_CELL_INCHES = (0.62, 0.42)
_NARROWEST = 6  # inches: the title has its place

Column = NDArray[np.float64]


@dataclass(frozen=True)
class _Axis:
    """An axis as it is drawn: numbers in order and to scale, words and ranges as they come."""

    name: str
    given: Sequence[Value]

    @property
    def _is_scale(self) -> bool:
        return not any(isinstance(value, str) for value in self.given)

    @property
    def order(self) -> list[int]:
        places = range(len(self.given))
        return sorted(places, key=lambda place: self.given[place]) if self._is_scale else [*places]

    @property
    def labels(self) -> list[str]:
        return [as_label(self.given[place]) for place in self.order]

    @property
    def places(self) -> Column:
        scale = [self.given[place] for place in self.order] if self._is_scale else self.order
        return np.array(scale, np.float64)

    @property
    def title(self) -> str:
        unit = _UNITS.get(self.name)
        return f"{self.name} ({unit})" if unit and self._is_scale else self.name


def draw(
    title: str,
    models: Sequence[str],
    axes: Mapping[str, Sequence[Value]],
    table: Sequence[Mapping[str, Any]],
) -> bytes:
    """Draw a PNG of error and skill: curves with intervals along one axis, maps over two.

    table  a row a model and point, with mse, mse_low, mse_high, the same of skill, and the errors
           of mean frame and known dynamics; the models alternate, the last axis follows. None is
           a gap
    """
    drawn = [_Axis(name, values) for name, values in axes.items()]

    def column(name: str) -> Column:
        flat = np.array([row[name] for row in table], np.float64)
        array = np.moveaxis(flat.reshape(*(len(a.given) for a in drawn), len(models)), -1, 0)
        for place, axis in enumerate(drawn, 1):
            array = array.take(axis.order, place)
        return array  # (M, A) or (M, A, B)

    figure = Figure(layout="constrained")
    if len(drawn) == 1:
        names = [f"{what}{end}" for what in ("mse", "skill") for end in ("", "_low", "_high")]
        columns = {name: column(name) for name in (*names, *(limit[1] for limit in _LIMITS))}
        _draw_curves(figure, models, drawn[0], columns)
    else:
        _draw_maps(figure, models, drawn, column("mse"), column("skill"))
    figure.suptitle(title, fontsize="medium")
    return as_png(figure)


def _draw_curves(
    figure: Figure, models: Sequence[str], axis: _Axis, columns: Mapping[str, Column]
) -> None:
    """Draw error above skill, with their intervals (M, A), between the two limits of skill."""
    figure.set_size_inches(7, 6.5)
    error, skill = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for panel, what in ((error, "mse"), (skill, "skill")):
        for number, name in enumerate(models):
            color = f"C{number}"
            low, high = (columns[f"{what}_{end}"][number] for end in ("low", "high"))
            panel.plot(axis.places, columns[what][number], color, marker=".", lw=2, label=name)
            panel.fill_between(axis.places, low, high, color=color, alpha=0.2, linewidth=0)
        panel.grid(alpha=0.3)
    for name, column, skill_there, style in _LIMITS:
        error.plot(axis.places, columns[column][0], label=name, **style)
        skill.axhline(skill_there, **style)
    error.set(ylabel=_ERROR, ylim=(0, None))
    skill.set(ylabel=_SKILL, xlabel=axis.title)
    skill.set_xticks(axis.places, axis.labels)
    error.legend(frameon=False, title="bands: 95 % intervals")


def _draw_maps(
    figure: Figure,
    models: Sequence[str],
    axes: Sequence[_Axis],
    errors: Column,
    skills: Column,
) -> None:
    """Draw error beside skill (M, A, B), a line of two maps a model, numbers in their cells."""
    across, up = axes
    width, height = (
        inches * len(axis.given) for inches, axis in zip(_CELL_INCHES, axes, strict=True)
    )
    figure.set_size_inches(max(2 * (width + 1.5), _NARROWEST), len(models) * (height + 1) + 0.4)
    panels = figure.subplots(len(models), 2, squeeze=False, sharex=True, sharey=True)
    for side, (title, values, form) in enumerate(
        ((_ERROR, errors, ".0f"), (_SKILL, skills, ".2f"))
    ):
        limits = float(np.fmin.reduce(values.ravel())), float(np.fmax.reduce(values.ravel()))
        for panel, name, cells in zip(panels[:, side], models, values, strict=True):
            _draw_map(panel, cells.T, limits, form)
            panel.set_title(title if len(models) == 1 else f"{name}: {title}", fontsize="medium")
            panel.set_xticks(range(len(across.given)), across.labels)
            panel.set_yticks(range(len(up.given)), up.labels)
        panel.set_xlabel(across.title)
    for line in panels:
        line[0].set_ylabel(up.title)


def _draw_map(panel: Axes, cells: Column, limits: tuple[float, float], form: str) -> None:
    """Draw cells (B, A), the first line at the bottom; dark is low, as the numbers say."""
    panel.imshow(cells, "viridis", aspect="auto", origin="lower", vmin=limits[0], vmax=limits[1])
    middle = sum(limits) / 2
    for (row, column), value in np.ndenumerate(cells):
        panel.text(
            column,
            row,
            "-" if np.isnan(value) else f"{value:{form}}",
            color="white" if value < middle else "black",
            ha="center",
            va="center",
            fontsize="small",
        )
