"""A folder that one process has to itself: a lock on the file that says what the folder is for.

The lock ends with the process, however that ends. Whoever was killed before that file had its name
has left a partial one and nothing else.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mmgen.shard.manifest import replace_durably
from mmgen.shard.schema import PARTIAL_SUFFIX
from trainer.errors import InputError


def check_free(path: Path) -> None:
    """Refuse to make a folder's file where there is no empty folder, nor can one be made."""
    folder = path.parent
    if folder.exists() and not (folder.is_dir() and _holds_nothing_else(path)):
        raise InputError(f"{folder}: holds something else; name an empty or a new folder")
    behind = next((place for place in folder.parents if place.exists()), folder)
    if not folder.exists() and not behind.is_dir():
        raise InputError(f"{folder}: lies behind a file; name a folder")


def _holds_nothing_else(path: Path) -> bool:
    return all(there == _partial(path) for there in path.parent.iterdir())


def _partial(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL_SUFFIX)


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Hold a file that is there; InputError with `refusal` if another process has it."""
    with path.open("r+b") as file:  # NFS locks alone only what is open for writing
        _lock(file, path, refusal)
        yield


@contextmanager
def locked_new(path: Path, content: str, refusal: str) -> Iterator[None]:
    """Write a file and hold it; InputError with `refusal` if another process does so."""
    partial = _partial(path)
    # It has the lock before it has its name: whoever finds the file finds it locked.
    with partial.open("a+b") as file:
        _lock(file, partial, refusal)
        file.truncate(0)
        file.write(content.encode())
        file.flush()
        os.fsync(file.fileno())
        replace_durably(partial, path)
        yield


def _lock(file: BinaryIO, path: Path, refusal: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who had it before may have renamed or removed it since it was opened here.
        is_still = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
    except BlockingIOError:
        is_still = False
    if not is_still:
        raise InputError(refusal)
