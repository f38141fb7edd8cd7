"""The result of probing for people: tables, a CSV file, and curves over the number of labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen.shard.manifest import write_atomic
from trainer.probe_targets import MEASURES
from trainer.result_files import as_csv, as_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CSV_NAME, CURVES_NAME = "scores.csv", "few_labels.png"
_TITLES = {
    "digits": "digits",
    "all_digits": "all digits",
    "position": "position R2",
    "velocity": "velocity R2",
}
# (encoder, probe) -> its curve; the order is that of the table's columns and of the legend.
_CURVES = {
    ("frozen", "linear"): ("tab:blue", "-"),
    ("frozen", "mlp"): ("tab:blue", "--"),
    ("fine-tuned", "linear"): ("tab:green", "-"),
    ("scratch", "linear"): ("tab:red", "-"),
    ("random", "linear"): ("tab:gray", "-"),
}

Row = Mapping[str, Any]
Table = tuple[list[str], list[list[str]]]  # header and rows


def written(score: Row) -> str:
    """Write a value, without its interval."""
    return "-" if score["value"] is None else f"{score['value']:.3f}"


def all_label_table(result: Mapping[str, Any]) -> Table:
    """Return every measure with its interval, of probes that learned from all labels."""
    rows = [
        [f"{row['encoder']} {row['probe']}", *(_with_interval(row[name]) for name in MEASURES)]
        for row in result["rows"]
        if row["labels"] is None
    ]
    return ["probe", *(_TITLES[name] for name in MEASURES)], rows


def few_label_table(result: Mapping[str, Any], measure: str) -> Table:
    """Return one measure, a row a number of labels, a column an encoder and its probe."""
    cells = {_key(row): written(row[measure]) for row in result["rows"]}
    sequences = {row["labels"]: row["sequences"] for row in result["rows"]}
    few = sorted(labels for labels in sequences if labels is not None)
    rows = [
        [
            "all" if labels is None else str(labels),
            str(sequences[labels]),
            *(cells[curve, labels] for curve in _CURVES),
        ]
        for labels in (*few, None)
    ]
    return ["labels", "sequences", *(f"{encoder} {probe}" for encoder, probe in _CURVES)], rows


def write_tables(folder: Path, result: Mapping[str, Any]) -> None:
    """Write every score to FOLDER/scores.csv, and the curves to FOLDER/few_labels.png."""
    folder.mkdir(exist_ok=True)
    write_atomic(folder / CSV_NAME, scores_csv(result))
    write_atomic(folder / CURVES_NAME, _curves(result))


def scores_csv(result: Mapping[str, Any]) -> str:
    """Write a line a row; undefined values and all labels are empty."""
    about = ("encoder", "probe", "labels", "sequences")
    ends = ([name, f"{name}_low", f"{name}_high"] for name in MEASURES)
    numbers = (
        (v for m in MEASURES for v in (row[m]["value"], *row[m]["interval"]))
        for row in result["rows"]
    )
    rows = zip(result["rows"], numbers, strict=True)
    return as_csv(
        [*about, *(column for columns in ends for column in columns)],
        ([*(row[name] for name in about), *values] for row, values in rows),
    )


def _key(row: Row) -> tuple[tuple[str, str], int | None]:
    return (row["encoder"], row["probe"]), row["labels"]


def _with_interval(score: Row) -> str:
    low, high = score["interval"]
    return written(score) if low is None else f"{written(score)} {low:.2f}..{high:.2f}"


def _curves(result: Mapping[str, Any]) -> bytes:
    """Draw digits, position and velocity over the labelled sequences, chance as a dotted line."""
    from matplotlib.figure import Figure

    shown = ("digits", "position", "velocity")
    figure = Figure(figsize=(13, 4), layout="constrained")
    for axes, measure in zip(figure.subplots(1, len(shown)), shown, strict=True):
        _draw(axes, result, measure)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    count = result["sequences"]["test"]
    figure.suptitle(f"{count} test sequences, bands: 95 % of their resamples")
    return as_png(figure)


def _draw(axes: "Axes", result: Mapping[str, Any], measure: str) -> None:
    for (encoder, probe), (color, style) in _CURVES.items():
        points = [
            (row["sequences"], row[measure]["value"], *row[measure]["interval"])
            for row in result["rows"]
            if (row["encoder"], row["probe"]) == (encoder, probe)
            and None not in (row[measure]["value"], *row[measure]["interval"])
        ]
        if points:
            sequences, values, low, high = zip(*sorted(points), strict=True)
            axes.plot(sequences, values, style, color=color, marker=".", label=f"{encoder} {probe}")
            axes.fill_between(sequences, low, high, color=color, alpha=0.12, linewidth=0)
    chance = next(row for row in result["rows"] if row["probe"] == "chance")[measure]["value"]
    if chance is not None:
        axes.axhline(chance, color="black", linestyle=":", label="chance")
    is_share = measure == "digits"
    axes.set(
        xscale="log",
        ylim=(0, 1) if is_share else (-0.25, 1),  # with few labels R2 may lie far below
        xlabel="labelled sequences",
        ylabel="share of digits right" if is_share else _TITLES[measure],
    )
    axes.grid(alpha=0.3)
