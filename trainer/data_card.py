"""What a split holds, for the page: where it is from, what is special about it, what is drawn.

Letters: N sequences, T frames, K digits.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgen.config import GeneratorConfig
from mmgen.imports import PUBLISHED_SHA256
from trainer.source import FileSource, LiveSource, Source, StoredSource, Truth

NUM_COUNTED = 256
_NEEDED = ("label", "position", "velocity", "visible", "bounced")

# quantity -> what it counts, and the name of what there are so many of
QUANTITIES = {
    "label": ("label", "digits"),
    "digits": ("digits per sequence", "sequences"),
    "speed": ("speed (px per frame)", "digits x frames"),
    "hidden": ("hidden share of a digit's ink", "digits x frames"),
    "bounces": ("bounces per sequence", "sequences"),
    "brightness": ("brightness (mean grey of a frame, 0..255)", "frames"),
}


def facts(source: Source) -> dict[str, str]:
    """Return what is to be known of a split: address, size, and fields that are not the default."""
    count = "no end of" if source.count is None else f"{source.count:,}"
    told = {
        "data": source.address,
        "split": f"{source.split}, {count} sequences",
        "shape": " x ".join(map(str, source.sequence_shape)),
    }
    config, seed = _origin(source)
    if config is None:
        return told | {"origin": name_test_set(source)}
    return told | {"origin": f"generated here, seed {seed}"} | _special(config)


def name_test_set(source: Source) -> str:
    """Name what a model is scored on, so that no published number is taken for a comparison."""
    config, _ = _origin(source)
    if config is not None:  # the default are the rules of the published one
        return "generated here" + (" by other rules" if _special(config) else "")
    if isinstance(source, FileSource):
        is_published = source.is_published
    else:
        is_published = _is_of_published(source.address)
    return "mnist_test_seq.npy" if is_published else "imported"


def _special(config: Mapping[str, Any]) -> dict[str, str]:
    defaults = GeneratorConfig().model_dump()
    return {name: str(value) for name, value in config.items() if defaults.get(name) != value}


def _origin(source: Source) -> tuple[Mapping[str, Any] | None, int]:
    """Return the generator's config and seed; no config where the sequences are somebody else's."""
    if isinstance(source, LiveSource):
        return source.config.model_dump(), source.seed
    if isinstance(source, StoredSource):
        return source.manifest.config, source.manifest.seed
    return None, 0


def _is_of_published(address: str) -> bool:
    """Tell whether a folder says that it was imported from the published test set."""
    try:
        request = json.loads((Path(address) / "request.json").read_text(encoding="utf-8"))
        return bool(request["source"]["sha256"] == PUBLISHED_SHA256)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def measure(source: Source, num_sequences: int) -> dict[str, NDArray[np.float64]]:
    """Return the values of each of QUANTITIES that the first sequences have.

    What the set has no annotations of is left out; brightness there always is.
    """
    indices = np.arange(min(num_sequences, NUM_COUNTED))
    frames = np.empty((len(indices), *source.sequence_shape), np.uint8)
    num_frames = source.read(indices, frames)
    exists = np.arange(frames.shape[1]) < num_frames[:, None]
    measured = {"brightness": frames[exists].reshape(int(exists.sum()), -1).mean(1)}
    truth = source.truth(indices.tolist())
    if all(set(_NEEDED) <= set(one) for one in truth):
        of_each = [_of_sequence(one) for one in truth]
        for name in of_each[0]:
            values = np.concatenate([np.ravel(one[name]) for one in of_each]).astype(np.float64)
            measured[name] = values[np.isfinite(values)]
    return {name: measured[name] for name in QUANTITIES if len(measured.get(name, ()))}


def _of_sequence(truth: Truth) -> dict[str, NDArray[Any]]:
    """Return what one sequence adds to the distributions; NaN where a digit is absent."""
    is_digit = truth["label"] >= 0  # (K,)
    is_there = ~np.isnan(truth["position"][..., 0])  # (T, K)
    return {
        "label": truth["label"][is_digit],
        "digits": is_digit.sum(keepdims=True),
        "speed": np.hypot(*np.moveaxis(truth["velocity"].astype(np.float64), -1, 0)),
        "hidden": 1 - truth["visible"][is_there],
        "bounces": truth["bounced"].sum(keepdims=True),
    }
