"""Pictures of what a model makes of one sequence: animations and strips.

Letters: T frames in all, of which the context comes first; H x W canvas.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mmgen.shard.manifest import write_atomic
from trainer.address import Address
from trainer.baselines import Redrawn
from trainer.checkpoint import open_run
from trainer.errors import InputError
from trainer.evaluation import check_fits
from trainer.model import VideoAutoencoder
from trainer.result_files import check_parent
from trainer.source import Source, open_scored

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


def roll_out(
    run: Path,
    data: Address,
    split: str,
    index: int,
    device: str = "auto",
    num_predicted: int | None = None,
) -> Rollout:
    """Run the newest checkpoint of a run on one sequence of a data set.

    num_predicted  frames to predict, as many as one likes: the truth is the same sequence, drawn
                   again to that length; if None as many as the model was trained for
    raises         InputError for an index out of range, data that do not fit, or frames asked for
                   that nobody can know, because the data were imported
    """
    _, _, config, model = open_run(run, device)
    shown = config.data
    sequences = open_scored(data, split)
    if index < 0 or (sequences.count is not None and index >= sequences.count):
        count = "endless" if sequences.count is None else sequences.count
        raise InputError(f"index: {index} is out of range, {split} has {count} sequences")
    check_fits(model, sequences, shown)
    if num_predicted is None:
        return roll_out_sequence(model, sequences, index, shown.context, shown.predict)
    if not model.config.predicts:
        raise InputError("frames: the model has no prediction decoder, it only reconstructs")
    truth = _long_truth(sequences, index, shown.context, num_predicted)
    return roll_out_truth(model, truth, shown.context)


def _long_truth(
    sequences: Source, index: int, num_context: int, num_predicted: int
) -> NDArray[np.uint8]:
    """Return uint8 (T, H, W) of a sequence, drawn again where it is stored with fewer frames."""
    num_frames = num_context + num_predicted
    if sequences.shortest >= num_frames:
        return _read(sequences, index)[:num_frames]
    try:
        redrawn = Redrawn.require(sequences, num_context)
    except InputError as error:
        raise InputError(
            f"frames: {num_predicted} after {num_context} of context were asked for, sequences "
            f"have {sequences.shortest} and cannot be drawn again ({error}); lower it"
        ) from error
    longer: NDArray[np.uint8] = redrawn.longer(np.array([index]), num_frames)[0]
    return longer


def roll_out_sequence(
    model: VideoAutoencoder,
    sequences: Source,
    index: int,
    num_context: int,
    num_predicted: int,
) -> Rollout:
    """Reconstruct the context of a sequence and predict what follows, as far as the model can."""
    stored = _read(sequences, index)
    truth = np.zeros((num_context + num_predicted, *stored.shape[1:]), np.uint8)
    truth[: len(stored)] = stored[: len(truth)]  # a short sequence is black after its end
    return roll_out_truth(model, truth, num_context)


def roll_out_truth(model: VideoAutoencoder, truth: NDArray[np.uint8], num_context: int) -> Rollout:
    """Show a model the first frames of uint8 (T, H, W), and let it say all of them."""
    context = torch.from_numpy(truth[None, :num_context].copy())
    reconstruction, prediction = np.zeros_like(truth), np.zeros_like(truth)
    if model.config.reconstructs:
        reconstruction[:num_context] = to_bytes(model.reconstruct(context)[0])
    if model.config.predicts:
        steps = len(truth) - num_context
        prediction[num_context:] = to_bytes(model.generate(context, steps)[0])
    return Rollout(truth, reconstruction, prediction, num_context)


def _read(sequences: Source, index: int) -> NDArray[np.uint8]:
    frames = np.empty((1, *sequences.sequence_shape), np.uint8)
    sequences.read(np.array([index]), frames)
    sequence: NDArray[np.uint8] = frames[0]
    return sequence


def to_bytes(frames: torch.Tensor) -> NDArray[np.uint8]:
    """Turn float (T, H, W) on the scale 0..1 into uint8, clipped to what a picture can show."""
    scaled = frames.float().clamp(0, 1).mul(255).round()
    return scaled.to(torch.uint8).cpu().numpy()


def check_picture(path: Path) -> None:
    """Refuse a name that no picture can be written to, before the work."""
    if path.suffix.lower() not in (".gif", ".png"):
        raise InputError(f"{path}: unknown kind of picture; end the name in .gif or .png")
    check_parent(path)


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
    return _as_png(_strip(rollout))


def strips(rollouts: Iterable[Rollout]) -> bytes:
    """Draw the strips of several sequences below each other, as one PNG."""
    pictures = [_strip(rollout) for rollout in rollouts]
    space = np.full_like(pictures[0][:_GAP_PX], 255)
    return _as_png(np.concatenate([part for picture in pictures for part in (picture, space)][:-1]))


def _strip(rollout: Rollout) -> NDArray[np.uint8]:
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
    return canvas[:-gap]


def _as_png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
