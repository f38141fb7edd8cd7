"""Animations as sprite sheets, which a few lines of script on the page play.

A sheet has a row a panel and a column a frame, at the size of the canvas: it is a picture of its
own, and all that is seen where no script runs. Letters: T frames, K digits, H x W canvas.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.config import ModelConfig
from trainer.rollout import Rollout
from trainer.source import Source, Truth

# Told apart on black and from each other, with common colour blindness too.
_BOX_COLORS = ((255, 165, 0), (64, 190, 255), (255, 110, 200), (110, 230, 90))


@dataclass(frozen=True)
class Animation:
    """Panels that play together.

    name   of its file, without the ending
    alt    what is to be seen
    panels  titles, a row of the sheet each
    sheet  PNG, (len(panels) * height, num_frames * width)
    num_context  frames that the model sees, 0 where that means nothing
    """

    name: str
    title: str
    alt: str
    panels: tuple[str, ...]
    num_frames: int
    height: int
    width: int
    sheet: bytes
    num_context: int = 0


def rollout_animation(
    name: str, title: str, alt: str, rollout: Rollout, model: ModelConfig
) -> Animation:
    """Show context and truth, and what the decoders that the model has make of it."""
    panels = {"context": rollout.context, "truth": rollout.truth}
    if model.reconstructs:
        panels["reconstruction"] = rollout.reconstruction
    if model.predicts:
        panels["prediction"] = rollout.prediction
    return _animation(name, title, alt, panels, rollout.num_context)


def sample_animation(source: Source, indices: Sequence[int], alt: str) -> Animation:
    """Show sequences of a split, with the boxes of their digits where they are known."""
    frames = np.zeros((len(indices), *source.sequence_shape), np.uint8)
    source.read(np.array(indices, np.int64), frames)
    panels = {
        f"sequence {index}": with_boxes(shown, truth)
        for index, shown, truth in zip(indices, frames, source.truth(indices), strict=True)
    }
    return _animation("samples", "Samples", alt, panels, 0)


def with_boxes(frames: NDArray[np.uint8], truth: Truth) -> NDArray[np.uint8]:
    """Draw the box of each digit, as FORMAT.md has them; returns uint8 (T, H, W, 3).

    frames  uint8 (T, H, W) or (T, H, W, 3)
    """
    color = frames if frames.ndim == 4 else np.repeat(frames[..., None], 3, 3)
    drawn = color.copy()
    boxes = truth.get("box", np.empty((len(frames), 0, 4), np.int16))
    for t, of_frame in enumerate(boxes[: len(frames)]):
        for k, (y0, x0, y1, x1) in enumerate(np.maximum(of_frame, 0).tolist()):
            edges = np.s_[y0, x0:x1], np.s_[y1 - 1, x0:x1], np.s_[y0:y1, x0], np.s_[y0:y1, x1 - 1]
            if y0 < y1 <= frames.shape[1] and x0 < x1 <= frames.shape[2]:
                for edge in edges:
                    drawn[t][edge] = _BOX_COLORS[k % len(_BOX_COLORS)]
    return drawn


def _animation(
    name: str, title: str, alt: str, panels: Mapping[str, NDArray[np.uint8]], num_context: int
) -> Animation:
    num_frames, height, width = next(iter(panels.values())).shape[:3]
    rows = [np.concatenate(list(frames), 1) for frames in panels.values()]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(buffer, "PNG", optimize=True)
    size = num_frames, height, width
    return Animation(name, title, alt, tuple(panels), *size, buffer.getvalue(), num_context)
