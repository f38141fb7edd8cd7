"""First weights that are not drawn: those of a file, and read-outs as bright as the data."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.cells import NUM_GATES
from trainer.errors import InputError
from trainer.losses import CLIP
from trainer.model import VideoAutoencoder
from trainer.source import Source
from trainer.stream import in_order

_LOOKED_AT = 1000  # sequences; a mean over 10^7 values needs no more
_AT_ONCE = 64

Shapes = dict[str, tuple[int, ...]]


def mean_brightness(weighted: Iterable[tuple[Source, float]]) -> float:
    """Return the mean of all values in the existing frames of the first sequences, in (0, 1).

    weighted  sources, and the share of each in the training data
    """
    parts = [(_mean_of(source), weight) for source, weight in weighted]
    mean = sum(mean * weight for mean, weight in parts) / sum(weight for _, weight in parts)
    return float(np.clip(mean, CLIP, 1 - CLIP))  # data that are black, or white, have no logit


def _mean_of(source: Source) -> float:
    count = _LOOKED_AT if source.count is None else min(_LOOKED_AT, source.count)
    total = num_frames = 0
    for batch in in_order(source, count, _AT_ONCE):
        num_frames += int(batch.num_frames.sum())  # what is no frame is zero
        total += int(batch.frames.sum(dtype=torch.int64))
    return total / (255 * num_frames * math.prod(source.sequence_shape[1:]))


def load_weights(model: VideoAutoencoder, path: Path) -> None:
    """Give a model the weights of a file: a checkpoint of ours, or a state dict such as model.bin.

    The state dict of the 2020 tutorial has our names, perhaps behind a common prefix. Of a run
    that averages its weights, the average is taken.

    raises  InputError if the file is neither, or names the first field of the model that differs
    """
    model.load_state_dict(read_weights(model, path))


def read_weights(model: VideoAutoencoder, path: Path) -> dict[str, Tensor]:
    """Read what `load_weights` gives a model, which may be one without any memory yet."""
    weights = _without_prefix(_read_content(path))
    there, here = (
        {name: tuple(weight.shape) for name, weight in part.items()}
        for part in (weights, model.state_dict())
    )
    if there != here:
        raise InputError(f"{path}: {_first_difference(there, here)}; set it so, or take another")
    return weights


def _read_content(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # torch answers garbage with most of the built-in errors
        raise InputError(
            f"{path}: is neither a checkpoint nor a state dict ({type(error).__name__})"
        ) from error
    weights: Any = content
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        kept = content.get("optimizer")
        average = kept.get("average") if isinstance(kept, dict) else None
        weights = average or content["model"]
    is_state_dict = isinstance(weights, dict) and all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in weights.items()
    )
    if not (weights and is_state_dict):
        raise InputError(f"{path}: is neither a checkpoint nor a state dict")
    return dict(weights)


def _without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop what stands before all names: a model inside of another module has such a prefix."""
    prefix = next(iter(weights)).partition("encoder.")[0]
    if not all(name.startswith(prefix) for name in weights):
        return weights
    return {name.removeprefix(prefix): weight for name, weight in weights.items()}


def _first_difference(there: Shapes, here: Shapes) -> str:
    """Say by which field two models differ, or else by which weight."""
    forms = _form(there), _form(here)
    for field, asked in forms[1].items():
        if forms[0][field] != asked:
            return f"{field} is {forms[0][field]} in the file, {asked} here"
    for name in (*here, *there):
        if there.get(name) != here.get(name):
            return f"{name} is {_named(there.get(name))} in the file, {_named(here.get(name))} here"
    raise AssertionError("equal")


def _named(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(shape)


def _form(shapes: Shapes) -> dict[str, Any]:
    """Read the fields of the config that names and shapes of the weights tell; None where none."""

    def width(name: str) -> int | None:
        shape = shapes.get(name, ())
        return shape[1] if len(shape) == 2 else None

    stacks = ("reconstruct_decoder", "predict_decoder")
    decoders = [name for name in stacks if f"{name}.fc.weight" in shapes]
    reads = [f"{name}.lstm.weight_ih_l0" in shapes for name in decoders]
    layers = [name for name in shapes if re.fullmatch(r"encoder\.lstm\.weight_hh_l\d+", name)]
    return {
        "hidden": width("encoder.lstm.weight_hh_l0"),
        "layers": len(layers),
        "decoders": ",".join(name.removesuffix("_decoder") for name in decoders),
        "cell": _cell(shapes, width("encoder.lstm.weight_hh_l0")),
        "values of a frame": width("encoder.lstm.weight_ih_l0"),
        "decoder_input": None if not reads else "one that reads" if all(reads) else "unconditional",
    }


def _cell(shapes: Shapes, hidden: int | None) -> str | None:
    if "encoder.lstm.peephole_l0" in shapes:
        return "peephole"
    num_gates = shapes["encoder.lstm.weight_hh_l0"][0] // hidden if hidden else 0
    return next((cell for cell, number in NUM_GATES.items() if number == num_gates), None)
