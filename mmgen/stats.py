"""What a split holds, in numbers: digits, motion, brightness, and how hard its pixels are to guess.

Everything is counted shard by shard: integers of pixels exactly, distributions as counts of values
rounded to a stated step, so that memory does not grow with the set and quantiles are exact too.

Letters: N sequences, T frames, K digits, F existing frames of several sequences, H x W canvas; ...
stands for (H, W), in colour (H, W, 3).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgen.errors import InputError
from mmgen.shard.reader import Shard, Split
from mmgen.truth import check_truth

CONTEXT, LAST = 10, 20  # the published protocol sees 10 frames and is scored on the next 10

_BLOCK_BYTES = 4 << 20
_MAX_COUNTS = 1 << 22
_QUANTILES = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}
_DIGIT_NAMES = ("label", "position", "velocity", "box", "visible", "bounced")

_Z = np.arange(256) / 255
_INSIDE = _Z[1:-1]
_ENTROPY = np.zeros(256)  # nats of a pixel of this grey; 0 at both ends
_ENTROPY[1:-1] = -_INSIDE * np.log(_INSIDE) - (1 - _INSIDE) * np.log(1 - _INSIDE)


def _count_bytes(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count each of the 256 values, in parts: bincount makes eight bytes of each one."""
    flat = values.ravel()
    counts = np.zeros(256, np.int64)
    for first in range(0, len(flat), _BLOCK_BYTES):
        counts += np.bincount(flat[first : first + _BLOCK_BYTES], minlength=256)
    return counts


class Tally:
    """Counts of values >= 0 that are rounded to a step: their distribution in bounded memory."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.counts = np.zeros(1, np.int64)
        self.total = 0.0

    def add(self, values: NDArray[Any]) -> None:
        """Count values; what lies past 4 million steps is counted there."""
        places = np.rint(values.ravel() / self.step).clip(0, _MAX_COUNTS - 1).astype(np.int64)
        counts = np.bincount(places, minlength=len(self.counts))
        counts[: len(self.counts)] += self.counts
        self.counts = counts
        self.total += float(values.sum(dtype=np.float64))

    def summary(self) -> dict[str, float | None]:
        """Return the mean of the values and quantiles of the rounded ones; None without any."""
        num_values = int(self.counts.sum())
        if not num_values:
            return dict.fromkeys(("mean", *_QUANTILES))
        up_to = np.cumsum(self.counts)
        places = {
            name: int(np.searchsorted(up_to, max(1, math.ceil(share * num_values))))
            for name, share in _QUANTILES.items()
        }
        quantiles = {name: round(place * self.step, 6) for name, place in places.items()}
        return {"mean": self.total / num_values, **quantiles}

    def histogram(self, max_bins: int = 40) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the edges of at most so many equal bins from 0 on, and what is in them."""
        width = math.ceil(len(self.counts) / max_bins)
        num_bins = math.ceil(len(self.counts) / width)
        counts = np.zeros(num_bins * width, np.int64)
        counts[: len(self.counts)] = self.counts
        edges = (width * np.arange(num_bins + 1) - 0.5) * self.step
        return edges, counts.reshape(num_bins, width).sum(1)


class Pixels:
    """Frames as counts of greys and sums of pixels: all that a constant guess is scored by."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.num_frames = 0
        self.grey_counts = np.zeros(256, np.int64)
        self.sums = np.zeros(shape, np.int64)

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Count frames (F, ...)."""
        self.num_frames += len(frames)
        self.grey_counts += _count_bytes(frames)
        self.sums += frames.sum(0, dtype=np.int64)

    @property
    def mean_frame(self) -> NDArray[np.float64]:
        """The mean of all frames, greys 0..255."""
        return self.sums / self.num_frames

    @property
    def entropy_floor(self) -> float:
        """Cross-entropy of the best guess there is, the frames themselves, in nats per frame."""
        return float(self.grey_counts @ _ENTROPY) / self.num_frames

    @property
    def black_error(self) -> float:
        """Squared error of black per frame, greys in [0, 1]."""
        return float(self.grey_counts @ _Z**2) / self.num_frames

    @property
    def mean_frame_error(self) -> float:
        """Squared error of the mean frame per frame: the best that a constant picture can do."""
        return self.black_error - float(((self.mean_frame / 255) ** 2).sum())


@dataclass
class Digits:
    """What the annotations say. A digit is in a frame where it has a position.

    labels      label -> digits
    num_still   digits that are somewhere and never move
    num_frames  frames counted; in num_outside and num_absent of them a digit lies wholly off the
                canvas, or is not there (yet, or any more)
    hidden      share of a digit's ink that another one, an occluder or the edge hides, per frame
    """

    num_digits: Tally = field(default_factory=lambda: Tally(1))
    speed: Tally = field(default_factory=lambda: Tally(0.01))
    bounces: Tally = field(default_factory=lambda: Tally(1))
    hidden: Tally = field(default_factory=lambda: Tally(0.001))
    labels: dict[int, int] = field(default_factory=dict)
    num_still: int = 0
    num_frames: int = 0
    num_outside: int = 0
    num_absent: int = 0

    def add(self, truth: Mapping[str, NDArray[Any]], num_frames: NDArray[np.int32]) -> None:
        """Count the annotations (N, ...) of sequences."""
        is_digit = truth["label"] >= 0  # (N, K)
        is_there = ~np.isnan(truth["position"][..., 0])  # (N, T, K)
        exists = np.arange(is_there.shape[1]) < num_frames[:, None]  # (N, T)
        speed = np.hypot(*np.moveaxis(truth["velocity"].astype(np.float64), -1, 0))
        self.num_digits.add(is_digit.sum(1))
        self.bounces.add(truth["bounced"].sum((1, 2)))
        self.speed.add(speed[is_there])
        self.hidden.add(1 - truth["visible"][is_there].astype(np.float64))
        found = np.unique(truth["label"][is_digit], return_counts=True)
        for label, count in zip(*found, strict=True):
            self.labels[int(label)] = self.labels.get(int(label), 0) + int(count)
        moves = (is_there & (speed > 0)).any(1)
        self.num_still += int((is_there.any(1) & ~moves).sum())
        outside = is_there & (truth["box"][..., 0] < 0)
        absent = is_digit[:, None] & ~is_there
        self.num_frames += int(exists.sum())
        self.num_outside += int((exists & outside.any(2)).sum())
        self.num_absent += int((exists & absent.any(2)).sum())


class Stats:
    """The numbers of a split's first sequences.

    all_frames  every frame there is
    protocol    frames 11-20 of the sequences that have as many, with the squared error of the last
                frame seen (frame 10) in `copy_error`
    digits      None where the set lacks what is in `missing`
    """

    def __init__(self, split: str, shape: tuple[int, ...]) -> None:
        self.split = split
        self.num_sequences = 0
        self.lengths = Tally(1)
        self.brightness = Tally(0.01)
        self.lit = Tally(0.001)
        self.all_frames = Pixels(shape)
        self.protocol = Pixels(shape)
        self.copied = 0
        self.digits: Digits | None = Digits()
        self.missing: tuple[str, ...] = ()

    @property
    def copy_error(self) -> float:
        """Squared error per frame of the last frame seen, greys in [0, 1]."""
        return self.copied / 255**2 / self.protocol.num_frames

    def add_frames(self, frames: NDArray[np.uint8], num_frames: NDArray[np.int32]) -> None:
        """Count frames (N, T, ...), of which the first `num_frames` of each sequence exist."""
        self.num_sequences += len(frames)
        self.lengths.add(num_frames)
        existing = frames[np.arange(frames.shape[1]) < num_frames[:, None]]
        self.all_frames.add(existing)
        values = existing.reshape(len(existing), -1)
        self.brightness.add(values.sum(1, dtype=np.int64) / values.shape[1])
        is_lit = existing.any(3) if existing.ndim == 4 else existing
        num_lit = np.count_nonzero(is_lit, axis=(1, 2))
        self.lit.add(num_lit / math.prod(is_lit.shape[1:]))
        scored = frames[num_frames >= LAST, CONTEXT:LAST]
        if scored.size:
            last = frames[num_frames >= LAST, CONTEXT - 1 : CONTEXT]
            difference = np.maximum(scored, last) - np.minimum(scored, last)
            self.copied += int(_count_bytes(difference) @ np.arange(256) ** 2)
            self.protocol.add(scored.reshape(-1, *scored.shape[2:]))

    def as_json(self) -> dict[str, Any]:
        """Return what `mmgen stats --json` prints; numbers, or None where there is nothing."""
        told: dict[str, Any] = {
            "split": self.split,
            "sequences": self.num_sequences,
            "frames": self.all_frames.num_frames,
            "frame_shape": list(self.all_frames.sums.shape),
            "distributions": {
                name: tally.summary() | _as_lists(*tally.histogram())
                for name, tally in self.tallies().items()
            },
            "labels": None,
            "still_digits": None,
            "frames_with_digit_outside": None,
            "frames_with_digit_absent": None,
            "entropy_floor": self.all_frames.entropy_floor,
            "baselines": {
                "black": {"mse": self.all_frames.black_error},
                "mean frame": {"mse": self.all_frames.mean_frame_error},
            },
            "protocol": None,
        }
        if self.digits:
            told["labels"] = {str(k): v for k, v in sorted(self.digits.labels.items())}
            told["still_digits"] = self.digits.num_still
            told["frames_with_digit_outside"] = self.digits.num_outside
            told["frames_with_digit_absent"] = self.digits.num_absent
        if self.protocol.num_frames:
            told["protocol"] = {
                "frames": [CONTEXT + 1, LAST],
                "sequences": self.protocol.num_frames // (LAST - CONTEXT),
                "entropy_floor": self.protocol.entropy_floor,
                "baselines": {
                    "black": {"mse": self.protocol.black_error},
                    "copy-last": {"mse": self.copy_error},
                    "mean frame": {"mse": self.protocol.mean_frame_error},
                },
            }
        return told

    def tallies(self) -> dict[str, Tally]:
        """Return every distribution under its name in JSON."""
        tallies = {"frames": self.lengths, "brightness": self.brightness, "lit": self.lit}
        if self.digits:
            tallies |= {
                "digits": self.digits.num_digits,
                "speed": self.digits.speed,
                "bounces": self.digits.bounces,
                "hidden": self.digits.hidden,
            }
        return tallies


def _as_lists(edges: NDArray[np.float64], counts: NDArray[np.int64]) -> dict[str, Any]:
    return {"edges": edges.round(6).tolist(), "counts": counts.tolist()}


def measure(
    split: Split,
    num_sequences: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Stats:
    """Read the first sequences of a split, all if None, and count.

    raises  InputError if the split has fewer, ShardError that names a damaged shard
    """
    if num_sequences is not None and not 1 <= num_sequences <= len(split):
        raise InputError(
            f"{split.address}: {num_sequences} sequences asked for, {split.name} has {len(split)}"
        )
    stats = Stats(split.name, split.sequence_shape[1:])
    wanted = num_sequences or len(split)
    for number, entry in enumerate(split.entries):
        rows = min(entry.count, wanted - entry.first)
        if rows <= 0:
            break
        shard = split.shard(number)
        for first in range(0, rows, block := _block_length(split.sequence_shape)):
            last = min(first + block, rows)
            frames = np.empty((last - first, *split.sequence_shape), np.uint8)
            for row in range(first, last):
                shard.read_frames(row, frames[row - first])
            stats.add_frames(frames, shard.num_frames[first:last])
            progress(last - first)
        _add_digits(stats, shard, rows)
    return stats


def _block_length(sequence_shape: tuple[int, ...]) -> int:
    return max(1, _BLOCK_BYTES // math.prod(sequence_shape))


def _add_digits(stats: Stats, shard: Shard, rows: int) -> None:
    if stats.digits is None:
        return
    truth = shard.annotations()
    if missing := tuple(name for name in _DIGIT_NAMES if name not in truth):
        stats.digits, stats.missing = None, missing
        return
    truth = {name: np.asarray(truth[name]) for name in _DIGIT_NAMES}
    sizes = shard.entry.count, shard.sequence_shape[0]
    check_truth(truth, sizes, str(shard.where), shard.entry.first)
    stats.digits.add({name: truth[name][:rows] for name in truth}, shard.num_frames[:rows])
