"""The folder of a run: what it was asked for, and whether this call may go on with it."""

import json
import shutil
from pathlib import Path
from typing import Any

from mmgen.shard.manifest import canonical_json, write_atomic
from trainer.checkpoint import list_checkpoints, load_checkpoint
from trainer.config import TrainConfig, first_difference, parse_config
from trainer.errors import InputError


def prepare_folder(
    config: TrainConfig, data: Path, run: Path, *, resume: bool, overwrite: bool
) -> dict[str, Any] | None:
    """Make the folder a run of this config, or refuse.

    resume     go on with a run of the same config and data, if there is one
    overwrite  throw away a run that is there; nothing else is ever thrown away
    returns    the checkpoint to go on from, None for a new run
    raises     InputError for a folder that holds something else, or a run that differs
    """
    written = run / "config.json"
    stored = _stored_request(written)
    if stored is None and run.exists() and not (run.is_dir() and _is_free(run)):
        raise InputError(f"{run}: holds something else; name an empty or a new folder")
    if stored is not None:
        if overwrite:
            old = run.with_name(f"{run.name}.old.partial")  # whole or gone, never half a run
            shutil.rmtree(old, ignore_errors=True)
            run.rename(old)
            shutil.rmtree(old)
        elif not resume:
            raise InputError(f"{run}: holds a run; resume it, overwrite it, or name another folder")
        else:
            _check_same(run, stored, config, data)
            checkpoints = list_checkpoints(run)
            return load_checkpoint(checkpoints[-1]) if checkpoints else None
    run.mkdir(parents=True, exist_ok=True)
    content = {"config": config.model_dump(), "data": str(data.resolve())}
    write_atomic(written, canonical_json(content))
    return None


def _stored_request(written: Path) -> dict[str, Any] | None:
    """Return what a run was asked for; None if there is no file, or another program's."""
    try:
        stored = json.loads(written.read_text(encoding="utf-8"))
        return {"config": dict(stored["config"]), "data": stored["data"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_free(run: Path) -> bool:
    # A run killed before its config had its name leaves the partial config and nothing else.
    return all(path.name == "config.json.partial" for path in run.iterdir())


def _check_same(run: Path, stored: dict[str, Any], config: TrainConfig, data: Path) -> None:
    difference = first_difference(parse_config(stored["config"]), config)
    if difference is None and stored["data"] != str(data.resolve()):
        difference = f"data is {stored['data']} in the run, asked for is {data.resolve()}"
    if difference:
        raise InputError(f"{run}: cannot be resumed: {difference}")
