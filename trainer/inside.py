"""What goes on inside a model: its weights as pictures, its states over time, where they lie.

Nothing here draws. Letters: B sequences, T frames, U units of a layer, G gates of a cell, H x W
canvas; a frame's shape (H, W) or (H, W, 3) is written F.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.cells import NUM_GATES
from trainer.latents import flattened
from trainer.model import VideoAutoencoder, to_values
from trainer.noise import StackNoise

GATE_NAMES = {
    "lstm": ("input", "forget", "new", "output"),
    "peephole": ("input", "forget", "new", "output"),
    "gru": ("reset", "update", "new"),
    "rnn": ("new",),
}


class Weights(NamedTuple):
    """The weights between some units and the pixels, as pictures."""

    units: NDArray[np.int64]  # (N,), those of the largest norm first
    pictures: dict[str, NDArray[np.float32]]  # a gate or a decoder -> (N, *F)


def input_weights(model: VideoAutoencoder, num_units: int) -> Weights:
    """Return what each gate of the encoder's first layer looks for.

    The units are those of the largest norm over all gates; there may be fewer than asked for.
    """
    weight = model.encoder.lstm.layers()[0].weight_ih
    assert weight is not None
    num_gates = NUM_GATES[model.config.cell]
    gates = _as_array(weight).reshape(num_gates, -1, *model.frame_shape)  # (G, U, *F)
    norms = np.sqrt((gates.astype(np.float64) ** 2).sum((0, *range(2, gates.ndim))))
    units = _largest(norms, num_units)
    names = GATE_NAMES[model.config.cell]
    return Weights(units, {name: gates[place, units] for place, name in enumerate(names)})


def output_weights(model: VideoAutoencoder, head: str, num_units: int) -> Weights:
    """Return what each unit of a decoder's last layer paints.

    head  reconstruct or predict, which the model must have
    """
    weight = getattr(model, f"{head}_decoder").fc.weight  # (D, U)
    painted = _as_array(weight).T.reshape(-1, *model.frame_shape)  # (U, *F)
    norms = np.sqrt((painted.astype(np.float64) ** 2).sum(tuple(range(1, painted.ndim))))
    units = _largest(norms, num_units)
    return Weights(units, {head: painted[units]})


def sheet(pictures: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """Lay pictures (N, *F) out row by row, a pixel of NaN between them and behind the last."""
    num, height, width = pictures.shape[:3]
    columns = min(columns, num)
    rows = -(-num // columns)
    laid = np.full(
        (rows * (height + 1) - 1, columns * (width + 1) - 1, *pictures.shape[3:]),
        np.nan,
        np.float32,
    )
    for number, picture in enumerate(pictures):
        top, left = (height + 1) * (number // columns), (width + 1) * (number % columns)
        laid[top : top + height, left : left + width] = picture
    return laid


class Activity(NamedTuple):
    """A prediction far beyond the frames that were trained."""

    frames: NDArray[np.float32]  # (T, *F), as `generate` gives them
    states: NDArray[np.float32]  # (T, U), h of the decoder's last layer that each is read out of


@torch.inference_mode()
def unroll(model: VideoAutoencoder, context: torch.Tensor, steps: int) -> Activity:
    """Predict as `generate` does, and keep the states.

    context  uint8 (1, T, *F)
    """
    dtype = model.product_dtype
    *_, state = model.encoder.states(_time_first(model, context), None, StackNoise(), dtype)
    frames, states = [], []
    decoder = model.predict_decoder
    for frame, after in decoder.unroll(state, steps, None, StackNoise(), dtype):
        frames.append(model.emit(frame)[0])
        states.append(after[-1][0][0])
    shown = _as_array(torch.stack(frames)).reshape(steps, *model.frame_shape)
    return Activity(shown, _as_array(torch.stack(states)))


def most_active(states: NDArray[np.float32], num_units: int) -> NDArray[np.int64]:
    """Return the units of states (T, U) that change most, in the order of when each peaks."""
    units = _largest(states.astype(np.float64).var(0), num_units)
    return units[np.argsort(np.abs(states[:, units]).argmax(0), kind="stable")]


@torch.inference_mode()
def latents(model: VideoAutoencoder, context: torch.Tensor) -> NDArray[np.float32]:
    """Return all that the encoder would hand on after each frame it reads.

    context  uint8 (B, T, *F)
    returns  float32 (B, T, S): h, and c where the cell has one, of every layer
    """
    frames = _time_first(model, context)
    states = model.encoder.states(frames, None, StackNoise(), model.product_dtype)
    return _as_array(torch.stack([flattened(state) for state in states], 1))


class Components(NamedTuple):
    """Samples seen along the directions in which they spread most."""

    places: NDArray[np.float64]  # (N, count)
    shares: NDArray[np.float64]  # (count,), of the variance


def principal_components(samples: NDArray[np.float32], count: int) -> Components:
    """Return the first principal components of samples (N, S).

    Of each the place farthest from 0 is positive; those past the N or S there are, are 0.
    """
    centred = samples - samples.mean(0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    places, shares = np.zeros((len(samples), count)), np.zeros(count)
    there = min(count, len(sizes))
    places[:, :there] = left[:, :there] * sizes[:there]
    farthest = np.take_along_axis(places, np.abs(places).argmax(0)[None], 0)
    shares[:there] = sizes[:there] ** 2 / max(float((sizes**2).sum()), 1e-300)
    return Components(places * np.sign(farthest), shares)


def direction(velocity: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the angle of (vy, vx) in degrees, 0 to the right and 90 upwards, in [0, 360)."""
    vy, vx = np.moveaxis(velocity.astype(np.float64), -1, 0)
    angles: NDArray[np.float64] = np.degrees(np.arctan2(-vy, vx)) % 360
    return angles


def _time_first(model: VideoAutoencoder, frames: torch.Tensor) -> torch.Tensor:
    device = next(model.parameters()).device
    return to_values(frames.to(device)).transpose(0, 1)  # (T, B, D)


def _largest(sizes: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    return np.argsort(-sizes, kind="stable")[:count]


def _as_array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy()
