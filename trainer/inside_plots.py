"""Draw what `inside.py` finds: sheets of weights, units over time, the paths of the latent."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from numpy.typing import NDArray

from trainer.inside import (
    Weights,
    direction,
    input_weights,
    latents,
    most_active,
    output_weights,
    principal_components,
    sheet,
    unroll,
)
from trainer.model import VideoAutoencoder
from trainer.plot import Plot, add_legend, as_small_png, new_figure
from trainer.result_files import as_csv

NUM_STEPS = 100
NUM_PATHS = 32
_NUM_SHOWN = 24
_COLUMNS = 6
_NUM_UNITS = 200
_NAN_GREY = 0.75


def weight_sheets(model: VideoAutoencoder) -> Iterator[Plot]:
    """Yield a sheet of each gate of the encoder, and of each decoder's read-out."""
    sees = input_weights(model, _NUM_SHOWN)
    for gate, pictures in sees.pictures.items():
        what = f"weights from the pixels to the encoder's {gate} gate"
        yield _weight_sheet(f"weights_in_{gate}", f"Into: {gate} gate", what, sees, pictures)
    for head in model.config.decoders.split(","):
        paints = output_weights(model, head, _NUM_SHOWN)
        what = f"weights from the last layer's units to the pixels, decoder {head}"
        yield _weight_sheet(
            f"weights_out_{head}", f"Out of: {head}", what, paints, paints.pictures[head]
        )


def _weight_sheet(
    name: str, title: str, what: str, weights: Weights, pictures: NDArray[np.float32]
) -> Plot:
    num, height, width = pictures.shape[:3]
    columns = min(_COLUMNS, num)
    laid = sheet(pictures, columns)
    largest = max(float(np.quantile(np.abs(pictures), 0.999)), 1e-12)
    figure, axes = new_figure(0.2 + 3.8 * laid.shape[0] / laid.shape[1])
    if laid.ndim == 3:
        shown = np.nan_to_num(0.5 + laid / (2 * largest), nan=_NAN_GREY).clip(0, 1)
        axes.imshow(shown, interpolation="nearest")
        scale = f"Grey is 0, a channel's brightest and darkest +-{largest:.2g}."
    else:
        drawn = axes.imshow(laid, "RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
        figure.colorbar(drawn, shrink=0.8, pad=0.02)
        scale = "Red is positive, blue negative."
    for number, unit in enumerate(weights.units):
        left, top = (width + 1) * (number % columns), (height + 1) * (number // columns)
        axes.text(left + 1, top + 1, str(unit), fontsize=6, va="top", color="black")
    axes.set_axis_off()
    units = ", ".join(map(str, weights.units))
    alt = f"{what[0].upper()}{what[1:]} as pictures of {height} x {width}, of units {units}."
    header = ("unit", *(f"w{place}" for place in range(pictures[0].size)))
    rows = (
        [unit, *(f"{w:.4g}" for w in p.ravel())]
        for unit, p in zip(weights.units, pictures, strict=True)
    )
    note = f"The {num} units of the largest norm, numbered. {scale}"
    return Plot(name, title, alt, as_small_png(figure), as_csv(header, rows), note)


def activity_plot(model: VideoAutoencoder, context: torch.Tensor, num_trained: int) -> Plot:
    """Draw the units of the prediction decoder's last layer over a long roll-out.

    context      uint8 (1, T, H, W) or (1, T, H, W, 3)
    num_trained  frames that training looked ahead
    """
    states = unroll(model, context, NUM_STEPS).states
    units = most_active(states, _NUM_UNITS)
    shown = states[:, units].T  # (units, T)
    figure, axes = new_figure(3.6)
    largest = float(np.abs(shown).max())
    drawn = axes.imshow(
        shown,
        "RdBu_r",
        aspect="auto",
        vmin=-largest,
        vmax=largest,
        interpolation="nearest",
        extent=(0.5, NUM_STEPS + 0.5, len(units) + 0.5, 0.5),
    )
    axes.axvline(num_trained + 0.5, color="black", linewidth=1, linestyle="--")
    axes.set(xlabel="frames after the context", ylabel="unit, in the order of its peak")
    figure.colorbar(drawn, label="h", pad=0.02)
    early, late = (float(np.abs(part).mean()) for part in (states[:num_trained], states[-10:]))
    alt = (
        f"Heat map of {len(units)} units over {NUM_STEPS} frames: mean |h| is {early:.2f} over the "
        f"{num_trained} frames of training and {late:.2f} over the last ten."
    )
    header = ("unit", *(f"frame_{t + 1}" for t in range(NUM_STEPS)))
    rows = ([unit, *(f"{h:.5g}" for h in row)] for unit, row in zip(units, shown, strict=True))
    note = (
        f"The {len(units)} units that change most, of {states.shape[1]}. Training looks as far as "
        "the dashed line."
    )
    return Plot(
        "activity",
        "Units over a long roll-out",
        alt,
        as_small_png(figure),
        as_csv(header, rows),
        note,
    )


def trajectory_plot(
    model: VideoAutoencoder, context: torch.Tensor, velocity: NDArray[np.float32] | None
) -> Plot:
    """Draw the path of the latent through its first two principal components.

    context   uint8 (B, T, H, W) or (B, T, H, W, 3)
    velocity  (B, T, 2), (vy, vx) of the first digit, NaN where it is absent; None if unknown
    """
    states = latents(model, context)  # (B, T, S)
    num, length = states.shape[:2]
    found = principal_components(states.reshape(num * length, -1), 2)
    paths = found.places.reshape(num, length, 2)
    if velocity is None:
        color = np.broadcast_to(np.linspace(0, 300, length), (num, length))
        by, ticks = "frame", {0.0: "first", 300.0: "last"}
    else:
        color = direction(velocity)
        by, ticks = (
            "the first digit's direction",
            {0.0: "right", 90.0: "up", 180.0: "left", 270.0: "down"},
        )
    figure, axes = new_figure(3.6)
    for path in paths:
        axes.plot(*path.T, color="0.6", linewidth=0.6, zorder=1)
    sizes = np.broadcast_to(np.linspace(3, 22, length), (num, length))
    axes.scatter(
        paths[..., 0].ravel(),
        paths[..., 1].ravel(),
        s=sizes.ravel(),
        c=_as_colors(color.ravel()),
        zorder=2,
        linewidths=0,
    )
    first, second = found.shares * 100
    axes.set(xlabel=f"first component ({first:.0f} %)", ylabel=f"second component ({second:.0f} %)")
    for angle, text in ticks.items():
        axes.scatter([], [], color=_as_colors(np.array([angle])), label=text)
    add_legend(figure, by, len(ticks))
    return Plot(
        "latent",
        "Paths of the latent",
        f"The latent of {num} sequences over {length} frames in its first two principal "
        f"components, which hold {first:.0f} and {second:.0f} % of the variance, coloured by {by}.",
        as_small_png(figure),
        as_csv(("sequence", "frame", "first", "second", "vy", "vx"), _path_rows(paths, velocity)),
        "A line a sequence, a dot a frame of the context; dots grow with time.",
    )


def _as_colors(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the hue of an angle in degrees, dark enough for white paper; grey where it is NaN."""
    hue = np.nan_to_num(angles / 360)
    saturation = np.where(np.isnan(angles), 0, 0.9)
    colors: NDArray[np.float64] = hsv_to_rgb(
        np.stack([hue, saturation, np.full_like(hue, 0.8)], -1)
    )
    return colors


def _path_rows(
    paths: NDArray[np.float64], velocity: NDArray[np.float32] | None
) -> Iterator[tuple[object, ...]]:
    for (number, t), _ in np.ndenumerate(paths[..., 0]):
        known = (None, None) if velocity is None else velocity[number, t].tolist()
        shown = (None if value is None or math.isnan(value) else value for value in known)
        yield number, t + 1, *paths[number, t].round(5).tolist(), *shown
