"""What makes a sequence hard, counted from its annotations over the frames that are predicted.

Letters: N sequences, T frames, K digits.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from trainer.source import Source, Truth

_NEEDED = ("visible", "bounced", "velocity", "position")
FACTS = ("overlap", "bounces", "speed")


def hardness(
    source: Source, indices: Iterable[int], first: int, last: int
) -> dict[str, NDArray[np.float64]]:
    """Return `overlap`, `bounces` and `speed` of sequences, each (N,); {} where nothing is known.

    overlap  mean share of a digit's ink that something hides in the frames `first` to `last` - 1
    bounces  walls met by all digits in these frames
    speed    mean speed of the digits there, px per frame
    NaN for a sequence none of whose digits is there
    """
    known = source.truth(indices)
    if not all(name in truth for truth in known for name in _NEEDED):
        return {}
    rows = np.array([_facts(truth, slice(first, last)) for truth in known])
    return dict(zip(FACTS, rows.reshape(-1, len(FACTS)).T, strict=True))


def _facts(truth: Truth, frames: slice) -> tuple[float, float, float]:
    is_there = ~np.isnan(truth["position"][frames, :, 0])  # (T, K)
    velocity = truth["velocity"][frames].astype(np.float64)
    speed = np.hypot(velocity[..., 0], velocity[..., 1])
    hidden = 1 - truth["visible"][frames].astype(np.float64)
    bounces = float(truth["bounced"][frames].sum())
    if not is_there.any():
        return np.nan, bounces, np.nan
    return float(hidden[is_there].mean()), bounces, float(speed[is_there].mean())
