"""The statistics of a split as a picture: a histogram of every distribution, and the mean frame."""

import io
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmgen.preview import check_picture
from mmgen.shard.manifest import write_atomic
from mmgen.stats import Stats, Tally

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def check_histograms(path: Path) -> None:
    """Refuse a name that `write_histograms` cannot write to, before the work."""
    check_picture(path, (".png",))


def write_histograms(path: Path, stats: Stats) -> None:
    """Draw every distribution and the mean frame as a PNG.

    raises  InputError as `check_histograms` does
    """
    from matplotlib.figure import Figure  # takes as long as a thousand sequences

    check_histograms(path)
    panels: list[Callable[[Axes], None]] = []
    if stats.digits:
        panels.append(partial(_draw_labels, labels=stats.digits.labels))
    for name, tally in stats.tallies().items():
        panels.append(partial(_draw_tally, tally=tally, labels=_AXES[name]))
    columns = math.ceil(math.sqrt(len(panels) + 1))
    lines = math.ceil((len(panels) + 1) / columns)
    figure = Figure(figsize=(4 * columns, 3 * lines), layout="constrained")
    places = list(figure.subplots(lines, columns, squeeze=False).flat)
    for draw, axes in zip(panels, places, strict=False):
        draw(axes)
    _draw_mean_frame(figure, places[len(panels)], stats.all_frames.mean_frame)
    for axes in places[len(panels) + 1 :]:
        axes.set_axis_off()
    figure.suptitle(f"{stats.split}, {stats.num_sequences} sequences")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    write_atomic(path, buffer.getvalue())


_AXES = {
    "frames": ("frames per sequence", "sequences"),
    "digits": ("digits per sequence", "sequences"),
    "speed": ("speed (px per frame)", "digits x frames"),
    "bounces": ("bounces per sequence", "sequences"),
    "hidden": ("hidden share of a digit's ink", "digits x frames"),
    "brightness": ("brightness (mean grey of a frame, 0..255)", "frames"),
    "lit": ("share of pixels that are lit", "frames"),
}


def _draw_labels(axes: "Axes", labels: Mapping[int, int]) -> None:
    axes.bar([str(label) for label in sorted(labels)], [labels[k] for k in sorted(labels)])
    axes.set(xlabel="label", ylabel="digits")


def _draw_tally(axes: "Axes", tally: Tally, labels: tuple[str, str]) -> None:
    from matplotlib.ticker import MaxNLocator

    edges, counts = tally.histogram()
    axes.stairs(counts, edges, fill=True)
    axes.set(xlabel=labels[0], ylabel=labels[1], ylim=(0, None))
    if tally.step == 1:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _draw_mean_frame(figure: "Figure", axes: "Axes", mean: NDArray[np.float64]) -> None:
    """Draw the mean frame as bright as can be; in colour the scale is in the title."""
    if mean.ndim == 2:
        shown = axes.imshow(mean, cmap="gray", vmin=0)
        figure.colorbar(shown, label="mean grey (0..255)")
    else:
        brightest = max(float(mean.max()), 1e-9)
        axes.imshow(mean / brightest)
        axes.set_title(f"mean frame, brightest value {brightest:.1f} of 255", fontsize="medium")
    axes.set(xlabel="x (px)", ylabel="y (px)")
