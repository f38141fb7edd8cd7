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
from trainer.config import parse_config
from trainer.errors import InputError
from trainer.evaluation import EVALUATION_NAME, metric_rows
from trainer.log import read_jsonl
from trainer.rollout import animation, roll_out_sequence
from trainer.source import open_source

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
        sequences = open_source(evaluation["data"], evaluation["split"])
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
        loss_curve=_as_data_url(_loss_curve(lines, checkpoint["frame_shape"]), "png"),
        evaluation=evaluation,
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
        named = {"model": evaluation["prediction"], **evaluation["baselines"]}
        complete = all(scores["per_frame"]["mse"] for scores in named.values())
        if not complete or not all(evaluation[key] for key in ("data", "split", "sequences")):
            raise ValueError("empty")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: does not parse; run `mmtrain evaluate` again") from error
    return evaluation


def _loss_curve(lines: list[dict[str, Any]], frame_shape: list[int]) -> bytes:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    trained = [line for line in lines if "loss" in line]
    watched = [line for line in lines if "val" in line]
    num_values = math.prod(frame_shape)  # the loss is a mean over pixels, scores are sums
    for name, color in (("reconstruction", "tab:green"), ("prediction", "tab:blue")):
        errors = [line[f"{name}_loss"] * num_values for line in trained]
        axes.plot([line["step"] for line in trained], errors, color, label=name, linewidth=1)
        errors = [line["val"][name]["mse"] for line in watched]
        axes.plot(
            [line["step"] for line in watched], errors, "o", color=color, label=f"{name}, val"
        )
    axes.set(xlabel="step", ylabel="MSE per frame")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3, which="both")
    return _png(figure)


def _horizon_curve(evaluation: dict[str, Any]) -> bytes:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    named = {"model": evaluation["prediction"], **evaluation["baselines"]}
    for name, scores in named.items():
        errors = scores["per_frame"]["mse"]
        style = {"linewidth": 2.2} if name == "model" else {"linestyle": "--", "linewidth": 1.2}
        axes.plot(range(1, len(errors) + 1), errors, label=name, marker=".", **style)
    axes.set(xlabel="frames after the context", ylabel="MSE per frame", ylim=(0, None))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _as_data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
