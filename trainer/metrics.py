"""Metrics of frames as pictures: PSNR, and SSIM in the two conventions that papers mix up.

Letters: B sequences, T frames, D values a frame. Frames are float (B, T, D), truth in [0, 1];
outputs are clipped to [0, 1] first, as both OpenSTL and the PredRNN papers do.
"""

import math

import torch
from torch import Tensor

SSIM_WINDOW = 7
_K1, _K2 = 0.01, 0.03


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each frame in dB, (B, T); infinite where nothing is wrong."""
    error = (output.clamp(0, 1) - target).square().mean(-1)
    return -10 * error.log10()


def ssim(output: Tensor, target: Tensor, frame_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Structural similarity of each frame, for data ranges of 1 and of 2: two of (B, T).

    What scikit-image computes by default: a uniform window of 7 x 7, sample covariances, the mean
    over all places of the window that lie in the frame, and over colours. OpenSTL's published
    values are those of range 2, because its scikit-image took that for floats; the others take 1.

    frame_shape  (H, W) or (H, W, 3)
    returns      NaN for frames smaller than the window
    """
    height, width, *_ = frame_shape
    if min(height, width) < SSIM_WINDOW:
        nothing = torch.full(output.shape[:2], math.nan)
        return nothing, nothing
    planes = (_as_planes(frames, frame_shape) for frames in (output.clamp(0, 1), target))
    of_planes = _ssim_of_planes(*planes)
    in_colour = of_planes.reshape(*output.shape[:2], -1, 2).mean(2)  # (B, T, 2)
    return in_colour[..., 0], in_colour[..., 1]


def _as_planes(frames: Tensor, frame_shape: tuple[int, ...]) -> Tensor:
    """Return (B * T * colours, H, W); colours come last in a frame's values."""
    height, width, *colours = frame_shape
    apart = frames.reshape(-1, height, width, *(colours or [1]))
    return apart.movedim(-1, 1).reshape(-1, height, width)


def _ssim_of_planes(one: Tensor, other: Tensor) -> Tensor:
    """Return the two values of each pair of planes (N, H, W) within [0, 1], as (N, 2).

    A variance is the small difference of large sums, which float32 would lose on anything bright,
    and float64 would take longer than the model. So values are cut in two: the coarse parts are
    whole 32nds, of which all sums and squares below are exact, and the fine ones are small.
    """
    coarse_one, coarse_other = (plane.mul(32).round_().div_(32) for plane in (one, other))
    fine_one, fine_other = one - coarse_one, other - coarse_other
    maps = torch.stack(
        [
            coarse_one,
            coarse_other,
            fine_one,
            fine_other,
            coarse_one.square().addcmul_(coarse_other, coarse_other),
            fine_one * (coarse_one + one) + fine_other * (coarse_other + other),
            coarse_one * coarse_other,
            coarse_one * fine_other + fine_one * other,
        ]
    )
    num = SSIM_WINDOW**2
    of_one, of_other, fine_one, fine_other, *products = _window_sums(_window_sums(maps, -1), -2)
    squares, fine_squares, crossed, fine_crossed = (num * product for product in products)
    one, other = of_one + fine_one, of_other + fine_other
    variances = squares - of_one.square() - of_other.square()  # exact, as is the next
    covariance = crossed - of_one * of_other
    variances += fine_squares - fine_one * (of_one + one) - fine_other * (of_other + other)
    covariance += fine_crossed - of_one * fine_other - fine_one * other
    return _similarity(
        2 * one * other / num**2,
        (one.square() + other.square()) / num**2,
        2 * covariance / (num * (num - 1)),
        variances / (num * (num - 1)),
    )


def _similarity(product: Tensor, squares: Tensor, covariance: Tensor, variances: Tensor) -> Tensor:
    """Return SSIM for data ranges of 1 and 2, (N, 2), from what is known of each window.

    product, covariance  twice that of the two planes       squares, variances  their sums
    """
    values = []
    for data_range in (1, 2):
        c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
        above = (product + c1).mul_(covariance + c2)
        values.append(above.div_((squares + c1).mul_(variances + c2)).mean((1, 2)))
    return torch.stack(values, 1)


def _window_sums(planes: Tensor, axis: int) -> Tensor:
    """Add up each window along an axis: 1 + 1 are 2, 2 + 2 are 4, and 4 + 2 + 1 are 7."""

    def part(values: Tensor, first: int, length: int) -> Tensor:
        return values.narrow(axis, first, length)

    side = planes.shape[axis]
    twos = part(planes, 0, side - 1) + part(planes, 1, side - 1)
    fours = part(twos, 0, side - 3) + part(twos, 2, side - 3)
    places = side - SSIM_WINDOW + 1
    sums = part(fours, 0, places) + part(twos, 4, places)
    return sums.add_(part(planes, 6, places))
