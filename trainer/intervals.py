"""How sure a mean over sequences is: the bootstrap.

Letters: N sequences, M columns of scores, R resamples.
"""

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 1000
LEVEL = 0.95


def resampled_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of NUM_RESAMPLES draws of N sequences with replacement, (R, M).

    values  (N, M): all columns are drawn together, so that what is computed of several means (a
            difference, a skill) has an interval of its own. The draws are always the same.
    """
    generator = np.random.Generator(np.random.PCG64(0))
    count = len(values)
    means = np.empty((NUM_RESAMPLES, values.shape[1]))
    with np.errstate(invalid="ignore"):  # a column with an infinite score has no interval
        for mean in means:
            drawn = np.bincount(generator.integers(count, size=count), minlength=count)
            mean[:] = drawn @ values
    return means / count


def interval(means: NDArray[np.float64]) -> tuple[float, float]:
    """Return the bounds between which the middle 95 % of resampled values (R,) lie."""
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(means, [outside, 1 - outside])
    return float(low), float(high)
