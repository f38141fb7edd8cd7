"""The folder of a shard cache: a bound in bytes, shared by several processes.

It holds `<sha256>.h5`, complete, and `<sha256>.h5.partial`, on their way. There is no other state,
and nothing of it outlives its process: whoever uses a shard holds a shared `flock` on the file,
whoever fills a partial an exclusive one, and names appear, vanish and are counted only under a
`flock` on the folder itself, held for just that and never while data travel. A partial without a
lock belongs to nobody living. The folder must be on a local disk.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmgen.errors import MmgenError
from mmgen.shard import schema

_OURS = re.compile(rf"[0-9a-f]{{64}}\.h5({re.escape(schema.PARTIAL_SUFFIX)})?")

# Locked descriptors that a forked child must not keep: its copy would hold the lock although the
# owner let go, or died, and everybody else would wait for the child.
_HELD: set[int] = set()


def _release(descriptor: int) -> None:
    _HELD.discard(descriptor)
    os.close(descriptor)


def _release_in_child() -> None:
    for descriptor in list(_HELD):
        _release(descriptor)


os.register_at_fork(after_in_child=_release_in_child)


class CachedShard:
    """A shard on the local disk: `path` stays where it is until `close`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor  # open for reading, at any offset; it carries the lock

    def close(self) -> None:
        """Let the shard go; it may be evicted from now on."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> "CachedShard":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class NoRoom(Exception):
    """All that could make room is in use."""


class Reservation:
    """A partial file of full size that is ours to fill, then to keep or to drop."""

    def __init__(self, folder: "CacheFolder", path: Path, descriptor: int) -> None:
        self._folder = folder
        self._path = path
        self._descriptor = descriptor

    def write(self, offset: int, block: bytes) -> None:
        """Write a block at its place."""
        try:
            while block:
                written = os.pwrite(self._descriptor, block, offset)
                block, offset = block[written:], offset + written
        except OSError as error:
            raise self._folder.refusal(error) from error

    def keep(self) -> CachedShard:
        """Give the file its final name; the lock becomes a shared one."""
        with self._folder.names_held():  # nobody evicts between the rename and the shared lock
            os.replace(_partial(self._path), self._path)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        _HELD.discard(self._descriptor)  # a shared lock does no harm in a child
        return CachedShard(self._path, self._descriptor)

    def drop(self) -> None:
        """Delete the file; whoever waits for it may try."""
        _partial(self._path).unlink(missing_ok=True)
        _release(self._descriptor)


class CacheFolder:
    """Find, reserve and evict the files of a cache of at most `max_bytes`."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes

    def find_or_reserve(
        self, sha256: str, size: int, must_fit: bool
    ) -> CachedShard | Reservation | None:
        """Open a complete shard, else reserve its file; None while somebody else fills that.

        The least recently used shards make room. Where what is in use leaves none, the bound is
        exceeded, or with `must_fit` NoRoom is raised. MmgenError if the disk is full.
        """
        path = self._shard_path(sha256)
        with self.names_held():
            try:
                cached = CachedShard(path, os.open(path, os.O_RDONLY))
            except FileNotFoundError:
                return self._reserve(path, size, must_fit)
            fcntl.flock(cached.descriptor, fcntl.LOCK_SH)
            os.utime(path)  # used last
            return cached

    def is_being_filled(self, sha256: str) -> bool:
        """Tell whether a living process or thread holds the partial file."""
        try:
            descriptor = os.open(_partial(self._shard_path(sha256)), os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            return not _try_lock(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def discard(self, damaged: CachedShard) -> None:
        """Delete a damaged shard, unless its name has gone to another file already."""
        with self.names_held(), damaged:
            try:
                named = damaged.path.stat()
            except FileNotFoundError:
                return
            if os.path.samestat(named, os.fstat(damaged.descriptor)):
                damaged.path.unlink()

    @contextmanager
    def names_held(self) -> Iterator[None]:
        """Hold the folder: nobody else makes, counts, renames or deletes a file in it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self.refusal(error) from error
        _HELD.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise self.refusal(error) from error
        finally:
            _release(descriptor)

    def refusal(self, error: OSError) -> MmgenError:
        """Say in one line that the disk or the folder does not do."""
        return MmgenError(
            f"{self.path}: cannot keep shards ({error.strerror}); free space, or choose another "
            "cache folder on a local disk"
        )

    def _shard_path(self, sha256: str) -> Path:
        return self.path / f"{sha256}.h5"

    def _reserve(self, path: Path, size: int, must_fit: bool) -> Reservation | None:
        """Make and lock the partial file at its full size, so that others count it."""
        partial = _partial(path)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
        _HELD.add(descriptor)
        if not _try_lock(descriptor, fcntl.LOCK_EX):
            _release(descriptor)
            return None
        reservation = Reservation(self, path, descriptor)
        try:
            os.ftruncate(descriptor, 0)  # a dead process may have left something in it
            excess = sum(num_bytes for _, _, num_bytes, _ in self._files()) + size - self.max_bytes
            if self._evict(excess) > 0 and must_fit:
                raise NoRoom
            self._allocate(descriptor, size)
        except BaseException:
            reservation.drop()
            raise
        return reservation

    def _allocate(self, descriptor: int, size: int) -> None:
        """Take a shard's bytes from the disk now, and from other shards where it has no more."""
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            os.ftruncate(descriptor, 0)
            self._evict(size)
            os.posix_fallocate(descriptor, 0, size)

    def _files(self) -> list[tuple[bool, int, int, Path]]:
        """List what is in the folder: complete or not, time of last use, bytes, path."""
        return [
            (entry.name.endswith(".h5"), status.st_mtime_ns, status.st_size, Path(entry.path))
            for entry in os.scandir(self.path)
            if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            for status in [entry.stat(follow_symlinks=False)]
        ]

    def _evict(self, excess: int) -> int:
        """Delete what dead processes left, then what was used longest ago; return what remains."""
        for _, _, num_bytes, path in sorted(self._files()):
            if excess <= 0:
                break
            if _unlink_unused(path):
                excess -= num_bytes
        return excess


def _partial(path: Path) -> Path:
    return path.with_name(path.name + schema.PARTIAL_SUFFIX)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlink_unused(path: Path) -> bool:
    """Delete a file unless somebody holds a lock on it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if is_unused := _try_lock(descriptor, fcntl.LOCK_EX):
            path.unlink()
    finally:
        os.close(descriptor)
    return is_unused
