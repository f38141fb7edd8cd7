"""The scores of an evaluation as the rows of one table, published ones behind them."""

from dataclasses import dataclass

from trainer.findings import Evaluation, Scores
from trainer.metrics import METRICS
from trainer.published import CANVAS, CONTEXT, PREDICT, PUBLISHED, Published

PUBLISHED_METRICS = {n: METRICS[n].title for n in METRICS if n in Published._fields}


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
            best = {metric: METRICS[metric].best for metric in metrics}
            best |= {"ce": evaluation.entropy_floor}
            floor = Scores.model_validate(best | {"per_frame": {"mse": [0.0]}})
            rows.append(Row("entropy floor", _cells(floor, metrics)))
    return rows


def _cells(scores: Scores, metrics: list[str]) -> list[tuple[str, str]]:
    cells = []
    for metric in metrics:
        written, interval = METRICS[metric].written, scores.interval.get(metric)
        around = "" if interval is None else f"{written(interval[0])} to {written(interval[1])}"
        cells.append((written(scores.mean(metric)), around))
    return cells


def is_published_task(frame_shape: tuple[int, ...], context: int | None, predict: int) -> bool:
    """Tell whether published numbers are of this task: 10 frames of 64 x 64 after 10."""
    return (frame_shape, context, predict) == (CANVAS, CONTEXT, PREDICT)


def published_rows() -> dict[tuple[str, str], list[Row]]:
    """Return (source, test set) -> the rows of `published.py`, a dash where one has no number."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in PUBLISHED:
        values = {metric: getattr(row, metric) for metric in PUBLISHED_METRICS}
        cells = [("-" if v is None else METRICS[name].written(v), "") for name, v in values.items()]
        groups.setdefault((row.source, row.test_set), []).append(Row(row.method, cells))
    return groups
