"""How good a model is on a split, always beside the predictors that know nothing.

black      an empty frame
copy-last  the last context frame, again and again
mean frame the mean of the scored frames themselves: the best constant picture in hindsight, so
           beating it is never luck of the draw

Letters: N sequences, B of them at a time, T frames, D values a frame.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmgen.shard.manifest import canonical_json, write_atomic
from trainer import losses
from trainer.checkpoint import latest_checkpoint, load_checkpoint, restore_model
from trainer.config import DataConfig, parse_config
from trainer.errors import InputError
from trainer.model import VideoAutoencoder, to_values
from trainer.source import LIVE_SEQUENCES, Address, Source, absolute, open_source
from trainer.stream import in_order
from trainer.world import one_line_when_out_of_memory

_BATCH = 64
_METRICS = ("mse", "mae", "ce")
_KNOW_NOTHING = ("black", "copy-last", "mean frame")
EVALUATION_NAME = "evaluation.json"


@one_line_when_out_of_memory()
def evaluate_run(
    run: Path, data: Address, split: str, num_sequences: int | None, device: str
) -> dict[str, Any]:
    """Score a run's newest checkpoint on a split and keep the result in the run's folder."""
    path = latest_checkpoint(run)
    checkpoint = load_checkpoint(path)
    sequences = open_source(data, split)
    model = restore_model(checkpoint, device)
    config = parse_config(checkpoint["config"])
    scores = evaluate(model, sequences, config.data, num_sequences)
    result = scores | {"checkpoint": path.name, "data": absolute(data)}
    write_atomic(run / EVALUATION_NAME, canonical_json(result))
    return result


def metric_rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the table of an evaluation: a row a predictor, best known limits last."""
    named = {
        "prediction": result["prediction"],
        **{f"{name} (prediction)": scores for name, scores in result["baselines"].items()},
        "reconstruction": result["reconstruction"],
    }
    rows = [
        [name, *(_written(scores[metric]) for metric in _METRICS)]
        for name, scores in named.items()
        if scores is not None
    ]
    if result["prediction"] is not None:
        rows.append(["entropy floor (prediction)", "0.0", "0.0", _written(result["entropy_floor"])])
    return rows


def _written(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.1f}"


@torch.inference_mode()
def evaluate(
    model: VideoAutoencoder,
    source: Source,
    data: DataConfig,
    num_sequences: int | None = None,
    *,
    baselines: bool = True,
) -> dict[str, Any]:
    """Score reconstruction and prediction on the first sequences of a split.

    num_sequences  how many; if None all, or 1000 of live data, which have no end
    baselines      also score the predictors that know nothing (costs a second pass)
    returns        the tables of `mmtrain evaluate --json`: mse and mae summed over a frame's
                   pixels, ce in nats per frame, means over sequences and frames, each also per
                   frame; numbers or None where infinite. A decoder that the model has not is None;
                   without prediction there are no baselines, and entropy_floor is None
    raises         InputError if sequences are shorter than what is shown and asked for
    """
    check_fits(model, source, data)
    predicts = model.config.predicts
    count = _checked_count(source, num_sequences)
    device = next(model.parameters()).device
    mean_frame = _mean_frame(source, data, count, device) if baselines and predicts else None
    tables: dict[str, _Table] = defaultdict(_Table)
    model.eval()
    for context, future in _windows(source, data, count, device):
        decoded = model(context, data.predict, num_reconstructed=data.num_reconstructed)
        for name, output, target in (
            ("reconstruction", decoded.reconstruction, context[:, -data.num_reconstructed :]),
            ("prediction", decoded.prediction, future),
        ):
            if output is not None:
                is_logit = model.config.output == "sigmoid"
                nats = losses.output_cross_entropy(output, target, is_logit=is_logit)
                tables[name].add(model.emit(output), nats, target)
        if predicts:
            tables["entropy_floor"].add_entropy(future)
        if mean_frame is not None:
            for name, output in _know_nothing(context, future, mean_frame).items():
                probability = losses.clipped(output) if name == "copy-last" else output
                tables[name].add(output, losses.cross_entropy(probability, future), future)
    result: dict[str, Any] = {"split": source.split, "sequences": count}
    for name in ("prediction", "reconstruction"):
        result[name] = tables[name].summary() if name in tables else None
    if baselines:
        result["baselines"] = {
            name: tables[name].summary() for name in _KNOW_NOTHING if name in tables
        }
    result["entropy_floor"] = tables["entropy_floor"].summary()["ce"] if predicts else None
    return result


def check_lengths(source: Source, data: DataConfig, *, predicts: bool = True) -> None:
    """Refuse sequences shorter than context + predict, or than context, before any work."""
    needed = data.context + (data.predict if predicts else 0)
    if source.shortest < needed:
        asked = f"{data.context} and predict {data.predict} need" if predicts else "needs"
        raise InputError(
            f"{source.address}: sequences of {source.split} have {source.shortest} frames, context "
            f"{asked} {needed}; lower {'them' if predicts else 'it'}"
        )


def check_fits(model: VideoAutoencoder, source: Source, data: DataConfig) -> None:
    """Refuse data whose frames are not the model's, or too few."""
    check_lengths(source, data, predicts=model.config.predicts)
    if source.sequence_shape[1:] != model.frame_shape:
        raise InputError(
            f"{source.address}: frames are {source.sequence_shape[1:]}, the model was trained on "
            f"{model.frame_shape}"
        )


def _checked_count(source: Source, num_sequences: int | None) -> int:
    there = source.count
    if num_sequences is None:
        return LIVE_SEQUENCES if there is None else there
    if num_sequences < 1 or (there is not None and num_sequences > there):
        raise InputError(
            f"{source.address}: {num_sequences} sequences asked for, {source.split} has {there}"
        )
    return num_sequences


def _windows(
    source: Source, data: DataConfig, count: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield context (B, context, D) and future (B, predict, D) of consecutive sequences."""
    last = data.context + data.predict
    for batch in in_order(source, count, _BATCH):
        values = to_values(batch.frames[:, :last].to(device))
        yield values[:, : data.context], values[:, data.context :]


def _mean_frame(source: Source, data: DataConfig, count: int, device: torch.device) -> Tensor:
    total: Tensor | float = 0.0
    for _, future in _windows(source, data, count, device):
        total = total + future.double().sum((0, 1))
    assert isinstance(total, Tensor)
    return (total / (count * data.predict)).float()


def _know_nothing(context: Tensor, future: Tensor, mean_frame: Tensor) -> dict[str, Tensor]:
    """Return what the predictors that know nothing say, by the names of _KNOW_NOTHING."""
    last = context[:, -1:].expand_as(future)
    said = (torch.zeros_like(future), last, mean_frame.expand_as(future))
    return dict(zip(_KNOW_NOTHING, said, strict=True))


class _Table:
    """Scores (N, T) of one predictor, gathered batch by batch."""

    def __init__(self) -> None:
        self.scores: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, output: Tensor, nats: Tensor, target: Tensor) -> None:
        self.scores["mse"].append(losses.squared_error(output, target).cpu())
        self.scores["mae"].append(losses.absolute_error(output, target).cpu())
        self.scores["ce"].append(nats.cpu())

    def add_entropy(self, target: Tensor) -> None:
        self.scores["ce"].append(losses.entropy(target).cpu())

    def summary(self) -> dict[str, Any]:
        frames = {name: torch.cat(parts).double() for name, parts in self.scores.items()}
        means: dict[str, Any] = {name: _number(values.mean()) for name, values in frames.items()}
        means["per_frame"] = {
            name: [_number(value) for value in values.mean(0)] for name, values in frames.items()
        }
        return means


def _number(value: Tensor) -> float | None:
    number = value.item()
    return number if math.isfinite(number) else None
