"""How error and skill change with the difficulty of what is seen: `trainer.difficulty`.

Every point of the axes is a held-out set of its own, rendered as it is scored and never stored.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmgen.shard.manifest import canonical_json, write_atomic
from trainer.address import parse_live
from trainer.difficulty_axes import SPLIT, Point, find_points
from trainer.difficulty_plots import draw
from trainer.metrics import METRICS
from trainer.result_files import as_csv, check_folder
from trainer.scored import Frames
from trainer.scoring import Predict, score
from trainer.source import LIVE_SEQUENCES

DEFAULT_BASE = "live:srivastava"
_LIMITS = ("mean frame", "known dynamics")  # between which skill lies
_NAME = "difficulty"  # of the files, before their ending


def difficulty(
    predict: Predict | Mapping[str, Predict],
    axes: Mapping[str, Sequence[object]],
    out: str | os.PathLike[str],
    *,
    base: str = DEFAULT_BASE,
    num_sequences: int = LIVE_SEQUENCES,
    context: int = 10,
    steps: int = 10,
    about: Mapping[str, Mapping[str, str]] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Score predictors along one or two axes of difficulty; write a table and a figure.

    predict  context uint8 (B, T, H, W) or (B, T, H, W, 3), steps -> float (B, steps, H, W) or
             (B, steps, H, W, 3), not clipped; or several of them by name, for one figure
    axes     {"speed": [1, 2, 4]}: a field of the generator's config, its values numbers, ranges
             "1..2" or words; along "turn" it is the chance that a digit turns in a frame, along
             "frames" all frames after the context are predicted, whatever `steps` says
    out      folder for difficulty.csv (a row a model and point), difficulty.json, difficulty.png
    base     live:PRESET?seed=N&FIELD=VALUE, what all points have in common
    num_sequences  scored at each point        context, steps  frames seen, frames predicted
    about    what difficulty.json shall say of the models, by name
    say      is told of each model and point as it is done
    returns  what difficulty.json holds
    raises   InputError before anything is scored
    """
    models = predict if isinstance(predict, Mapping) else {"model": predict}
    folder = Path(out)
    check_folder(folder)
    points = find_points(base, axes, context, steps)
    result = {
        "base": base,
        "seed": parse_live(base)[1],
        "split": SPLIT,
        "sequences": num_sequences,
        "context": context,
        "models": [{"name": name, **(about or {}).get(name, {})} for name in models],
        "axes": [
            {"name": name, "values": list(dict.fromkeys(point.at[name] for point in points))}
            for name in axes
        ],
        "points": list(_score_points(models, points, num_sequences, context, say)),
    }
    _write(folder, result)
    return result


def rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the table of a result: a row a point and model; None where a number is not finite."""
    return [
        {"model": point["model"], **point["at"]}
        | {name: _look_up(point, path) for name, path in _columns().items()}
        for point in result["points"]
    ]


def _columns() -> dict[str, tuple[str | int, ...]]:
    """Return what is behind a row's place, by where it is in a point of the JSON."""
    scores = [name for name, metric in METRICS.items() if metric.score]
    return {
        "sequences": ("sequences",),
        "steps": ("steps",),
        "mse": ("prediction", "mse"),
        "mse_low": ("prediction", "interval", "mse", 0),
        "mse_high": ("prediction", "interval", "mse", 1),
        **{score: ("prediction", score) for score in scores},
        "skill": ("skill",),
        "skill_low": ("skill_interval", 0),
        "skill_high": ("skill_interval", 1),
        "mean_frame_mse": ("baselines", "mean frame", "mse"),
        "known_dynamics_mse": ("baselines", "known dynamics", "mse"),
        "entropy_floor": ("entropy_floor",),
        "data": ("data",),
    }


def _look_up(scores: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        if scores is None:
            return None
        scores = scores[step]
    return scores


def _score_points(
    models: Mapping[str, Predict],
    points: Sequence[Point],
    num_sequences: int,
    context: int,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Yield what each model scores at each point, and where that is."""
    for point in points:
        limits: Frames = {}  # the same for all models
        for name, predict in models.items():
            scored = score(
                predict,
                point.address,
                split=SPLIT,
                num_sequences=num_sequences,
                context=context,
                steps=point.steps,
                baselines=() if limits else _LIMITS,
            )
            scored = replace(scored, frames=limits | scored.frames)
            limits = {limit: scored.frames[limit] for limit in _LIMITS}
            told = scored.as_json()
            told["baselines"] = {limit: told["baselines"][limit] for limit in _LIMITS}
            say(f"{point}: {name}, MSE {told['prediction']['mse']:.1f} per frame")
            yield {"model": name, "at": dict(point.at), "steps": point.steps, **told}


def _write(out: Path, result: Mapping[str, Any]) -> None:
    table = rows(result)
    picture = draw(
        f"{result['base']}\n{result['sequences']} sequences of {result['split']} at each point",
        [model["name"] for model in result["models"]],
        {axis["name"]: axis["values"] for axis in result["axes"]},
        table,
    )
    out.mkdir(exist_ok=True)
    write_atomic(out / f"{_NAME}.json", canonical_json(result))
    write_atomic(out / f"{_NAME}.csv", as_csv(list(table[0]), (row.values() for row in table)))
    write_atomic(out / f"{_NAME}.png", picture)
