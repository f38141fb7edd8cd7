"""What TensorBoard shows of a run: the numbers of metrics.jsonl, and rollouts of val as animations.

It is a second copy for people to look at: nothing of a run is ever read from it.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.config import DataConfig
from trainer.errors import InputError
from trainer.model import VideoAutoencoder
from trainer.rollout import animation, roll_out_sequence
from trainer.source import Source

_FOLDER = "tensorboard"
_NUM_ROLLOUTS = 4


def check_board() -> None:
    """Refuse to write for TensorBoard where it is not installed, before any work."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise InputError(
            "tensorboard: is not installed; pip install 'moving-mnist[tensorboard]', or leave "
            "tensorboard=false"
        ) from error


class Board:
    """RUN/tensorboard, written by one process.

    start  the step it begins after: later points of an interrupted run are no longer shown
    """

    def __init__(self, run: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / _FOLDER), purge_step=start + 1)

    def curves(self, line: dict[str, Any]) -> None:
        """Add a line of metrics.jsonl: a point for each number that is finite."""
        for name, value in _numbers(line):
            self._writer.add_scalar(name, value, line["step"])

    def rollouts(self, step: int, model: VideoAutoencoder, val: Source, data: DataConfig) -> None:
        """Add animations of the first sequences of val, and what the model makes of them."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        count = _NUM_ROLLOUTS if val.count is None else min(_NUM_ROLLOUTS, val.count)
        num_predicted = min(data.predict, val.sequence_shape[0] - data.context)
        for index in range(count):
            rollout = roll_out_sequence(model, val, index, data.context, num_predicted)
            picture = animation(rollout)
            width, height = Image.open(io.BytesIO(picture)).size
            # As SummaryWriter.add_video does it, whose own encoder needs moviepy.
            image = Summary.Image(height=height, width=width, encoded_image_string=picture)
            value = Summary.Value(tag=f"val/sequence {index}", image=image)
            writer = self._writer._get_file_writer()  # type: ignore[no-untyped-call]
            writer.add_summary(Summary(value=[value]), step)

    def sync(self) -> None:
        """Bring all points into the file."""
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()


def _numbers(line: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in line.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}/")
        elif value is not None and name != "step":
            yield f"{prefix}{name}", value
