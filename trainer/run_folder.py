"""The folder of a run: what it was asked for, whose it is now, whether a call may go on with it."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen.errors import MmgenError
from mmgen.shard.manifest import canonical_json
from trainer.config import TrainConfig, first_difference, parse_config
from trainer.errors import InputError
from trainer.lock import check_free, locked, locked_new

CONFIG_NAME = "config.json"


@dataclass(frozen=True)
class Request:
    """What a run was asked for: config.json.

    data       address -> weight, for people to read
    init_from  the file that its first weights are from; None where they are drawn
    """

    config: TrainConfig
    data: Mapping[str, float]
    init_from: str | None = None


def check_run_folder(run: Path, request: Request, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that this call may not use, before any work; nothing in it changes.

    resume     go on with a run of the same config, if there is one
    overwrite  throw away a run that is there; nothing else is ever thrown away
    raises     InputError for a folder that holds something else, a run that differs or is in use
    """
    stored = _read_request(run)
    if stored is None:
        check_free(run / CONFIG_NAME)
        return
    if not (resume or overwrite):
        raise InputError(f"{run}: holds a run; resume it, overwrite it, or name another folder")
    if not overwrite and (difference := _difference(stored, request)):
        raise InputError(f"{run}: cannot be resumed: {difference}")
    with locked(run / CONFIG_NAME, _in_use(run)):
        pass  # one can; the folder stays free till the work


def first_weights(run: Path) -> str | None:
    """Return the file that a run began from, None if there is no run or it drew its weights."""
    stored = _read_request(run)
    return stored.init_from if stored else None


def trained_on(run: Path) -> Mapping[str, float]:
    """Return the data of a run, address -> weight; nothing if there is no run."""
    stored = _read_request(run)
    return stored.data if stored else {}


@contextmanager
def held_folder(run: Path, request: Request, *, overwrite: bool) -> Iterator[None]:
    """Make a checked folder a run, or go on with the one that is there; nobody else can meanwhile.

    The lock is one on config.json: it ends with the process, however that ends.
    """
    is_run = _read_request(run) is not None
    if is_run and not overwrite:
        with locked(run / CONFIG_NAME, _in_use(run)):
            yield
        return
    with new_folder(run, _written(request), overwrite=overwrite, is_run=is_run):
        yield


@contextmanager
def new_folder(run: Path, content: str, *, overwrite: bool, is_run: bool) -> Iterator[None]:
    """Make a checked folder a run whose config.json is `content`, and hold it, as `held_folder`.

    is_run  whether what is there is a run, which may be thrown away
    """
    whole = Path(os.path.realpath(run))  # `.` and links cannot be renamed
    old = whole.with_name(f"{whole.name}.old.partial")  # whole or gone, never half a run
    if overwrite:
        shutil.rmtree(old, ignore_errors=True)  # left by a call that was killed here
    if is_run:
        with locked(run / CONFIG_NAME, _in_use(run)):
            whole.rename(old)
            shutil.rmtree(old)
    run.mkdir(parents=True, exist_ok=True)
    with locked_new(run / CONFIG_NAME, content, _in_use(run)):
        yield


def _in_use(run: Path) -> str:
    return f"{run}: another process trains there; wait, or name another run"


def _difference(stored: Request, wanted: Request) -> str | None:
    if difference := first_difference(stored.config, wanted.config):
        return difference
    if wanted.init_from not in (None, stored.init_from):
        began = stored.init_from or "weights drawn by its seed"
        return f"it began from {began}, asked for is {wanted.init_from}"
    return None


def _written(request: Request) -> str:
    content: dict[str, Any] = {
        "config": request.config.model_dump(),
        "data": dict(request.data),
    }
    if request.init_from is not None:
        content["init_from"] = request.init_from
    return canonical_json(content)


def _read_request(run: Path) -> Request | None:
    """Return what a run was asked for; None if there is no file, or another program's."""
    try:
        stored = json.loads((run / CONFIG_NAME).read_text(encoding="utf-8"))
        config = parse_config(dict(stored["config"]))
        return Request(config, dict(stored["data"]), stored.get("init_from"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, MmgenError):
        return None
