"""A folder that one process has to itself: a lock on the file that says what the folder is for.

The lock ends with the process, however that ends.
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


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Hold a file that is there; InputError with `refusal` if another process has it."""
    with path.open("r+b") as file:  # NFS locks alone only what is open for writing
        _lock(file, path, refusal)
        yield


@contextmanager
def locked_new(path: Path, content: str, refusal: str) -> Iterator[None]:
    """Write a file and hold it; InputError with `refusal` if another process does so."""
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
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
