"""LPIPS: how far apart frames are to a network that has seen photographs (arXiv:1801.03924).

The network (AlexNet of torchvision, as OpenSTL has it) is not ours to ship: the extra `lpips` has
the metric, and torchvision downloads AlexNet on first use.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainer.errors import InputError

_SMALLEST_PX = 32  # less is nothing behind AlexNet's pooling
_AT_ONCE = 256  # frames: 16 MB of their first features


def load_lpips() -> "Perceptual":
    """Return the metric; InputError where the package or its network cannot be had."""
    try:
        import lpips
    except ImportError as error:
        raise InputError(
            'lpips: is not installed; pip install "moving-mnist[lpips]", or leave it out'
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the way in which it asks torchvision
            network = lpips.LPIPS(net="alex", verbose=False)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"lpips: AlexNet cannot be downloaded ({reason}); use it once where there is network, "
            f"and copy {torch.hub.get_dir()}/checkpoints from there"
        ) from error
    return Perceptual(network)


class Perceptual:
    """LPIPS of each frame.

    network  (N, 3, H, W) twice, on the scale -1..1 -> (N, 1, 1, 1)
    """

    def __init__(self, network: Callable[[Tensor, Tensor], Any]) -> None:
        self._network = network

    def __call__(self, output: Tensor, target: Tensor, frame_shape: tuple[int, ...]) -> Tensor:
        """Score frames float (B, T, D), clipped to [0, 1]: (B, T), 0 where they are equal.

        frame_shape  (H, W) or (H, W, 3)
        returns      NaN for frames of less than 32 px a side
        """
        if min(frame_shape[:2]) < _SMALLEST_PX:
            return torch.full(output.shape[:2], math.nan)
        pictures = [
            _as_pictures(frames.clamp(0, 1), frame_shape).split(_AT_ONCE)  # type: ignore[no-untyped-call]
            for frames in (output.cpu(), target.cpu())
        ]
        parts = [self._network(*pair).flatten() for pair in zip(*pictures, strict=True)]
        return torch.cat(parts).reshape(output.shape[:2])


def _as_pictures(frames: Tensor, frame_shape: tuple[int, ...]) -> Tensor:
    """Return (B * T, 3, H, W) on the scale -1..1; grey is all three colours."""
    height, width, *colours = frame_shape
    pictures = frames.reshape(-1, height, width, *(colours or [1])).movedim(-1, 1)
    return pictures.expand(-1, 3, -1, -1) * 2 - 1
