"""What a run learned as one HTML page that needs nothing else, and every plot of it as files.

Here it is gathered; what is drawn, and how, is said in the modules that are imported.
"""

import base64
import os
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from mmgen.shard.manifest import write_atomic
from trainer.checkpoint import open_run
from trainer.config import TrainConfig
from trainer.curves import hardness, histograms, horizon_curves, loss_curves
from trainer.data_card import NUM_COUNTED, facts, measure, name_test_set
from trainer.errors import InputError
from trainer.evaluation import check_fits
from trainer.findings import Evaluation, read_evaluation, read_finding, read_sequences
from trainer.inside_plots import NUM_PATHS, activity_plot, trajectory_plot, weight_sheets
from trainer.log import read_jsonl
from trainer.metrics import METRICS, explained
from trainer.model import VideoAutoencoder
from trainer.player import Animation, rollout_animation, sample_animation
from trainer.plot import Plot, write_plot
from trainer.report_table import (
    PUBLISHED_METRICS,
    is_published_task,
    published_rows,
    score_rows,
    shown_metrics,
)
from trainer.result_files import check_parent
from trainer.rollout import roll_out_sequence
from trainer.run_folder import trained_on
from trainer.source import Source, open_scored
from trainer.tables import elsewhere_rows

_NUM_SAMPLES = 4

Columns = Mapping[str, NDArray[np.float64]]


def write_report(run: Path, out: Path, device: str) -> Path:
    """Write the page, and beside it a folder of its plots as PNG and CSV; return the folder.

    What has not been evaluated, probed or tried is said to be missing. Of a folder that `mmtrain
    score` has left there is a page without what only a model can show.
    """
    folder = _checked_folder(out)
    evaluation = read_evaluation(run)
    content: dict[str, Any] = {
        "name": Path(os.path.realpath(run)).name,
        "evaluation": evaluation,
        "findings": {name: read_finding(run, name) for name in ("difficulty", "probe")},
    }
    if evaluation and evaluation.predictions:
        source = open_scored(evaluation.data, evaluation.split)
        sequences = read_sequences(run, source.count)
        content |= {"config": None} | _scored(evaluation, sequences, source, evaluation.context)
    else:
        content |= _of_model(run, evaluation, device)
    _write_files(folder, content)
    write_atomic(out, _page(content))
    return folder


def _of_model(run: Path, evaluation: Evaluation | None, device: str) -> dict[str, Any]:
    """Gather what a run says of its model, and what the model says of the data."""
    _, step, config, model = open_run(run, device)
    content: dict[str, Any] = {
        "step": step,
        "config": config.model_dump(),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "loss": loss_curves(read_jsonl(run / "metrics.jsonl"), config, model.frame_shape),
        "weights": list(weight_sheets(model)),
        "trained_on": trained_on(run),
    }
    if evaluation:
        content |= _evaluated(run, evaluation, model, config)
    return content


def _checked_folder(out: Path) -> Path:
    """Return the folder beside the page; refuse what cannot be written to, before the work."""
    if out.is_dir():
        raise InputError(f"{out}: is a folder; name a file for the page")
    check_parent(out)
    folder = out.with_name(f"{out.stem}_files")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is no folder, and the plots go there; name another page")
    return folder


def _evaluated(
    run: Path, evaluation: Evaluation, model: VideoAutoencoder, config: TrainConfig
) -> dict[str, Any]:
    """Gather what needs the data that the run was evaluated on."""
    source = open_scored(evaluation.data, evaluation.split)
    check_fits(model, source, config.data)
    sequences = read_sequences(run, source.count)
    num = _num_there(evaluation, source)
    return _scored(evaluation, sequences, source, config.data.context) | {
        "rollouts": _rollouts(model, source, config, evaluation, sequences),
        "inside": _inside(model, source, config, num),
    }


def _num_there(evaluation: Evaluation, source: Source) -> int:
    return min(evaluation.sequences, source.count or evaluation.sequences)


def _scored(
    evaluation: Evaluation, sequences: Columns, source: Source, num_context: int | None
) -> dict[str, Any]:
    """Gather the scores and what they are scores of."""
    num_predicted = len(evaluation.model.per_frame["mse"])
    has_published = evaluation.prediction and is_published_task(
        source.sequence_shape[1:], num_context, num_predicted
    )
    num = _num_there(evaluation, source)
    samples = range(min(_NUM_SAMPLES, num))
    alt = f"The first {len(samples)} sequences of the split, boxes around the digits that are known"
    return {
        "metrics": {metric: METRICS[metric].title for metric in shown_metrics(evaluation)},
        "published_metrics": PUBLISHED_METRICS,
        "rows": score_rows(evaluation),
        "explained": explained(),
        "elsewhere": elsewhere_rows(evaluation.model_dump()["out_of_domain"]),
        "published": published_rows() if has_published else {},
        "test_set": name_test_set(source),
        "horizon": list(horizon_curves(evaluation, sequences)),
        "hardness": list(hardness(evaluation.head, sequences)),
        "facts": facts(source),
        "num_counted": min(num, NUM_COUNTED),
        "histograms": list(histograms(measure(source, num))),
        "samples": sample_animation(source, samples, alt),
    }


def _rollouts(
    model: VideoAutoencoder,
    source: Source,
    config: TrainConfig,
    evaluation: Evaluation,
    sequences: Columns,
) -> list[Animation]:
    data = config.data
    return [
        rollout_animation(
            f"rollout_{name}",
            title,
            f"{title} of the split {source.split}: what the model sees, what is true, and what it "
            "makes of it, frame by frame",
            roll_out_sequence(model, source, index, data.context, data.predict),
            config.model,
        )
        for name, title, index in chosen(evaluation, sequences)
    ]


def chosen(evaluation: Evaluation, sequences: Columns) -> list[tuple[str, str, int]]:
    """Return name, title and index of the best, median and worst sequence by their MSE.

    Where no table of sequences is there, those are the first three.
    """
    errors = sequences.get(f"{evaluation.head}_mse", np.empty(0))
    order = np.argsort(errors, kind="stable")[: int(np.isfinite(errors).sum())]
    if not len(order):
        first = range(min(3, evaluation.sequences))
        return [(str(index), f"Sequence {index}", index) for index in first]
    places = {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}
    return [
        (name, f"The {name}: sequence {index}, MSE {errors[place]:.1f}", index)
        for name, place in places.items()
        for index in [int(sequences["index"][place])]
    ]


def _inside(model: VideoAutoencoder, source: Source, config: TrainConfig, num: int) -> list[Plot]:
    """Draw a long roll-out and the paths of the latent, of the first sequences."""
    indices = np.arange(min(NUM_PATHS, num))
    frames = np.zeros((len(indices), *source.sequence_shape), np.uint8)
    source.read(indices, frames)
    length = config.data.context
    context = torch.from_numpy(frames[:, :length].copy())
    truth = source.truth(indices.tolist())
    velocity = None
    if all("velocity" in one and one["velocity"].shape[1] for one in truth):
        velocity = np.stack([one["velocity"][:length, 0] for one in truth])
    plots = [trajectory_plot(model, context, velocity)]
    if model.config.predicts:
        plots.insert(0, activity_plot(model, context[:1], config.data.predict))
    return plots


def _write_files(folder: Path, content: Mapping[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    for part in _parts(content.values()):
        if isinstance(part, Plot):
            write_plot(folder, part)
        else:
            write_atomic(folder / f"{part.name}.png", part.sheet)


def _parts(values: Iterable[Any]) -> Iterable[Plot | Animation]:
    for value in values:
        if isinstance(value, (Plot, Animation)):
            yield value
        elif isinstance(value, list):
            yield from _parts(value)


def _page(content: Mapping[str, Any]) -> str:
    """Fill the template in; whatever comes from files is escaped."""
    here = files("trainer")
    written = {
        name: (here / f"report.{name}").read_text(encoding="utf-8")
        for name in ("html.j2", "css", "js")
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["png"] = _as_data_url
    return environment.from_string(written["html.j2"]).render(
        style=Markup(written["css"]),  # ours: not escaped
        script=Markup(written["js"]),
        **content,
    )


def _as_data_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
