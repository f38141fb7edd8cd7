"""The folder of a run: what it was asked for, and whether this call may go on with it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmgen.errors import MmgenError
from mmgen.shard.manifest import canonical_json, write_atomic
from trainer.checkpoint import list_checkpoints, load_checkpoint
from trainer.config import TrainConfig, first_difference, parse_config
from trainer.errors import InputError


def check_folder(run: Path, config: TrainConfig, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that this call may not use, before any work.

    resume     go on with a run of the same config, if there is one
    overwrite  throw away a run that is there; nothing else is ever thrown away
    raises     InputError for a folder that holds something else, or a run that differs
    """
    stored = _stored_config(run)
    if stored is None and run.exists() and not (run.is_dir() and _is_free(run)):
        raise InputError(f"{run}: holds something else; name an empty or a new folder")
    if stored is not None and not overwrite:
        if not resume:
            raise InputError(f"{run}: holds a run; resume it, overwrite it, or name another folder")
        if difference := first_difference(stored, config):
            raise InputError(f"{run}: cannot be resumed: {difference}")
    behind = next((place for place in run.parents if place.exists()), run)
    if not run.exists() and not behind.is_dir():
        raise InputError(f"{run}: lies behind a file; name a folder")


def prepare_folder(
    run: Path, config: TrainConfig, data: Mapping[str, float], *, overwrite: bool
) -> dict[str, Any] | None:
    """Make a checked folder a run of this config; return the checkpoint to go on from, if any.

    data  address -> weight, for people to read
    """
    whole = run.resolve()  # `.` and links cannot be renamed
    old = whole.with_name(f"{whole.name}.old.partial")  # whole or gone, never half a run
    if overwrite:
        shutil.rmtree(old, ignore_errors=True)  # left by a call that was killed here
    if _stored_config(run) is not None:
        if not overwrite:
            checkpoints = list_checkpoints(run)
            return load_checkpoint(checkpoints[-1]) if checkpoints else None
        whole.rename(old)
        shutil.rmtree(old)
    run.mkdir(parents=True, exist_ok=True)
    content = {"config": config.model_dump(), "data": dict(data)}
    write_atomic(run / "config.json", canonical_json(content))
    return None


def _stored_config(run: Path) -> TrainConfig | None:
    """Return what a run was asked for; None if there is no file, or another program's."""
    try:
        stored = json.loads((run / "config.json").read_text(encoding="utf-8"))
        return parse_config(dict(stored["config"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, MmgenError):
        return None


def _is_free(run: Path) -> bool:
    # A run killed before its config had its name leaves the partial config and nothing else.
    return all(path.name == "config.json.partial" for path in run.iterdir())
