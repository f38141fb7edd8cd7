"""An evaluation as the rows of a table, for a terminal or a page."""

from typing import Any

from trainer.metrics import METRICS


def shown_metrics(result: dict[str, Any]) -> list[str]:
    """Return the metrics that an evaluation has: LPIPS only if it was asked for."""
    model = result["prediction"] or result["reconstruction"]
    return [metric for metric in METRICS if metric in model]


def metric_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return a row a predictor: its name, then `shown_metrics`.

    What is said of the future comes first: the model, the baselines, the entropy floor. Behind it
    stands what is said of the context.
    """
    metrics = shown_metrics(result)
    future = {**_of_head(result, "prediction"), **result["baselines"]}
    rows = [[name, *_cells(table, metrics)] for name, table in future.items()]
    rows += _floor(result, metrics)
    past = _of_head(result, "reconstruction")
    return rows + [[name, *_cells(table, metrics)] for name, table in past.items()]


def _of_head(result: dict[str, Any], head: str) -> dict[str, dict[str, Any]]:
    """Return what a decoder scored, on its own output and teacher-forced, if it is there."""
    forced = (result.get("teacher_forced") or {}).get(head)
    found = {head: result[head], f"{head}, teacher-forced": forced}
    return {name: table for name, table in found.items() if table is not None}


def skill_line(result: dict[str, Any]) -> str | None:
    """Say what share of the way from the mean frame to the known dynamics a model has gone."""
    if result["skill"] is None:
        return None
    bounds = result["skill_interval"]
    within = f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else ""
    return f"skill {result['skill']:.3f}{within}: 0 is the mean frame, 1 the known dynamics"


def elsewhere_rows(elsewhere: dict[str, Any]) -> list[list[str]]:
    """Return a row a kind of sequences: its name, the MSE of the model and two baselines, skill."""
    rows = []
    for name, result in elsewhere.items():
        if result is None or result["prediction"] is None:
            rows.append([name, *["n/a"] * 4])
            continue
        known = [result["baselines"][other] for other in ("mean frame", "known dynamics")]
        errors = [table and table["mse"] for table in (result["prediction"], *known)]
        cells = ["n/a" if error is None else f"{error:.1f}" for error in errors]
        skill = result["skill"]
        rows.append([name, *cells, "n/a" if skill is None else f"{skill:.3f}"])
    return rows


def _floor(result: dict[str, Any], metrics: list[str]) -> list[list[str]]:
    if result["entropy_floor"] is None:
        return []
    best = {name: METRICS[name].best for name in metrics} | {"ce": result["entropy_floor"]}
    return [["entropy floor", *(METRICS[name].written(best[name]) for name in metrics)]]


def _cells(table: dict[str, Any] | None, metrics: list[str]) -> list[str]:
    if table is None:
        return ["n/a"] * len(metrics)
    return [METRICS[name].written(table[name]) for name in metrics]
