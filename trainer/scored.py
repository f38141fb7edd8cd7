"""What predictors scored, of every sequence and frame, and its summary with intervals.

Letters: N sequences, T frames.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer import losses
from trainer.intervals import interval, resampled_means
from trainer.metrics import METRICS, Judged
from trainer.perceptual import Perceptual

BASELINES = ("black", "copy-last", "mean frame", "constant velocity", "known dynamics")
TEACHER_FORCED = "teacher-forced "  # and what is decoded
_CHUNK_VALUES = 1 << 18  # for each thread
_HEADS = ("prediction", "reconstruction")

Frames = dict[str, dict[str, NDArray[np.float64]]]


class Gatherer:
    """Scores of several predictors, gathered batch by batch."""

    def __init__(self, frame_shape: tuple[int, ...], lpips: Perceptual | None = None) -> None:
        self._frame_shape = frame_shape
        self._lpips = lpips
        self._parts: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))

    def add(self, name: str, output: Tensor, target: Tensor, nats: Tensor | None = None) -> None:
        """Score frames (B, T, D).

        nats  their cross-entropy (B, T), where it is not that of the output clipped to (0, 1)
        """
        if self._lpips:
            self._parts[name]["lpips"].append(self._lpips(output, target, self._frame_shape).cpu())
        # A few frames stay in a CPU's cache, where sixty passes over them cost half as much.
        few = max(1, torch.get_num_threads() * _CHUNK_VALUES // output[0].numel())
        at_once = few if output.device.type == "cpu" else len(output)
        for first in range(0, len(output), at_once):
            part = slice(first, first + at_once)
            known = None if nats is None else nats[part]
            judged = Judged(output[part], target[part], self._frame_shape, known)
            for key, metric in METRICS.items():
                if metric.score:
                    self._parts[name][key].append(_checked(metric.score(judged), judged, key).cpu())

    def add_entropy(self, target: Tensor) -> None:
        """Keep the cross-entropy that nobody gets below."""
        self._parts["entropy floor"]["ce"].append(losses.entropy(target).cpu())

    def frames(self) -> Frames:
        """Return name -> metric -> float64 (N, T)."""
        return {
            name: {metric: torch.cat(parts).double().numpy() for metric, parts in scores.items()}
            for name, scores in self._parts.items()
        }


@dataclass(frozen=True)
class Scored:
    """What was scored on a split.

    data, split  where the sequences are from
    index        int64 (N,), which they are
    context      frames that were shown
    frames       predictor -> metric -> float64 (N, T): `prediction`, `reconstruction`, the
                 same behind `teacher-forced ` where decoders read the truth, the names of
                 BASELINES, and `entropy floor` with its ce alone. What is not there is absent
    facts        what makes a sequence hard: name -> float64 (N,), from `hardness`
    """

    data: str
    split: str
    index: NDArray[np.int64]
    context: int
    frames: Frames
    facts: Mapping[str, NDArray[np.float64]]

    def as_json(self) -> dict[str, Any]:
        """Return what `mmtrain evaluate --json` prints: numbers, or None where there is none."""
        tables = self._tables()
        told: dict[str, Any] = {
            "data": self.data,
            "split": self.split,
            "sequences": len(self.index),
            **{head: tables.get(head) for head in _HEADS},
            "teacher_forced": None,
        }
        if any(name.startswith(TEACHER_FORCED) for name in tables):
            told["teacher_forced"] = {head: tables.get(TEACHER_FORCED + head) for head in _HEADS}
        has_baselines = any(name in tables for name in BASELINES)
        told["baselines"] = {name: tables.get(name) for name in BASELINES} if has_baselines else {}
        floor = self.frames.get("entropy floor")
        told["entropy_floor"] = _number(floor["ce"].mean()) if floor else None
        return told | self._skill()

    def _tables(self) -> dict[str, dict[str, Any]]:
        """Return the summary of each predictor, without the entropy floor."""
        return {name: summary(self.frames[name]) for name in self.frames if name != "entropy floor"}

    def _skill(self) -> dict[str, Any]:
        """Return (mean frame - model) / (mean frame - known dynamics), and its interval.

        1 is as good as knowing the rules by which digits move, 0 no better than the best constant
        picture. None where one of the three is missing, or where so much is random that the known
        dynamics, which take one of all possible ways, score no better than the mean frame.
        """
        names = ("mean frame", "prediction", "known dynamics")
        if not all(name in self.frames for name in names):
            return {"skill": None, "skill_interval": None}
        columns = np.stack([self.frames[name]["mse"].mean(1) for name in names], 1)
        means = np.concatenate([columns.mean(0)[None], resampled_means(columns)])
        if means[0, 2] >= means[0, 0]:
            return {"skill": None, "skill_interval": None}
        with np.errstate(divide="ignore", invalid="ignore"):
            skills = (means[:, 0] - means[:, 1]) / (means[:, 0] - means[:, 2])
        bounds = [_number(bound) for bound in interval(skills[1:])]
        return {
            "skill": _number(skills[0]),
            "skill_interval": None if None in bounds else bounds,
        }


def _checked(score: Tensor, judged: Judged, metric: str) -> Tensor:
    expected = judged.output.shape[:2]
    if score.shape != expected:
        raise ValueError(
            f"metric {metric}: scored {tuple(score.shape)}, expected is {tuple(expected)}"
        )
    return score


def summary(scores: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Return the means of scores (N, T) over sequences and frames, also per frame, and intervals.

    interval  the 95 % of a bootstrap over sequences; None where a mean is not finite
    """
    with np.errstate(invalid="ignore"):
        by_sequence = np.stack([values.mean(1) for values in scores.values()], 1)  # (N, metrics)
        resampled = resampled_means(by_sequence)
        means = {name: _number(values.mean()) for name, values in scores.items()}
        bounds = {
            name: None if means[name] is None else list(interval(resampled[:, column]))
            for column, name in enumerate(scores)
        }
        along = {name: [_number(v) for v in values.mean(0)] for name, values in scores.items()}
    return means | {"interval": bounds, "per_frame": along}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
