"""Metrics of frames as pictures: PSNR, and SSIM in the two conventions that papers mix up.

Letters: B sequences, T frames, D values a frame. Frames are float (B, T, D), truth in [0, 1];
outputs are clipped to [0, 1] first, as both OpenSTL and the PredRNN papers do.
"""

import math

import torch
from torch import Tensor

SSIM_WINDOW = 7
_K1, _K2 = 0.01, 0.03
_CHUNK_PX = 1 << 16  # of frames worked on at a time, for each thread: maps stay in its cache


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each frame in dB, (B, T); infinite where nothing is wrong."""
    error = (output.clamp(0, 1) - target).square().mean(-1)
    return -10 * error.log10()


def ssim(output: Tensor, target: Tensor, frame_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Structural similarity of each frame, for data ranges of 1 and of 2: two of float64 (B, T).

    What scikit-image computes by default: a uniform window of 7 x 7, sample covariances, the mean
    over all places of the window that lie in the frame, and over colours. OpenSTL's published
    values are those of range 2, because its scikit-image took that for floats; the others take 1.

    frame_shape  (H, W) or (H, W, 3)
    returns      NaN for frames smaller than the window
    """
    height, width, *_ = frame_shape
    if min(height, width) < SSIM_WINDOW:
        nothing = torch.full(output.shape[:2], math.nan, dtype=torch.float64)
        return nothing, nothing
    planes = [_as_planes(frames, frame_shape) for frames in (output.clamp(0, 1), target)]
    at_once = max(1, torch.get_num_threads() * _CHUNK_PX // (height * width))
    parts = [
        _ssim_of_planes(one.double(), other.double())
        for one, other in zip(*(torch.split(side, at_once) for side in planes), strict=True)
    ]
    in_colour = torch.cat(parts).reshape(*output.shape[:2], -1, 2).mean(2)  # (B, T, 2)
    return in_colour[..., 0], in_colour[..., 1]


def _as_planes(frames: Tensor, frame_shape: tuple[int, ...]) -> Tensor:
    """Return (B * T * colours, H, W); colours come last in a frame's values."""
    height, width, *colours = frame_shape
    apart = frames.reshape(-1, height, width, *(colours or [1]))
    return apart.movedim(-1, 1).reshape(-1, height, width)


def _ssim_of_planes(one: Tensor, other: Tensor) -> Tensor:
    """Return the two values of each pair of planes (N, H, W), as (N, 2)."""
    num = SSIM_WINDOW**2
    maps = torch.stack([one, other, one.square() + other.square(), one * other])
    means = _window_sums(maps) / num  # (4, N, places down, places across)
    product, squares = means[0] * means[1], means[0].square() + means[1].square()
    to_sample = num / (num - 1)
    covariance = (means[3] - product).mul_(2 * to_sample)
    variances = (means[2] - squares).mul_(to_sample)
    product.mul_(2)
    values = []
    for data_range in (1, 2):
        c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
        above = (product + c1).mul_(covariance + c2)
        values.append(above.div_((squares + c1).mul_(variances + c2)).mean((1, 2)))
    return torch.stack(values, 1)


def _window_sums(maps: Tensor) -> Tensor:
    """Add up each window of (..., H, W), along one side and then the other.

    Running sums take a quarter of the time of products with a matrix of zeros and ones.
    """
    for side in (-1, -2):
        size = maps.shape[side] - SSIM_WINDOW + 1
        total = maps.cumsum(side)
        maps = total.narrow(side, SSIM_WINDOW - 1, size).clone()
        maps.narrow(side, 1, size - 1).sub_(total.narrow(side, 0, size - 1))
    return maps
