"""The table of `mmtrain evaluate` for anybody's model, or for what it predicted.

Letters: B sequences, N of them, T frames, P predicted, H x W canvas.
"""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from trainer.address import Address
from trainer.config import DataConfig
from trainer.errors import InputError
from trainer.evaluation import Predictor, Said, Window, measure
from trainer.lengths import check_lengths
from trainer.scored import Scored
from trainer.source import Source, open_scored

Predict = Callable[[Tensor, int], "Tensor | NDArray[Any]"]


def score(
    predict: Predict,
    data: Address,
    *,
    split: str = "test",
    num_sequences: int | None = None,
    context: int = 10,
    steps: int = 10,
    baselines: bool | Collection[str] = True,
    facts: bool = False,
    lpips: bool = False,
) -> Scored:
    """Score any model on a split, beside the predictors that need no training.

    predict    (context uint8 (B, T, H, W), steps) -> (B, steps, H, W), a tensor or an array, not
               clipped; in colour both end in an axis of 3. Sequences come in order, in batches
    data       a DATA address: a folder, live:PRESET, an npy file of frames, s3://...
    num_sequences  how many; if None all, or 1000 of live data
    context    frames that `predict` sees       steps  frames that it is asked for
    baselines  also score those predictors, or some of them by name; skill needs "mean frame" and
               "known dynamics"
    facts      also find overlap, bounces and speed of each sequence
    lpips      also score by LPIPS (extra `lpips`)
    raises     InputError for data that cannot be opened or are too short; ValueError where
               `predict` returns another shape, or what is no number

    `.as_json()` is the dictionary that `mmtrain evaluate --json` prints, `.frames` has the scores
    of every sequence and frame.
    """
    source = open_scored(data, split)
    return _score_on(
        source,
        predict,
        num_sequences,
        context=context,
        steps=steps,
        baselines=baselines,
        facts=facts,
        lpips=lpips,
    )


def _score_on(
    source: Source,
    predict: Predict,
    num_sequences: int | None,
    *,
    context: int,
    steps: int,
    baselines: bool | Collection[str] = True,
    facts: bool,
    lpips: bool,
) -> Scored:
    """Score a model on a source; parameters and errors as of `score`."""
    check_lengths(source, DataConfig(context=context, predict=steps))
    return measure(
        _as_predictor(predict, steps),
        source,
        context,
        steps,
        num_sequences,
        baselines=baselines,
        facts=facts,
        lpips=lpips,
    )


def score_predictions(path: Path, source: Source, *, context: int, lpips: bool = False) -> Scored:
    """Score predictions that somebody's program left in an npy file.

    path     floats (N, P, H, W), or (N, P, H, W, 3): the P frames after the context of the first N
             sequences of the split, in its order, on the scale 0..1
    raises   InputError for a file or data that do not fit
    """
    predictions = open_predictions(path)
    expected = source.sequence_shape[1:]
    if predictions.shape[2:] != expected:
        raise InputError(
            f"{path}: frames are {predictions.shape[2:]}, those of {source.address} are {expected}"
        )
    num_sequences, steps = predictions.shape[:2]
    first = 0

    def predict(seen: Tensor, _: int) -> NDArray[Any]:
        nonlocal first
        first += len(seen)
        # A copy: torch warns of memory that cannot be written to, as that of the file is.
        part = np.array(predictions[first - len(seen) : first], np.float32)
        if not np.isfinite(part).all():
            raise InputError(f"{path}: holds what is no number, among the first {first} sequences")
        return part

    return _score_on(
        source, predict, num_sequences, context=context, steps=steps, facts=True, lpips=lpips
    )


def open_predictions(path: Path) -> NDArray[Any]:
    """Map an npy file of floats; nothing of it is unpickled, and no more than its size is read."""
    try:
        predictions: NDArray[Any] = open_memmap(os.fspath(path), mode="r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError, SyntaxError, MemoryError, OverflowError, TypeError) as error:
        raise InputError(
            f"{path}: is no npy file, or not whole; save the array with numpy.save"
        ) from error
    if predictions.dtype.kind != "f":
        raise InputError(
            f"{path}: holds {predictions.dtype}; predictions are floats on the scale 0..1"
        )
    if predictions.ndim not in (4, 5) or min(predictions.shape) < 1:
        raise InputError(
            f"{path}: has the shape {predictions.shape}; expected is (N, T, H, W), or (N, T, H, W, "
            "3) in colour"
        )
    return predictions


def _as_predictor(predict: Predict, steps: int) -> Predictor:
    def said(window: Window) -> dict[str, Said]:
        expected = (len(window.seen), steps, *window.seen.shape[2:])
        # Neither autograd nor inference mode is any business of the caller's model.
        with torch.inference_mode(False), torch.no_grad():
            output = torch.as_tensor(predict(window.seen.clone(), steps))
        if tuple(output.shape) != expected:
            raise ValueError(f"predict returned {tuple(output.shape)}, expected is {expected}")
        values = output.detach().to(window.future.device, torch.float32).flatten(2)
        if not values.isfinite().all():
            raise ValueError("predict returned what is no number")
        return {"prediction": Said(values, window.future)}

    return said
