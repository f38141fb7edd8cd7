"""Stored annotations, checked before anybody counts or draws them.

A manifest vouches for the bytes of a shard, not for what its writer put there; frames have a
checksum and bounds of their own. Letters: N sequences, T frames, K digits.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgen.errors import ShardError
from mmgen.shard import schema

_Truth = Mapping[str, NDArray[Any]]


def check_truth(truth: _Truth, sizes: tuple[int, int], where: str, first: int) -> None:
    """Refuse annotations that are not what `mmgen/shard/FORMAT.md` says of them.

    truth   name -> array (N, ...): `label`, `position` and any others    sizes  (N, T)
    where   which shard or split, and
    first   which index the first of these sequences has: for messages
    raises  ShardError that names the annotation and the sequence
    """
    num_sequences, num_frames = sizes
    num_digits = truth["label"].shape[1] if truth["label"].ndim == 2 else 1
    for name, values in truth.items():
        about = schema.ANNOTATIONS[name]
        shape = num_sequences, *about.shape(num_frames, num_digits)
        if values.dtype != about.dtype or values.shape != shape:
            raise ShardError(
                f"{where}: {name} is {values.dtype} {values.shape}, expected is "
                f"{np.dtype(about.dtype)} {shape}; make the set again"
            )
    for name, (holds, what) in _RULES.items():
        if name not in truth:
            continue
        fine = holds(truth).reshape(num_sequences, -1).all(1)
        if not fine.all():
            raise ShardError(
                f"{where}: {name} of sequence {first + int(fine.argmin())} {what}; "
                "make the set again"
            )


def _label_holds(truth: _Truth) -> Any:
    return (truth["label"] >= -1) & (truth["label"] <= 255)


def _position_holds(truth: _Truth) -> Any:
    return np.isfinite(truth["position"]).all(-1) | np.isnan(truth["position"]).all(-1)


def _velocity_holds(truth: _Truth) -> Any:
    return np.isfinite(truth["velocity"]).all(-1) | ~_is_there(truth)


def _box_holds(truth: _Truth) -> Any:
    box = truth["box"]
    return (box == -1).all(-1) | ((box[..., :2] < box[..., 2:]).all(-1) & _is_there(truth))


def _visible_holds(truth: _Truth) -> Any:
    return ((truth["visible"] >= 0) & (truth["visible"] <= 1)) | ~_is_there(truth)


def _is_there(truth: _Truth) -> Any:
    return ~np.isnan(truth["position"][..., 0])


# Where digits lie is not bounded: a box off the canvas is strange, but it can be drawn and counted.
_RULES: dict[str, tuple[Callable[[_Truth], Any], str]] = {
    "label": (_label_holds, "is not within -1..255"),
    "position": (_position_holds, "is infinite, or half a position"),
    "velocity": (_velocity_holds, "is no number where the digit has a position"),
    "box": (_box_holds, "ends before it begins, or has no digit"),
    "visible": (_visible_holds, "is not within 0..1 where the digit has a position"),
}
