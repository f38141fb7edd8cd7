"""The metrics, all in one table at the end: what evaluations, tables, files and plots go by.

Here are PSNR, and SSIM in the two conventions that papers mix up; they clip outputs to [0, 1]
first, as both OpenSTL and the PredRNN papers do.

Letters: B sequences, T frames, D values a frame. Frames are float (B, T, D), truth in [0, 1].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trainer import losses

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


@dataclass(frozen=True, eq=False)
class Judged:
    """Frames that metrics score, on any device.

    output, target  float (B, T, D): as they were said, not clipped, and as they are, in [0, 1]
    frame_shape     (H, W) or (H, W, 3), of which D is the product
    nats            their cross-entropy (B, T), if it is not that of the output clipped to (0, 1)
    """

    output: Tensor
    target: Tensor
    frame_shape: tuple[int, ...]
    nats: Tensor | None = None

    @cached_property
    def ssims(self) -> tuple[Tensor, Tensor]:
        """SSIM for data ranges of 1 and 2, which share nearly all of their work."""
        return ssim(self.output, self.target, self.frame_shape)

    @property
    def cross_entropy(self) -> Tensor:
        """Cross-entropy in nats per frame (B, T)."""
        known = self.nats
        return losses.clipped_cross_entropy(self.output, self.target) if known is None else known


@dataclass(frozen=True)
class Metric:
    """What there is to know about a metric.

    title    its name in tables and on axes, with its unit
    digits   behind the point
    score    frames -> a number a frame, float (B, T); None: only where it is asked for by its name
    best     what is said of frames that equal the truth; None: there is no such number
    lowest   where an axis begins; None: where the numbers do
    undefined  what a table says in place of a mean that is no number
    about    half a sentence below the tables, "" where another metric's says it too
    """

    title: str
    digits: int
    score: Callable[[Judged], Tensor] | None
    best: float | None = None
    lowest: float | None = None
    undefined: str = "n/a"
    about: str = ""

    def written(self, value: float | None) -> str:
        """Write a mean as tables do."""
        return self.undefined if value is None else f"{value:.{self.digits}f}"


# In the order of all tables. `trainer.evaluation` adds LPIPS where it is asked for.
METRICS: dict[str, Metric] = {
    "mse": Metric(
        "MSE",
        1,
        lambda judged: losses.squared_error(judged.output, judged.target),
        best=0.0,
        lowest=0.0,
        undefined="infinite",
        about="MSE and MAE are summed over a frame's pixels before clipping",
    ),
    "mae": Metric(
        "MAE",
        1,
        lambda judged: losses.absolute_error(judged.output, judged.target),
        best=0.0,
        lowest=0.0,
        undefined="infinite",
    ),
    "psnr": Metric(
        "PSNR (dB)",
        2,
        lambda judged: psnr(judged.output, judged.target),
        undefined="infinite",
        about="PSNR and SSIM are of clipped frames, SSIM with a data range of 1 and, as in "
        "OpenSTL's tables, of 2",
    ),
    "ssim": Metric("SSIM", 3, lambda judged: judged.ssims[0], best=1.0),  # none of tiny frames
    "ssim_openstl": Metric("SSIM (OpenSTL)", 3, lambda judged: judged.ssims[1], best=1.0),
    "ce": Metric(
        "CE (nats)",
        1,
        lambda judged: judged.cross_entropy,
        lowest=0.0,
        undefined="infinite",
        about=f"CE clips what is no probability to [{losses.CLIP:g}, {1 - losses.CLIP:g}]",
    ),
    "lpips": Metric("LPIPS", 3, None, best=0.0),
}


def explained() -> str:
    """Say what the numbers of a table are."""
    about = "; ".join(metric.about for metric in METRICS.values() if metric.about)
    return f"Means over sequences and frames. {about}."
