"""What a run learned, as tables, curves and one self-contained HTML page."""

import base64
import io
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from mmgen.shard.manifest import write_atomic
from trainer.checkpoint import latest_checkpoint, load_checkpoint, restore_model
from trainer.config import TrainConfig, parse_config
from trainer.errors import InputError
from trainer.evaluated import EVALUATION_NAME
from trainer.log import read_jsonl
from trainer.rollout import animation, roll_out_sequence
from trainer.source import open_scored
from trainer.tables import METRIC_COLUMNS, metric_rows

_NUM_ROLLOUTS = 3


def write_report(run: Path, out: Path, device: str) -> None:
    """Write the page; what has not been evaluated is said to be missing."""
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: is no folder; make it first")
    checkpoint = load_checkpoint(latest_checkpoint(run))
    config = parse_config(checkpoint["config"])
    lines = read_jsonl(run / "metrics.jsonl")
    evaluation = _read_evaluation(run / EVALUATION_NAME)
    rollouts: list[str] = []
    if evaluation:
        sequences = open_scored(evaluation["data"], evaluation["split"])
        model = restore_model(checkpoint, device)
        frames = config.data.context, config.data.predict
        rollouts = [
            _as_data_url(animation(roll_out_sequence(model, sequences, index, *frames)), "gif")
            for index in range(min(_NUM_ROLLOUTS, evaluation["sequences"]))
        ]
    template = (files("trainer") / "report.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    html = page.from_string(template).render(
        name=run.resolve().name,
        step=checkpoint["step"],
        config=config.model_dump(),
        parameters=sum(tensor.numel() for tensor in checkpoint["model"].values()),
        loss_curve=_as_data_url(_loss_curve(lines, config, checkpoint["frame_shape"]), "png"),
        evaluation=evaluation,
        columns=[heading for _, heading, _ in METRIC_COLUMNS],
        rows=metric_rows(evaluation) if evaluation else [],
        horizon_curve=_as_data_url(_horizon_curve(evaluation), "png") if evaluation else "",
        rollouts=rollouts,
    )
    write_atomic(out, html)


def _read_evaluation(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        evaluation: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        metric_rows(evaluation)
        complete = all(scores["per_frame"]["mse"] for scores in _along_horizon(evaluation).values())
        if not complete or not all(evaluation[key] for key in ("data", "split", "sequences")):
            raise ValueError("empty")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: does not parse; run `mmtrain evaluate` again") from error
    return evaluation


def _loss_curve(lines: list[dict[str, Any]], config: TrainConfig, frame_shape: list[int]) -> bytes:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    trained = [line for line in lines if "loss" in line]
    watched = [line for line in lines if "val" in line]
    metric = config.optimizer.loss
    for name, color, num_frames in (
        ("reconstruction", "tab:green", config.data.num_reconstructed),
        ("prediction", "tab:blue", config.data.predict),
    ):
        key = f"{name}_loss"
        losses = [(line["step"], line[key]) for line in trained if line.get(key) is not None]
        if not losses:
            continue
        if config.optimizer.loss_reduction == "mean":  # over values, and scores are sums
            factor = float(math.prod(frame_shape))
        else:
            factor = 1 / (config.data.batch_size * num_frames)
        steps, values = zip(*losses, strict=True)
        axes.plot(steps, [factor * value for value in values], color, label=name, linewidth=1)
        looks = [(line["step"], line["val"][name][metric]) for line in watched]
        if looks:
            axes.plot(*zip(*looks, strict=True), "o", color=color, label=f"{name}, val")
    unit = "MSE per frame" if metric == "mse" else "cross-entropy per frame (nats)"
    axes.set(xlabel="step", ylabel=unit)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3, which="both")
    return _png(figure)


def _along_horizon(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return the scores whose curves over the frames are drawn, by name."""
    model = evaluation["prediction"] or evaluation["reconstruction"]
    others = evaluation.get("baselines") or {}
    return {"model": model, **{name: table for name, table in others.items() if table}}


def _horizon_curve(evaluation: dict[str, Any]) -> bytes:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, scores in _along_horizon(evaluation).items():
        errors = scores["per_frame"]["mse"]
        style = {"linewidth": 2.2} if name == "model" else {"linestyle": "--", "linewidth": 1.2}
        axes.plot(range(1, len(errors) + 1), errors, label=name, marker=".", **style)
    where = "frames after the context" if evaluation["prediction"] else "frames of the context"
    axes.set(xlabel=where, ylabel="MSE per frame", ylim=(0, None))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _as_data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
