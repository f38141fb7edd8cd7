"""What a probe is asked of a sequence, and how well it answered, whatever the order of its digits.

digits    which classes are present. A probe ranks the classes; of a sequence with n of them its n
          highest are what it says. `digits` is the share of these that are right, `all_digits` the
          share of sequences in which all are. With one digit both are plain accuracy
position  (y, x) of every digit, velocity (vy, vx) likewise, each coordinate sorted by itself over
          the digits: continuous, the same for any order of the digits, and with one digit plainly
          (y, x). Which y belongs to which x is not asked. Scored by R2: 1 minus squared error over
          that of the best constants in hindsight, the means of the test, summed over coordinates

Everything is of one frame, the last of the context; digits that are not there then are not asked
for.

Letters: N sequences, C classes, K digits a sequence.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.intervals import interval, resampled_means

MEASURES = ("digits", "all_digits", "position", "velocity")
_NO_VARIANCE = 1e-9  # px squared: rounding

Scores = dict[str, dict[str, Any]]  # measure -> {"value": number or None, "interval": [low, high]}


class Targets(NamedTuple):
    """What is asked, or what is answered: floats of N sequences.

    digits    (N, C), 1 where a class is present; as an answer, the higher the likelier
    position  (N, 2K), px: y of the lowest, x of the lowest, y of the second ...; NaN where a
              sequence has fewer digits
    velocity  (N, 2K), px per frame, likewise
    """

    digits: Tensor
    position: Tensor
    velocity: Tensor

    def rows(self, places: Tensor) -> "Targets":
        """Return those of some sequences."""
        return Targets(*(part[places] for part in self))

    def to(self, device: torch.device) -> "Targets":
        """Copy to a device."""
        return Targets(*(part.to(device) for part in self))


def make_targets(truth: Mapping[str, NDArray[Any]], classes: NDArray[np.integer[Any]]) -> Targets:
    """Make targets of the ground truth of one frame.

    truth    label int (N, K), -1 for none; position, velocity float (N, K, 2), NaN for none
    classes  int (C,), ascending: the labels there are
    """
    is_there = np.isfinite(truth["position"]).all(2) & (truth["label"] >= 0)  # (N, K)
    digits = np.zeros((len(is_there), len(classes)), np.float32)
    rows, slots = np.nonzero(is_there)
    digits[rows, np.searchsorted(classes, truth["label"][rows, slots])] = 1
    sorted_each = (
        np.sort(np.where(is_there[..., None], truth[name], np.nan), axis=1)  # NaN comes last
        for name in ("position", "velocity")
    )
    return Targets(
        torch.from_numpy(digits),
        *(torch.from_numpy(one.astype(np.float32).reshape(len(one), -1)) for one in sorted_each),
    )


def constant_answer(labelled: Targets, count: int) -> Targets:
    """Answer without looking: classes by how many sequences have them, the mean of the rest."""
    return Targets(*(column_means(part).expand(count, -1) for part in labelled))


def column_means(values: Tensor) -> Tensor:
    """Return the mean of each column (N, M) -> (M,); of one that is all NaN, the mean of all."""
    means = values.nanmean(0)
    return torch.where(means.isnan(), values.nanmean(), means)


def label_ranks(digits: Tensor, seed: int) -> Tensor:
    """Rank sequences such that those below n hold the first n labelled sequences of each class.

    The order in which sequences are labelled is drawn from the seed. The sets are nested; with one
    digit a sequence they hold exactly n of each class, as long as there are.

    digits   (N, C), 1 where a class is present
    returns  int64 (N,); N where a sequence has no digit
    """
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))
    is_present = digits.cpu()[order] > 0
    before = is_present.long().cumsum(0) - 1  # of each class, sequences before this one
    first = torch.where(is_present, before, len(digits)).amin(1)
    ranks = torch.empty_like(first)
    ranks[order] = first
    return ranks


def score(answer: Targets, truth: Targets) -> Scores:
    """Score answers, with intervals that hold 95 % of bootstrap resamples of the sequences.

    returns  for each of MEASURES value and interval; None where it is undefined: without digits, or
             where what is asked never differs
    """
    gained, possible = _gains(answer.to(truth.digits.device), truth)
    values = _ratio(gained.sum(0), possible.sum(0))
    means = torch.from_numpy(resampled_means(torch.cat([gained, possible], 1).cpu().numpy()))
    resampled = _ratio(*(means * len(gained)).chunk(2, 1))
    return {
        name: {"value": _number(value), "interval": _interval(ratios)}
        for name, value, ratios in zip(MEASURES, values, resampled.T, strict=True)
    }


def _gains(answer: Targets, truth: Targets) -> tuple[Tensor, Tensor]:
    """Return what each sequence adds to each of MEASURES, and what it could, float64 (N, 4).

    Each measure is the sum of the one over the sum of the other.
    """
    num_present = truth.digits.sum(1)
    ranked = truth.digits.gather(1, answer.digits.argsort(dim=1, descending=True, stable=True))
    ranks = torch.arange(ranked.shape[1], device=ranked.device)
    num_right = (ranked * (ranks < num_present[:, None])).sum(1)
    has_digits = num_present > 0
    gained = [num_right / num_present.clamp(min=1), has_digits & (num_right == num_present)]
    possible = [has_digits, has_digits]
    for said, true in zip(answer[1:], truth[1:], strict=True):
        error = _squares(said - true, true.isfinite())
        spread = _squares(true - true.nanmean(0), true.isfinite())
        gained.append(spread - error)
        possible.append(spread)
    return _columns(gained), _columns(possible)


def _squares(ways: Tensor, exists: Tensor) -> Tensor:
    return torch.where(exists, ways, 0).double().square().sum(1)


def _columns(parts: list[Tensor]) -> Tensor:
    return torch.stack([part.double() for part in parts], 1)


def _ratio(gained: Tensor, possible: Tensor) -> Tensor:
    return torch.where(possible > _NO_VARIANCE, gained / possible, torch.nan)


def _interval(resampled: Tensor) -> list[float | None]:
    """Return the bounds of the resamples in which something was asked."""
    there = resampled[resampled.isfinite()]
    return list(interval(there.numpy())) if len(there) else [None, None]


def _number(value: Tensor) -> float | None:
    return value.item() if value.isfinite() else None
