"""Losses and metrics: pure functions of tensors.

Letters: B sequences, T frames, D values a frame. Frames are float (B, T, D), truth in [0, 1].
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# How far from 0 and 1 a cross-entropy keeps outputs that are no probabilities.
CLIP = 1e-3


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Squared error summed over a frame's values, before any clipping: (B, T).

    Its mean over sequences and frames is the MSE of OpenSTL and of the PredRNN papers.
    """
    return (output - target).square().sum(-1)


def absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """Absolute error summed over a frame's values: (B, T)."""
    return (output - target).abs().sum(-1)


def cross_entropy(probability: Tensor, target: Tensor) -> Tensor:
    """Return -sum[z log p + (1 - z) log(1 - p)] in nats per frame, (B, T); z is the grey target.

    Infinite where p is 0 or 1 and the target is not; 0 log 0 counts as 0.
    """
    nats = torch.xlogy(target, probability) + torch.xlogy(1 - target, 1 - probability)
    return -nats.sum(-1)


def output_cross_entropy(output: Tensor, target: Tensor, *, is_logit: bool) -> Tensor:
    """Return the cross-entropy of what a read-out gives, (B, T).

    is_logit  its sigmoid is a probability, and finite however sure; else it is clipped to be one
    """
    if is_logit:
        return F.binary_cross_entropy_with_logits(output, target, reduction="none").sum(-1)
    return clipped_cross_entropy(output, target)


def clipped_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of what is no probability, brought within [CLIP, 1 - CLIP]."""
    probability = output.clamp(CLIP, 1 - CLIP)  # where both logarithms are finite
    surprise = (1 - probability).log()
    return -(target * (probability.log() - surprise) + surprise).sum(-1)


def entropy(target: Tensor) -> Tensor:
    """Return the cross-entropy nobody gets below: that of the targets themselves, (B, T)."""
    return cross_entropy(target, target)
