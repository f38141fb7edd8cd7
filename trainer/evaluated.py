"""The evaluation of a run, kept in its folder: JSON, CSV, and the worst sequences as a picture."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmgen.shard.manifest import canonical_json, write_atomic
from trainer.address import Address, absolute
from trainer.checkpoint import open_run
from trainer.evaluation import evaluate
from trainer.out_of_domain import out_of_domain
from trainer.result_files import as_csv, check_folder
from trainer.rollout import Rollout, roll_out_sequence, strips, to_bytes
from trainer.scored import Scored
from trainer.scoring import open_predictions, score_predictions
from trainer.source import Source, open_scored
from trainer.world import one_line_when_out_of_memory

EVALUATION_NAME = "evaluation.json"
FOLDER = "evaluation"
NUM_WORST = 16
_HEADS = ("prediction", "reconstruction")


@one_line_when_out_of_memory()
def evaluate_run(
    run: Path,
    data: Address,
    split: str,
    num_sequences: int | None,
    device: str,
    *,
    elsewhere: bool = False,
    lpips: bool = False,
) -> dict[str, Any]:
    """Score a run's newest checkpoint on a split and keep the result in the run's folder.

    elsewhere  also score it on data that it was not trained for
    lpips      also score by LPIPS
    returns    what `mmtrain evaluate --json` prints
    """
    name, _, config, model = open_run(run, device)
    source = open_scored(data, split)
    scored = evaluate(model, source, config.data, num_sequences, facts=True, lpips=lpips)
    result = scored.as_json() | {"checkpoint": name, "data": absolute(data)}
    if elsewhere:
        count = len(scored.index)
        result["out_of_domain"] = out_of_domain(model, source, config.data, count)
    keep(scored, run / FOLDER)
    if model.config.predicts:
        worst = [
            roll_out_sequence(model, source, index, config.data.context, config.data.predict)
            for index in worst_sequences(scored)
        ]
        write_atomic(run / FOLDER / "worst.png", strips(worst))
    write_atomic(run / EVALUATION_NAME, canonical_json(result))
    return result


def score_file(
    predictions: Path,
    data: Address,
    split: str,
    num_context: int,
    out: Path | None,
    *,
    lpips: bool = False,
) -> dict[str, Any]:
    """Score an npy file of predictions; keep the result as that of a run, if a folder is named."""
    if out is not None:
        check_folder(out)
    source = open_scored(data, split)
    scored = score_predictions(predictions, source, context=num_context, lpips=lpips)
    where = {"predictions": str(predictions.resolve()), "data": absolute(data)}
    result = scored.as_json() | where | {"context": num_context}
    if out is not None:
        keep(scored, out / FOLDER)
        shown = _shown(source, predictions, num_context, worst_sequences(scored))
        write_atomic(out / FOLDER / "worst.png", strips(shown))
        write_atomic(out / EVALUATION_NAME, canonical_json(result))
    return result


def _shown(
    source: Source, path: Path, num_context: int, indices: Sequence[int]
) -> Iterator[Rollout]:
    """Yield what a file of predictions says of some sequences."""
    predictions = open_predictions(path)
    last = num_context + predictions.shape[1]
    truth = np.empty((len(indices), *source.sequence_shape), np.uint8)
    source.read(np.array(indices), truth)
    for frames, index in zip(truth[:, :last], indices, strict=True):
        said = np.zeros_like(frames)
        said[num_context:] = to_bytes(torch.from_numpy(predictions[index].astype(np.float32)))
        yield Rollout(frames, np.zeros_like(frames), said, num_context)


def worst_sequences(scored: Scored) -> list[int]:
    """Return the sequences whose prediction is furthest off, the worst first."""
    errors = scored.frames["prediction"]["mse"].mean(1)
    worst: list[int] = scored.index[np.argsort(-errors, kind="stable")[:NUM_WORST]].tolist()
    return worst


def keep(scored: Scored, folder: Path) -> None:
    """Write sequences.csv and per_frame.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "sequences.csv", sequences_csv(scored))
    write_atomic(folder / "per_frame.csv", per_frame_csv(scored))


def sequences_csv(scored: Scored) -> str:
    """Return a row a sequence: its index, what it scored, per frame too, and what makes it hard."""
    columns: dict[str, Any] = {"index": scored.index}
    heads = [head for head in _HEADS if head in scored.frames]
    for head in heads:
        columns |= {f"{head}_{name}": v.mean(1) for name, v in scored.frames[head].items()}
    for head in heads:
        along = scored.frames[head]["mse"].T
        columns |= {f"{head}_mse_{t}": errors for t, errors in enumerate(along, 1)}
    columns |= scored.facts
    return _csv(list(columns), zip(*columns.values(), strict=True))


def per_frame_csv(scored: Scored) -> str:
    """Return a row a predictor and frame: means of every metric over the sequences."""
    named = {name: scores for name, scores in scored.frames.items() if len(scores) > 1}
    metrics = list(next(iter(named.values())))
    rows = (
        [name, t + 1, *(values[:, t].mean() for values in scores.values())]
        for name, scores in named.items()
        for t in range(scores["mse"].shape[1])
    )
    return _csv(["predictor", "frame", *metrics], rows)


def _csv(header: list[str], rows: Any) -> str:
    """Write numbers as short as they can be told apart; what is not finite is an empty cell."""
    with np.errstate(invalid="ignore"):
        return as_csv(header, ([_cell(value) for value in row] for row in rows))


def _cell(value: Any) -> str:
    if isinstance(value, str | int | np.integer):
        return str(value)
    return f"{value:.6g}" if np.isfinite(value) else ""
