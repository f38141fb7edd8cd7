"""A mean over seeds, and the interval that covers the true one in 95 of 100 such experiments.

Student's t, exact for any number of seeds: three seeds know little about their spread, and the
interval says so (4.3 standard errors to each side, not 1.96).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean of `count` values and its interval, low and high; one value has none."""

    mean: float
    interval: tuple[float, float] | None
    count: int


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of at least one finite value and its t interval."""
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = student_quantile(CONFIDENCE, count - 1) * math.sqrt(variance / count)
    return Estimate(mean, (mean - half, mean + half), count)


def student_quantile(confidence: float, freedom: int) -> float:
    """Return the t for which |T| < t has the probability `confidence`.

    freedom  degrees of it, 1 or more
    """
    low, high = 0.0, math.pi / 2  # of atan(t / sqrt(freedom)), which is finite
    for _ in range(60):  # halvings: as exact as a float
        middle = (low + high) / 2
        if _probability(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _probability(angle: float, freedom: int) -> float:
    """Return P(|T| < sqrt(freedom) tan(angle)): Abramowitz & Stegun, 26.7.3 and 26.7.4."""
    is_odd = freedom % 2
    term = math.cos(angle) if is_odd else 1.0
    total = 0.0
    for power in range(is_odd, freedom - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if is_odd else total
