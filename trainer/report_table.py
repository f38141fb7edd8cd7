"""The scores of an evaluation as the rows of one table, published ones behind them."""

from dataclasses import dataclass

from trainer.curves import METRICS
from trainer.findings import Evaluation, Scores
from trainer.published import CANVAS, CONTEXT, PREDICT, PUBLISHED, Published
from trainer.tables import METRIC_COLUMNS

PUBLISHED_METRICS = {name: said for name, said in METRICS.items() if name in Published._fields}
_DIGITS = {metric: digits for metric, _, digits in METRIC_COLUMNS}
_PERFECT = {"mse": 0.0, "mae": 0.0, "ssim": 1.0, "ssim_openstl": 1.0, "lpips": 0.0}


@dataclass(frozen=True)
class Row:
    """A line of the table.

    cells  a number and, where it is known, its 95 % interval, for each metric that is shown
    """

    name: str
    cells: list[tuple[str, str]]
    is_model: bool = False


def shown_metrics(evaluation: Evaluation) -> list[str]:
    """Return the metrics that were measured."""
    return [metric for metric in METRICS if metric in evaluation.model.per_frame]


def score_rows(evaluation: Evaluation) -> list[Row]:
    """Return what the model scores, beside the predictors that know nothing or everything."""
    metrics = shown_metrics(evaluation)
    rows = []
    taught = evaluation.teacher_forced
    for head, scores, shown_truth in (
        ("prediction", evaluation.prediction, taught and taught.prediction),
        ("reconstruction", evaluation.reconstruction, taught and taught.reconstruction),
    ):
        if scores:
            rows.append(Row(head, _cells(scores, metrics), is_model=True))
        if shown_truth:
            rows.append(Row(f"{head}, teacher-forced", _cells(shown_truth, metrics)))
        if head == "prediction" and scores:
            rows += [
                Row(name, _cells(baseline, metrics))
                for name, baseline in evaluation.predictors().items()
                if name != "model"
            ]
            floor = Scores(ce=evaluation.entropy_floor, per_frame={"mse": [0.0]}, **_PERFECT)
            rows.append(Row("entropy floor", _cells(floor, metrics)))
    return rows


def _cells(scores: Scores, metrics: list[str]) -> list[tuple[str, str]]:
    cells = []
    for metric in metrics:
        digits, interval = _DIGITS[metric], scores.interval.get(metric)
        around = "" if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"
        cells.append((_written(metric, getattr(scores, metric)), around))
    return cells


def _written(metric: str, value: float | None) -> str:
    if value is None:
        return "n/a" if metric in ("ssim", "ssim_openstl", "lpips") else "infinite"
    return f"{value:.{_DIGITS[metric]}f}"


def is_published_task(frame_shape: tuple[int, ...], context: int | None, predict: int) -> bool:
    """Tell whether published numbers are of this task: 10 frames of 64 x 64 after 10."""
    return (frame_shape, context, predict) == (CANVAS, CONTEXT, PREDICT)


def published_rows() -> dict[tuple[str, str], list[Row]]:
    """Return (source, test set) -> the rows of `published.py`, a dash where one has no number."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in PUBLISHED:
        values = {metric: getattr(row, metric) for metric in PUBLISHED_METRICS}
        cells = [("-" if v is None else _written(metric, v), "") for metric, v in values.items()]
        groups.setdefault((row.source, row.test_set), []).append(Row(row.method, cells))
    return groups
