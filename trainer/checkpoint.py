"""Checkpoints: one file each, complete or not there, opened without running anything in it.

A checkpoint is tensors and plain containers, so torch.load reads it with its safe default.
"""

import os
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mmgen.shard.manifest import replace_durably
from trainer.build import build_model
from trainer.config import TrainConfig, parse_config
from trainer.errors import InputError, RunError
from trainer.model import VideoAutoencoder
from trainer.world import pick_device, pick_precision, product_dtype

FORMAT = 1
CLASSIFIER_NAME = "classifier.pt"  # of `mmtrain classify`, whose folders look like runs
_FOLDER = "checkpoints"
_KINDS = {
    "format": int,
    "step": int,
    "model": dict,
    "optimizer": dict,
    "stream": dict,
    "config": dict,
    "frame_shape": list,
}


def checkpoint_path(run: Path, step: int) -> Path:
    """Return where the checkpoint of a step is, or would be."""
    return run / _FOLDER / f"step-{step:08d}.pt"


def save_checkpoint(run: Path, checkpoint: dict[str, Any]) -> Path:
    """Write RUN/checkpoints/step-NNNNNNNN.pt under a partial name, and rename it."""
    path = checkpoint_path(run, checkpoint["step"])
    folder = path.parent
    folder.mkdir(exist_ok=True)
    for leftover in folder.glob("*.partial"):
        leftover.unlink()
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
        partial.unlink(missing_ok=True)
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{path}: could not be written ({reason}); make room and go on with --resume"
        ) from error
    replace_durably(partial, path)
    return path


def drop_checkpoints(run: Path, keep: int, best_step: int | None) -> None:
    """Remove all checkpoints of a run but the `keep` newest and the one of its best look."""
    for old in list_checkpoints(run)[:-keep]:
        if best_step is None or old != checkpoint_path(run, best_step):
            old.unlink()


def list_checkpoints(run: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    found = (run / _FOLDER).glob("step-*.pt")
    complete = (path for path in found if re.fullmatch(r"step-\d{8,}\.pt", path.name))
    return sorted(complete, key=lambda path: int(path.stem.removeprefix("step-")))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Open a checkpoint, on the CPU; InputError if it is not one of ours."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums in it
            if damaged := archive.testzip():
                raise InputError(f"{path}: is damaged (checksum of {damaged}); remove it")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # torch answers garbage with most of the built-in errors
        raise InputError(f"{path}: is no checkpoint of mmtrain ({type(error).__name__})") from error
    if not isinstance(checkpoint, dict) or not all(
        isinstance(checkpoint.get(name), kind) for name, kind in _KINDS.items()
    ):
        raise InputError(f"{path}: is no checkpoint of mmtrain")
    if checkpoint["format"] != FORMAT:
        raise InputError(f"{path}: has format {checkpoint['format']}, this version reads {FORMAT}")
    return checkpoint


def latest_checkpoint(run: Path) -> Path:
    """Return the newest checkpoint; InputError if the folder is no run, or has none yet."""
    if not (run / "config.json").is_file():
        raise InputError(f"{run}: is no run; make one with `mmtrain fit DATA --run {run}`")
    checkpoints = list_checkpoints(run)
    if not checkpoints and (run / CLASSIFIER_NAME).is_file():
        raise InputError(f"{run}: is a digit classifier; name a run of `mmtrain fit`")
    if not checkpoints:
        raise InputError(f"{run}: has no checkpoint yet; run its `mmtrain fit` again with --resume")
    return checkpoints[-1]


class Restored(NamedTuple):
    """The newest checkpoint of a run: the name of its file, and a model ready to evaluate."""

    name: str
    step: int
    config: TrainConfig
    model: VideoAutoencoder


def open_run(run: Path, device: str) -> Restored:
    """Open a run's newest checkpoint, its model on a device; InputError where that cannot be."""
    path = latest_checkpoint(run)
    checkpoint = load_checkpoint(path)
    model = restore_model(checkpoint, device)
    return Restored(path.name, checkpoint["step"], parse_config(checkpoint["config"]), model)


def load_model(run: str | os.PathLike[str], device: str = "auto") -> VideoAutoencoder:
    """Return the model of a run's newest checkpoint, on a device, ready to evaluate.

    Where the run averages its weights, the model has the average.
    """
    return open_run(Path(run), device).model


def restore_model(checkpoint: dict[str, Any], device: str = "auto") -> VideoAutoencoder:
    """Build the model of a checkpoint, of averaged weights if it has them, ready to evaluate."""
    config: TrainConfig = parse_config(checkpoint["config"])
    weights = checkpoint["optimizer"].get("average") or checkpoint["model"]
    try:
        with torch.device("meta"):  # sizes are compared before anything is allocated
            model = build_model(config.model, tuple(checkpoint["frame_shape"]))
        model.load_state_dict(weights, assign=True)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        detail = str(error).splitlines()[-1].strip()
        raise InputError(f"the checkpoint does not fit its own config: {detail}") from error
    where = pick_device(device)
    precision = pick_precision(config.run.precision, where, or_fp32=True)
    model.round_products(product_dtype(precision))
    return model.to(where).eval()
