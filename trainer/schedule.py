"""What changes with the step: the learning rate, and how much truth a scheduled decoder is shown.

Pure functions of the step, which counts from 0: so resuming needs no state.
"""

import math

from trainer.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return the rate of step 0..steps-1.

    constant   lr
    cosine     half a cosine from lr at the first step down to 0 at the one after the last
    one-cycle  (Smith and Topin, arXiv:1708.07120) with the constants of torch's OneCycleLR: a
               cosine from lr / 25 up to lr over the first 30 %, then one down to lr / 250 000
    staircase  lr, times 0.9 every 10 000 steps, as the code of Srivastava et al. has it

    Before a constant or cosine schedule begins, its `warmup` steps climb to lr on a line from 0.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / (config.warmup + 1)
    match config.schedule:
        case "constant":
            return config.lr
        case "cosine":
            return _cosine(config.lr, 0.0, (step - config.warmup) / (steps - config.warmup))
        case "one-cycle":
            return _one_cycle(config.lr, step, steps)
        case "staircase":
            return float(config.lr * 0.9 ** (step // 10_000))


def share_shown(config: OptimizerConfig, step: int) -> float:
    """Return the share of true frames that scheduled decoders read at step 0..steps-1."""
    way = min(1.0, step / config.truth_steps)
    return config.truth_start + (config.truth_end - config.truth_start) * way


def _one_cycle(lr: float, step: int, steps: int) -> float:
    low, lowest = lr / 25, lr / 25e4
    peak = 0.3 * steps - 1
    if step <= peak:
        return _cosine(low, lr, step / peak)
    return _cosine(lr, lowest, (step - peak) / max(1e-9, steps - 1 - peak))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
