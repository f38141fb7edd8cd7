"""A folder at an address and its writers: shards are made here, then put there whole.

Nothing locks there. Writers do no harm to each other because a put is seen whole or not at all and
equal requests give equal bytes: what two have made is put twice. What is there is believed by its
size and by what its writer left beside it; nothing is fetched.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from mmgen.errors import InputError, MmgenError, ShardError
from mmgen.request import AnyRequest, first_difference
from mmgen.shard import schema
from mmgen.shard.manifest import MAX_JSON_BYTES, ShardEntry
from mmgen.shard.places import RemotePlace
from mmgen.shard.writer import PlannedShard

_SCRATCH = "mmgen-scratch-"


class RemoteFolder:
    """A folder at an address that a data set is put into; `folder.LocalFolder` answers the same."""

    def __init__(self, place: RemotePlace) -> None:
        self.place = place

    @contextmanager
    def held(self, request: AnyRequest, part: Sequence[PlannedShard] | None) -> Iterator[None]:
        """Make the folder that of a request, or go on with it, beside whoever else does.

        part    as LocalFolder takes it; here parts need no leave
        raises  InputError if it holds something else
        """
        self.check(request)
        if not self.place.exists(schema.REQUEST_NAME):
            self.place.write_text(schema.REQUEST_NAME, request.to_json())
        yield

    def check(self, request: AnyRequest) -> None:
        """Leave alone whatever is not empty and not of this request."""
        entries = self.place.entries()
        if schema.REQUEST_NAME in entries:
            there = self.place.read_text(schema.REQUEST_NAME, MAX_JSON_BYTES)
            if difference := first_difference(there, request):
                raise InputError(
                    f"{self.place.name}: holds a data set of another request ({difference}); name "
                    "another folder, or delete it first"
                )
        elif entries:
            raise InputError(
                f"{self.place.name}: holds something else; name an empty or a new folder"
            )

    def find(
        self,
        shard: PlannedShard,
        attributes: Mapping[str, Any],
        known: ShardEntry | None,
    ) -> ShardEntry | None:
        """Return what an earlier writer vouched for if the shard there has that size."""
        if known is None or (known.first, known.count) != (shard.first, shard.count):
            return None
        return known if self.place.size(shard.relative) == known.bytes else None

    def add(
        self,
        shard: PlannedShard,
        known: ShardEntry | None,
        make: Callable[[Path], ShardEntry],
    ) -> ShardEntry:
        """Have a shard made here, and put it there in one piece.

        raises  ShardError if it is not the one `known`, which a manifest vouches for
        """
        name = shard.relative
        with _scratch() as scratch:
            path = scratch / name
            try:
                entry = make(path)
            except MmgenError as error:
                if isinstance(error.__cause__, OSError | RuntimeError):  # the disk's, not ours
                    problem = f"{error}; TMPDIR says on which disk shards are made"
                    raise MmgenError(problem) from error
                raise
            if known is not None and entry != known:
                raise ShardError(
                    f"{self.place.where(name)}: comes out otherwise than the manifest says (other "
                    "versions of libraries); name another folder, or delete this one first"
                )
            self.place.put_file(path, name)
        return entry

    def write(self, name: str, content: str) -> None:
        """Put a small file."""
        self.place.write_text(name, content)

    def names(self, split: str) -> Collection[str]:
        """Return the names of all that lies there for a split."""
        return self.place.entries(split).keys()

    def for_workers(self) -> "RemoteFolder":
        """Return itself: an address is the same for every process."""
        return self


@contextmanager
def _scratch() -> Iterator[Path]:
    """Make a folder for one shard; the lock on it tells others that its writer lives."""
    _remove_dead_scratch()
    while True:
        with TemporaryDirectory(prefix=_SCRATCH) as name:
            lock = _lock(Path(name))
            if lock is None:
                continue  # taken for a dead one's before it was locked
            try:
                yield Path(name)
                return
            finally:
                os.close(lock)


def _remove_dead_scratch() -> None:
    """Remove what killed writers of this user have left on this machine."""
    for path in Path(gettempdir()).glob(f"{_SCRATCH}*"):
        lock = _lock(path, fcntl.LOCK_NB)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path, how: int = 0) -> int | None:
    """Lock a scratch folder until the result is closed; None if it is gone or not to be had."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not folder.exists():
        os.close(descriptor)
        return None
    return descriptor
