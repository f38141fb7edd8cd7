"""An evaluation as the rows of a table, for a terminal or a page."""

from typing import Any

# Key, heading, digits behind the point.
METRIC_COLUMNS = (
    ("mse", "MSE", 1),
    ("mae", "MAE", 1),
    ("psnr", "PSNR (dB)", 2),
    ("ssim", "SSIM", 3),
    ("ssim_openstl", "SSIM (OpenSTL)", 3),
    ("ce", "CE (nats)", 1),
    ("lpips", "LPIPS", 3),
)
EXPLAINED = (
    "Means over sequences and frames. MSE and MAE are summed over a frame's pixels before "
    "clipping; PSNR and SSIM are of clipped frames, SSIM with a data range of 1 and, as in "
    "OpenSTL's tables, of 2; CE clips what is no probability to [0.001, 0.999]."
)


def metric_columns(result: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Return those of METRIC_COLUMNS that an evaluation has: LPIPS only if it was asked for."""
    model = result["prediction"] or result["reconstruction"]
    return [column for column in METRIC_COLUMNS if column[0] in model]


def metric_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return a row a predictor: its name, then `metric_columns`.

    What is said of the future comes first: the model, the baselines, the entropy floor. Behind it
    stands what is said of the context.
    """
    columns = metric_columns(result)
    future = {**_of_head(result, "prediction"), **result["baselines"]}
    rows = [[name, *_cells(table, columns)] for name, table in future.items()]
    rows += _floor(result, columns)
    past = _of_head(result, "reconstruction")
    return rows + [[name, *_cells(table, columns)] for name, table in past.items()]


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


def _floor(result: dict[str, Any], columns: list[tuple[str, str, int]]) -> list[list[str]]:
    if result["entropy_floor"] is None:
        return []
    known = {"mse": "0.0", "mae": "0.0", "ce": f"{result['entropy_floor']:.1f}"}
    cells = [known.get(key, "") for key, _, _ in columns]
    return [["entropy floor", *cells]]


def _cells(table: dict[str, Any] | None, columns: list[tuple[str, str, int]]) -> list[str]:
    if table is None:
        return ["n/a"] * len(columns)
    return [_written(key, table[key], digits) for key, _, digits in columns]


def _written(key: str, value: float | None, digits: int) -> str:
    if value is None:  # a similarity is undefined for tiny frames, an error is infinite
        return "n/a" if key in ("ssim", "ssim_openstl", "lpips") else "infinite"
    return f"{value:.{digits}f}"
