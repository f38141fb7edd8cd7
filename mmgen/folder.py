"""A folder of this machine and its writers: the lock, what the dead have left, whole files.

A writer holds a lock on `request.json`, alone for a whole set, shared for a part; the system lets
go of a dead one's.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from mmgen.errors import InputError, MmgenError
from mmgen.request import AnyRequest, first_difference
from mmgen.shard import schema
from mmgen.shard.manifest import ShardEntry, is_still, read_json_file, replace_durably
from mmgen.shard.places import LocalPlace
from mmgen.shard.writer import PlannedShard, find_shard

# Beside a shard whose set is not committed lies what the manifest will say of it.
SIDE_SUFFIX = ".json"

_LOCK_ATTEMPTS = 10
_LOCK_PAUSE_S = 0.05


class LocalFolder:
    """A folder here that a data set is written into; `uploads.RemoteFolder` answers the same."""

    def __init__(self, place: LocalPlace) -> None:
        self.place = place
        self._root = place.root

    @contextmanager
    def held(self, request: AnyRequest, part: Sequence[PlannedShard] | None) -> Iterator[None]:
        """Make the folder that of a request, or go on with it, and keep other writers away.

        part    the shards that this writer makes; others may then write others at the same time
        raises  InputError if it holds something else, or another writer is at work there
        """
        out = self._root
        self.check(request)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(
                f"{out}: lies behind a file or a broken link; name a folder"
            ) from error
        except OSError as error:
            raise _unwritable(out, error) from error
        if not (out / schema.REQUEST_NAME).exists():
            _write(out / schema.REQUEST_NAME, request.to_json(), is_first=True)
        with locked(out, shared=part is not None):
            self.check(request)  # again, now that nobody else can change it
            _remove_leftovers(out, part)
            yield

    def check(self, request: AnyRequest) -> None:
        """Leave alone whatever is not empty and not of this request."""
        out = self._root
        if out.is_symlink() and not out.exists():
            raise InputError(
                f"{out}: is a link to what is not there; make that folder, or name another"
            )
        if out.exists() and not out.is_dir():
            raise InputError(f"{out}: is a file; name a folder")
        # Looked at before the request: what another writer makes comes after its request.
        is_used = out.is_dir() and any(foreign_entries(out))
        existing = out / schema.REQUEST_NAME
        if existing.is_file():
            if difference := first_difference(read_json_file(existing), request):
                raise InputError(
                    f"{out}: holds a data set of another request ({difference}); name another "
                    "folder, or overwrite it"
                )
            for folder in (out / split for split in schema.SPLITS):
                # In this order: another writer may make the folder between the two looks.
                if os.path.lexists(folder) and not folder.is_dir():
                    raise InputError(f"{folder}: is no folder; delete it, or name another for all")
        elif is_used:
            raise InputError(f"{out}: holds something else; name an empty or a new folder")

    def find(
        self, shard: PlannedShard, attributes: Mapping[str, Any], known: ShardEntry | None
    ) -> ShardEntry | None:
        """Measure a shard that is there; `known` is what an earlier writer vouched for.

        raises  ShardError if this writer would make another
        """
        return find_shard(self.place.path(shard.relative), shard, attributes, known)

    def add(
        self,
        shard: PlannedShard,
        known: ShardEntry | None,
        make: Callable[[Path], ShardEntry],
    ) -> ShardEntry:
        """Have a shard made where it belongs: `make` writes beside it and renames.

        known  is the business of whoever leaves or commits what was made
        """
        return make(self.place.path(shard.relative))

    def write(self, name: str, content: str) -> None:
        """Write a small file whole or not at all, whoever else writes it at the same moment."""
        _write(self.place.path(name), content)

    def names(self, split: str) -> Collection[str]:
        """Return the names of all that lies there for a split."""
        return {path.name for path in self.place.path(split).glob("*")}

    def for_workers(self) -> "LocalFolder":
        """Name the folder so that a process with another working directory finds it."""
        return LocalFolder(LocalPlace(self._root.resolve()))


def foreign_entries(out: Path) -> Iterator[Path]:
    """Yield what no writer of ours has left in a folder without a request."""
    # A run killed before its request had its name leaves the partial request and nothing else.
    return (
        path
        for path in out.iterdir()
        if not (path.name.startswith(schema.REQUEST_NAME) and path.suffix == schema.PARTIAL_SUFFIX)
    )


def is_ours(out: Path) -> bool:
    """Tell our request or manifest from somebody else's file of that name."""
    for name in (schema.REQUEST_NAME, schema.MANIFEST_NAME):
        try:
            data = json.loads(read_json_file(out / name))
        except (InputError, ValueError, RecursionError):
            continue
        if isinstance(data, dict) and {"format", "codec", "seed", "shard_size"} <= data.keys():
            return True
    return False


@contextmanager
def locked(out: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a folder; InputError if a writer is there that this one cannot join."""
    path = out / schema.REQUEST_NAME
    if not path.exists():  # deleted: nobody can be at work there
        yield
        return
    with path.open("r+b") as file:  # NFS locks alone only what is open for writing
        # Whoever only looks, to find that the folder is another's, lets go at once.
        for attempt in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == _LOCK_ATTEMPTS - 1:
                    problem = f"{out}: another writer is at work there; wait for it"
                    raise InputError(problem) from None
                time.sleep(_LOCK_PAUSE_S)
        if not is_still(file, path):
            raise InputError(f"{out}: another writer has just replaced it; try again")
        yield


def _remove_leftovers(out: Path, part: Sequence[PlannedShard] | None) -> None:
    """Remove what dead writers left unfinished, of other parts' shards nothing.

    What nobody holds a lock on is dead, unless it was made this moment and is about to be locked.
    """
    request = out / schema.REQUEST_NAME
    left = [path for folder in ("", "*/") for path in out.glob(f"{folder}*{schema.PARTIAL_SUFFIX}")]
    if part is not None:
        mine = {shard.name + suffix for shard in part for suffix in ("", SIDE_SUFFIX)}
        left = [path for path in left if path.parent == out or path.name.rsplit(".", 2)[0] in mine]
    left = [path for path in left if path.is_file() and _is_dead(path, request)]
    if left:
        time.sleep(_LOCK_PAUSE_S)
    for path in left:
        if _is_dead(path, request):
            path.unlink(missing_ok=True)


def _is_dead(path: Path, request: Path) -> bool:
    try:
        if path.samefile(request):  # linked, not yet unlinked; the lock on both is our own
            return True
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (FileNotFoundError, BlockingIOError):
        return False


def _write(path: Path, content: str, *, is_first: bool = False) -> None:
    """Write a small file whole or not at all, whoever else writes it at the same moment.

    is_first  leave what is there by then: others may have locked it
    """
    try:
        with _partial_of(path) as (partial, file):
            file.write(content.encode())
            file.flush()
            os.fsync(file.fileno())
            if is_first:
                _link(partial, path)
            else:
                replace_durably(partial, path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> MmgenError:
    return MmgenError(
        f"{path}: could not be written ({error.strerror or error}); the same command goes on with "
        "what is there"
    )


@contextmanager
def _partial_of(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a file of this writer's own; the lock on it tells others that its writer lives."""
    while True:
        partial = path.with_name(f"{path.name}.{uuid4().hex[:8]}{schema.PARTIAL_SUFFIX}")
        with partial.open("xb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not is_still(file, partial):
                    continue  # cleared away before it was locked
                yield partial, file
                return
            finally:
                partial.unlink(missing_ok=True)


def _link(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)
    except FileExistsError:
        pass  # another writer was first: the check behind the lock decides
    except OSError:  # a file system without hard links
        partial.replace(path)
