"""The plots of what training, evaluation and data say, and their numbers.

Letters: N sequences, T frames.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from trainer.config import TrainConfig
from trainer.data_card import QUANTITIES
from trainer.findings import Evaluation
from trainer.metrics import METRICS
from trainer.plot import Plot, add_legend, as_small_png, new_figure
from trainer.result_files import as_csv

HARDNESS = {
    "overlap": "overlap",
    "bounces": "bounces",
    "speed": "speed (px per frame)",
}
_STYLES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
_COLORS = {"reconstruction": "tab:green", "prediction": "tab:blue"}
_NUM_BINS = 8
_MIN_SHARE = 0.01
_BAND = (0.1, 0.9)

Points = list[tuple[int, float]]


def loss_curves(
    lines: Sequence[Mapping[str, Any]], config: TrainConfig, frame_shape: Sequence[int]
) -> Plot:
    """Draw the losses of training and of the looks at val over the steps, per frame."""
    metric = config.optimizer.loss
    figure, axes = new_figure()
    rows, ends = [], []
    for head, color in _COLORS.items():
        trained = _training_losses(lines, head, config, frame_shape)
        looks = [
            (line["step"], line["val"][head].get(metric))
            for line in lines
            if "val" in line and head in line["val"]
        ]
        if trained:
            axes.plot(*zip(*trained, strict=True), color=color, label=head, linewidth=1)
            ends.append(f"{head} from {trained[0][1]:.1f} to {trained[-1][1]:.1f}")
        seen = [(step, value) for step, value in looks if value is not None]
        if seen:
            axes.plot(
                *zip(*seen, strict=True), "o", color=color, label=f"{head}, val", markersize=4
            )
        rows += [(step, head, "train", value) for step, value in trained]
        rows += [(step, head, "val", value) for step, value in looks]
    unit = "MSE per frame" if metric == "mse" else "cross-entropy per frame (nats)"
    axes.set(xlabel="step", ylabel=unit)
    if ends:
        add_legend(figure)
    axes.grid(alpha=0.3)
    alt = f"{unit} over the steps of training: {'; '.join(ends) or 'nothing logged yet'}."
    csv = as_csv(("step", "decoder", "split", metric), rows)
    return Plot("loss", "Loss", alt, as_small_png(figure), csv)


def _training_losses(
    lines: Sequence[Mapping[str, Any]], head: str, config: TrainConfig, frame_shape: Sequence[int]
) -> Points:
    """Return the losses of a decoder as what scores are: sums over a frame's values."""
    is_mean = config.optimizer.loss_reduction == "mean"
    data = config.data
    num_frames = data.predict if head == "prediction" else data.num_reconstructed
    factor = math.prod(frame_shape) if is_mean else 1 / (data.batch_size * num_frames)
    key = f"{head}_loss"
    return [(line["step"], factor * line[key]) for line in lines if line.get(key) is not None]


def horizon_curves(
    evaluation: Evaluation, sequences: Mapping[str, NDArray[np.float64]]
) -> Iterator[Plot]:
    """Yield each metric over the frames, of the model and the baselines.

    sequences  columns HEAD_mse_1, ... give the band that holds most sequences, where there are such
    """
    predictors = evaluation.predictors()
    for metric in METRICS:
        lines = {
            name: [math.nan if value is None else value for value in scores.per_frame[metric]]
            for name, scores in predictors.items()
            if any(value is not None for value in scores.per_frame.get(metric, []))
        }
        if "model" in lines:
            band = _band(f"{evaluation.head}_{metric}", len(lines["model"]), sequences)
            yield _horizon_curve(evaluation, metric, lines, band)


def _band(
    column: str, num_frames: int, sequences: Mapping[str, NDArray[np.float64]]
) -> dict[str, list[float]]:
    """Return the lower and the upper bound of what most sequences score in each frame, if known."""
    scores = [sequences.get(f"{column}_{frame + 1}", np.empty(0)) for frame in range(num_frames)]
    if not all(len(of_frame) and np.isfinite(of_frame).all() for of_frame in scores):
        return {}
    bounds = np.quantile(np.stack(scores), _BAND, axis=1)
    return {
        f"model, {share:.0%}": bound.tolist() for share, bound in zip(_BAND, bounds, strict=True)
    }


def _horizon_curve(
    evaluation: Evaluation,
    metric: str,
    lines: Mapping[str, list[float]],
    band: Mapping[str, list[float]],
) -> Plot:
    figure, axes = new_figure()
    if band:
        frames = range(1, len(lines["model"]) + 1)
        low, high = band.values()
        axes.fill_between(frames, low, high, color="tab:blue", alpha=0.18, linewidth=0)
    for number, name in enumerate(evaluation.predictors()):  # of one colour in every plot
        if name in lines:
            frames = range(1, len(lines[name]) + 1)
            axes.plot(frames, lines[name], label=name, marker=".", **_style(number))
    label, where = METRICS[metric].title, "after" if evaluation.head == "prediction" else "of"
    axes.set(xlabel=f"frames {where} the context", ylabel=f"{label} per frame")
    if METRICS[metric].lowest is not None:
        axes.set_ylim(METRICS[metric].lowest, None)
    add_legend(figure)
    axes.grid(alpha=0.3)
    ends = "; ".join(f"{name} {_ends(values)}" for name, values in lines.items())
    columns = {**lines, **band}
    rows = enumerate(zip_longest(*columns.values()), 1)
    known = ((t, *(None if v is None or math.isnan(v) else v for v in row)) for t, row in rows)
    return Plot(
        f"horizon_{metric}",
        label,
        f"{label} by frame {where} the context: {ends}.",
        as_small_png(figure),
        as_csv(("frame", *columns), known),
        "The band holds 80 % of the sequences." if band else "",
    )


def _style(number: int) -> dict[str, Any]:
    """Return how a predictor's line is drawn, of which the model is number 0."""
    if not number:
        return {"color": "tab:blue", "linewidth": 2.4, "zorder": 3}
    return {"color": f"C{number}", "linestyle": _STYLES[number % len(_STYLES)]}


def _ends(values: Sequence[float]) -> str:
    return f"{values[0]:.4g} to {values[-1]:.4g}"


def histograms(counted: Mapping[str, NDArray[np.float64]]) -> Iterator[Plot]:
    """Yield a histogram of each quantity of `data_card.measure`."""
    for name, values in counted.items():
        what, of_what = QUANTITIES[name]
        is_whole = name in ("label", "digits", "bounces")
        if not is_whole:  # float32 is no reason to see a speed as several
            values = values.round(4)
        low, high = values.min(), values.max()
        edges: NDArray[np.float64] = np.linspace(low, high if high > low else low + 1, 31)
        if is_whole and high - low < 60:
            edges = np.arange(low, high + 2) - 0.5
        heights, edges = np.histogram(values, edges)
        figure, axes = new_figure(2.4)
        axes.stairs(heights, edges, fill=True)
        axes.set(xlabel=what, ylabel=of_what, ylim=(0, None))
        if is_whole:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        rows = zip(edges[:-1].tolist(), edges[1:].tolist(), heights.tolist(), strict=True)
        alt = (
            f"Histogram of {what}: from {low:.4g} to {high:.4g}, "
            f"mean {values.mean():.4g}, {len(values):,} {of_what}."
        )
        csv = as_csv(("from", "to", of_what), rows)
        yield Plot(f"data_{name}", _title(what), alt, as_small_png(figure), csv)


def _title(text: str) -> str:
    return text[0].upper() + text[1:]


def hardness(head: str, sequences: Mapping[str, NDArray[np.float64]]) -> Iterator[Plot]:
    """Yield the error of single sequences against each property that makes them hard."""
    errors = sequences.get(f"{head}_mse", np.empty(0))
    for name, label in HARDNESS.items():
        values = sequences.get(name, np.empty(0))
        if len(values) != len(errors):
            continue
        is_known = np.isfinite(values) & np.isfinite(errors)
        x, y = values[is_known].round(4), errors[is_known]
        if len(np.unique(x)) < 2:
            continue
        centres, means = _binned(x, y)
        figure, axes = new_figure()
        axes.scatter(x, y, s=6, alpha=0.35, linewidths=0, label="sequences")
        axes.plot(centres, means, "o-", color="tab:orange", linewidth=2, label="mean")
        axes.set(xlabel=label, ylabel=f"MSE of the {head}", ylim=(0, None))
        add_legend(figure)
        axes.grid(alpha=0.3)
        alt = f"MSE of each sequence against its {label}: the mean goes from {_ends(means)}."
        index = sequences["index"][is_known].astype(int).tolist()
        csv = as_csv(("index", name, "mse"), zip(index, x.tolist(), y.tolist(), strict=True))
        yield Plot(f"sequences_{name}", _title(label), alt, as_small_png(figure), csv)


def _binned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Return centres and means of equal bins, of those that hold a share worth a mean."""
    edges = np.linspace(x.min(), x.max(), _NUM_BINS + 1)
    places = np.clip(np.searchsorted(edges, x, "right") - 1, 0, _NUM_BINS - 1)
    sizes = np.bincount(places, minlength=_NUM_BINS)
    full = np.flatnonzero(sizes >= _MIN_SHARE * len(x))
    centres = [float(x[places == place].mean()) for place in full]
    return centres, [float(y[places == place].mean()) for place in full]
