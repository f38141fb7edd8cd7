"""Pictures of what a model makes of one sequence: animations and strips.

Letters: T frames in all, of which the context comes first; H x W canvas.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mmgen.shard.manifest import write_atomic
from mmgen.shard.reader import Split
from trainer.checkpoint import latest_checkpoint, load_checkpoint, restore_model
from trainer.config import parse_config
from trainer.errors import InputError
from trainer.evaluation import check_fits
from trainer.model import VideoAutoencoder
from trainer.source import Address, Source, open_source

_PANEL_PX = 192  # the longer side of a small canvas is enlarged to about this
_TITLE_PX = 110
_GAP_PX = 8
_HEADER_PX = 22
_FRAME_MS = 150
_BACKGROUND, _INK, _FAINT = "#181818", "#ebebeb", "#6e6e6e"


@dataclass(frozen=True)
class Rollout:
    """One sequence and what a model says of it; uint8 (T, H, W), or (T, H, W, 3) where in colour.

    context frames come first in all four; reconstruction has those, prediction what follows, and
    both are black where the model says nothing
    """

    truth: NDArray[np.uint8]
    reconstruction: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    num_context: int

    @property
    def context(self) -> NDArray[np.uint8]:
        """What the model saw; empty after it."""
        seen = np.zeros_like(self.truth)
        seen[: self.num_context] = self.truth[: self.num_context]
        return seen


def roll_out(run: Path, data: Address, split: str, index: int, device: str = "auto") -> Rollout:
    """Run the newest checkpoint of a run on one sequence of a data set."""
    checkpoint = load_checkpoint(latest_checkpoint(run))
    sequences = open_source(data, split)
    if index < 0 or (sequences.count is not None and index >= sequences.count):
        count = "endless" if sequences.count is None else sequences.count
        raise InputError(f"index: {index} is out of range, {split} has {count} sequences")
    model = restore_model(checkpoint, device)
    config = parse_config(checkpoint["config"]).data
    check_fits(model, sequences, config)
    return roll_out_sequence(model, sequences, index, config.context, config.predict)


def roll_out_sequence(
    model: VideoAutoencoder,
    sequences: Split | Source,
    index: int,
    num_context: int,
    num_predicted: int,
) -> Rollout:
    """Reconstruct the context of a sequence and predict what follows, as far as the model can."""
    frames = np.empty((1, *sequences.sequence_shape), np.uint8)
    sequences.read(np.array([index]), frames)
    truth = np.zeros((num_context + num_predicted, *frames.shape[2:]), np.uint8)
    truth[: frames.shape[1]] = frames[0, : len(truth)]  # a short sequence is black after its end
    context = torch.from_numpy(truth[None, :num_context].copy())
    reconstruction, prediction = np.zeros_like(truth), np.zeros_like(truth)
    if model.config.reconstructs:
        reconstruction[:num_context] = _to_bytes(model.reconstruct(context))
    if model.config.predicts:
        prediction[num_context:] = _to_bytes(model.generate(context, num_predicted))
    return Rollout(truth, reconstruction, prediction, num_context)


def _to_bytes(frames: torch.Tensor) -> NDArray[np.uint8]:
    """Turn (1, T, H, W) into uint8 (T, H, W), clipped to what a picture can show."""
    scaled = frames[0].float().clamp(0, 1).mul(255).round()
    return scaled.to(torch.uint8).cpu().numpy()


def check_picture(path: Path) -> None:
    """Refuse a name that no picture can be written to, before the work."""
    if path.suffix.lower() not in (".gif", ".png"):
        raise InputError(f"{path}: unknown kind of picture; end the name in .gif or .png")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: is no folder; make it first")


def write_rollout(path: Path, rollout: Rollout) -> None:
    """Write an animation (.gif) or a strip (.png), as `check_picture` allows."""
    check_picture(path)
    draw = animation if path.suffix.lower() == ".gif" else strip
    write_atomic(path, draw(rollout))


def animation(rollout: Rollout) -> bytes:
    """Draw a GIF: context, truth, reconstruction, prediction side by side."""
    panels = {
        "context": rollout.context,
        "truth": rollout.truth,
        "reconstruction": rollout.reconstruction,
        "prediction": rollout.prediction,
    }
    pictures = [_instant(panels, t, rollout.num_context) for t in range(len(rollout.truth))]
    buffer = io.BytesIO()
    options = {"append_images": pictures[1:], "duration": _FRAME_MS, "loop": 0}
    pictures[0].save(buffer, "GIF", save_all=True, **options)
    return buffer.getvalue()


def _instant(panels: dict[str, NDArray[np.uint8]], t: int, num_context: int) -> Image.Image:
    height, width = panels["truth"].shape[1:3]
    factor = max(1, _PANEL_PX // max(height, width))
    panel_px = (width * factor, height * factor)
    column_px = max(panel_px[0], _TITLE_PX) + _GAP_PX
    whole_px = (len(panels) * column_px + _GAP_PX, _HEADER_PX + panel_px[1] + _GAP_PX)
    mode = "RGB" if panels["truth"].ndim == 4 else "L"
    picture = Image.new(mode, whole_px, _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    for place, (title, frames) in enumerate(panels.items()):
        left = _GAP_PX + place * column_px
        speaks = {"context": t < num_context, "reconstruction": t < num_context}
        is_on = speaks.get(title, title == "truth" or t >= num_context)
        draw.text((left, 4), title, _INK if is_on else _FAINT, font)
        if title == "truth":
            draw.text((left + column_px - _GAP_PX - 62, 4), f"frame {t + 1}", _FAINT, font)
        if is_on:
            panel = Image.fromarray(frames[t]).resize(panel_px, Image.Resampling.NEAREST)
            picture.paste(panel, (left, _HEADER_PX))
    return picture


def strip(rollout: Rollout) -> bytes:
    """Draw a PNG of two rows: the truth, and below it reconstruction, then prediction."""
    model_says = rollout.reconstruction.copy()
    model_says[rollout.num_context :] = rollout.prediction[rollout.num_context :]
    height, width = rollout.truth.shape[1:3]
    gap = 2
    split_px = rollout.num_context * (width + gap)
    whole_px = (2 * (height + gap), len(rollout.truth) * (width + gap) + 6)
    canvas = np.full((*whole_px, *rollout.truth.shape[3:]), 64, np.uint8)
    for row, frames in enumerate((rollout.truth, model_says)):
        for t, frame in enumerate(frames):
            top = row * (height + gap)
            left = t * (width + gap) + (6 if t >= rollout.num_context else 0)
            canvas[top : top + height, left : left + width] = frame
    canvas[:, split_px : split_px + 6] = 200  # the model saw what is left of this line
    buffer = io.BytesIO()
    Image.fromarray(canvas[: -gap or None]).save(buffer, "PNG")
    return buffer.getvalue()
