"""What the tests of probes share: ground truth that is drawn, not rendered."""

import numpy as np

from trainer.probe_targets import make_targets

CLASSES = np.arange(10)


def make_truth(count, digits, seed=0):
    """Draw labels, positions and velocities; sequences have 1 to `digits` of them."""
    rng = np.random.default_rng(seed)
    is_there = np.arange(digits) < rng.integers(1, digits + 1, (count, 1))
    label = np.where(is_there, rng.integers(0, 10, (count, digits)), -1)
    pairs = rng.normal(20, 9, (2, count, digits, 2)).astype(np.float32)
    position, velocity = np.where(is_there[..., None], pairs, np.nan)
    return {"label": label, "position": position, "velocity": velocity - 20}


def targets_of(count, digits=1, seed=0):
    return make_targets(make_truth(count, digits, seed), CLASSES)
