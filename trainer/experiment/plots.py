"""An experiment as two pictures: scores with their intervals, and curves over the steps."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmgen.shard.manifest import write_atomic
from trainer.experiment.looks import Comparison, curve_metrics, find_comparisons, mean_curve
from trainer.experiment.results import Row, Table
from trainer.result_files import as_png
from trainer.seeds import Estimate

_LINES = ("-", "--", ":", "-.")


def write_results(path: Path, table: Table) -> None:
    """Draw a panel a metric: a row's mean, its interval, and a point for each seed."""
    asked = table.experiment.metrics
    known = [metric for metric in asked if any(row.estimate(metric) for row in table.rows)]
    metrics = known or asked[:1]
    height = 1.2 + 0.45 * len(table.rows)
    figure = Figure(figsize=(1.5 + 4 * len(metrics), height), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for place, row in enumerate(table.rows):
            _draw_row(axes, place, row, metric, _style(table, row)[0])
        axes.set(xlabel=metric)
        axes.grid(alpha=0.3, axis="x")
    labels = [table.label(row) for row in table.rows]
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].set_ylim(len(labels) - 0.4, -0.6)  # the first row on top
    _save(figure, path, table)


def _draw_row(axes: Axes, place: int, row: Row, metric: str, color: str) -> None:
    estimate = row.estimate(metric)
    if estimate is None:
        return
    values = list(row.values(metric).values())
    axes.plot(values, [place + 0.18] * len(values), "o", color=color, alpha=0.5, markersize=3)
    if estimate.interval is not None:
        axes.plot(estimate.interval, [place] * 2, color=color, linewidth=2)
    axes.plot([estimate.mean], [place], "D", color=color, markersize=6)


def write_curves(path: Path, table: Table) -> None:
    """Draw a panel a metric that looks at val have: means over the steps, and their intervals.

    Below it, where rows can be compared while they train, their differences seed by seed; a circle
    marks the step from which on they are apart.
    """
    metrics = curve_metrics(table)
    if not metrics:
        path.unlink(missing_ok=True)
        return
    comparisons = find_comparisons(table)
    num_lines = 2 if comparisons else 1
    size = (7 * len(metrics), 4 * num_lines)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(num_lines, len(metrics), sharex=True, squeeze=False)
    for column, metric in enumerate(metrics):
        axes = panels[0][column]
        for row in table.rows:
            _draw_curve(axes, table, row, metric)
        axes.set(ylabel=f"{metric} on val")
        if axes.lines:
            axes.legend(frameon=False)
        if comparisons:
            mine = [found for found in comparisons if found.metric == metric]
            _draw_differences(panels[1][column], table, mine)
        panels[-1][column].set(xlabel="step")
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    _save(figure, path, table)


def _draw_curve(axes: Axes, table: Table, row: Row, metric: str) -> None:
    passes = "" if row.passes is None else f" ({row.passes:.1f} passes)"
    _draw_band(axes, mean_curve(row, metric), _style(table, row), table.label(row) + passes)


def _draw_differences(axes: Axes, table: Table, comparisons: list[Comparison]) -> None:
    """Draw them as wide as they are in the second half: at first chance alone is larger."""
    axes.axhline(0, color="black", linewidth=0.8)
    late: list[float] = [0.0]
    for found in comparisons:
        style = _style(table, found.row)
        _draw_band(axes, found.differences, style, table.label(found.row))
        half = max(found.differences) / 2
        for step, difference in found.differences.items():
            late += (difference.interval or ()) if step > half else ()
        if found.parting is not None:
            mean = found.differences[found.parting].mean
            axes.plot([found.parting], [mean], "o", color=style[0], markersize=7, fillstyle="none")
    room = 0.05 * (max(late) - min(late)) or 1.0
    axes.set(ylabel="difference, seed by seed", ylim=(min(late) - room, max(late) + room))


def _draw_band(axes: Axes, curve: dict[int, Estimate], style: tuple[str, str], label: str) -> None:
    if not curve:
        return
    color, line = style
    steps = list(curve)
    means = [estimate.mean for estimate in curve.values()]
    axes.plot(steps, means, line, color=color, label=label, linewidth=1.5)
    intervals = [estimate.interval for estimate in curve.values() if estimate.interval]
    if len(intervals) == len(steps):
        lows, highs = zip(*intervals, strict=True)
        axes.fill_between(steps, lows, highs, color=color, alpha=0.15, linewidth=0)


def _style(table: Table, row: Row) -> tuple[str, str]:
    """Return a colour for each variant and a line for each row of data, or colours alone."""
    variant = list(table.experiment.variants).index(row.variant)
    data = list(table.experiment.data).index(row.data)
    if len(table.experiment.variants) == 1:
        return f"C{data % 10}", _LINES[0]
    return f"C{variant % 10}", _LINES[data % len(_LINES)]


def _save(figure: Figure, path: Path, table: Table) -> None:
    figure.suptitle(table.experiment.title)
    write_atomic(path, as_png(figure))
