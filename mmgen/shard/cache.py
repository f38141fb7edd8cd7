"""Remote shards as verified local files: fetched once, ahead of need, within a bound.

    cache = ShardCache()
    with cache.fetch(RemoteShard(place, "train/train-000000.h5", size, sha256)) as shard:
        shard.path, shard.descriptor  # both stay good until the shard is closed

Files are named by the SHA-256 that the manifest vouches for, so that processes and data sets share
them and nothing is ever stale; `cache_folder.py` says how they keep out of each other's way.
"""

import hashlib
import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen.errors import InputError, MmgenError, ShardError
from mmgen.shard.cache_folder import CachedShard, CacheFolder, NoRoom, Reservation
from mmgen.shard.places import RemotePlace

DEFAULT_MAX_BYTES = 20_000_000_000
_NUM_THREADS = 4
_POLL_S = 0.02
_PATIENCE_S = 5.0
_BLOCK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")

_Coming = Future[CachedShard | None]  # of a fetch ahead: None where the bound had no room


def default_folder() -> Path:
    """Return `moving-mnist/shards` in the user's cache folder, as XDG has it."""
    return user_cache() / "shards"


def user_cache() -> Path:
    """Return `moving-mnist` in the user's cache folder; for a user without a home, in TMPDIR."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        home = Path(base) if base.startswith("/") else Path.home() / ".cache"
    except RuntimeError:  # no HOME and no such user, as in a container that names a number
        home = Path(tempfile.gettempdir()) / f"cache-of-{os.getuid()}"
    return home / "moving-mnist"


@dataclass(frozen=True)
class RemoteShard:
    """What a manifest says of a shard: its name inside the place, size and SHA-256."""

    place: RemotePlace
    relative: str
    size: int
    sha256: str

    @property
    def where(self) -> str:
        """Return the shard's address, for messages."""
        return self.place.where(self.relative)


class ShardCache:
    """Fetch remote shards into a folder of at most `max_bytes`, the least recently used one out.

    Each reader has its own; the folder is what they share. Shards in use are never evicted, so what
    is open can exceed the bound. Of use in several threads and after a fork; picklable.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> None:
        self._folder = CacheFolder(default_folder() if folder is None else Path(folder), max_bytes)
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._verified: set[tuple[str, int]] = set()  # SHA-256 and inode of files that hold it
        self._ahead: dict[str, _Coming] = {}  # by SHA-256
        self._tasks: queue.SimpleQueue[tuple[RemoteShard, _Coming] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._is_closing = threading.Event()

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def fetch(self, shard: RemoteShard) -> CachedShard:
        """Return a shard as a local file that holds what the manifest vouches for.

        raises  InputError for a shard that no cache of this size or name can hold; ShardError if
                it is missing or, fetched twice, not what the manifest says; MmgenError if the
                network fails for good or the disk is full; also what a fetch ahead of it met
        """
        self._after_fork()
        self._check(shard)
        coming = self._ahead.pop(shard.sha256, None)
        if coming is not None and not coming.cancel() and (cached := coming.result()) is not None:
            return cached
        return self._fetch(shard, must_fit=False)

    def fetch_ahead(self, shards: Iterable[RemoteShard]) -> None:
        """Fetch these in the background, in this order; they replace what was wanted before.

        They are kept until they are asked for, as far as the bound has room beside what is in use;
        the rest is fetched when it is asked for. What goes wrong is raised there too.
        """
        self._after_fork()
        wanted = {shard.sha256: shard for shard in shards}
        # A thread that reads may take one out of here at any moment: it is looked at only once.
        for sha256 in set(self._ahead) - set(wanted):
            if unwanted := self._ahead.pop(sha256, None):
                _let_go(unwanted)
        while len(self._threads) < _NUM_THREADS:
            # Daemons: a process that ends does not wait for shards that nobody will read.
            thread = threading.Thread(target=self._work, name="fetch-ahead", daemon=True)
            self._threads.append(thread)
            thread.start()
        for sha256, shard in wanted.items():
            coming = self._ahead.get(sha256)
            if coming is None or _found_no_room(coming):
                coming = self._ahead[sha256] = _Coming()
                self._tasks.put((shard, coming))

    def close(self) -> None:
        """Stop fetching, and let go of what was fetched ahead and never asked for; for good."""
        self._after_fork()
        self._is_closing.set()
        for sha256 in list(self._ahead):
            if unwanted := self._ahead.pop(sha256, None):
                _let_go(unwanted)
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(_PATIENCE_S)  # a driver that is stuck gives up later, and then its thread

    def _after_fork(self) -> None:
        """In a child process the parent's threads are gone: begin anew."""
        if self._process != os.getpid():
            self._forget()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            shard, coming = task
            if coming.set_running_or_notify_cancel():
                try:
                    self._check(shard)
                    coming.set_result(self._fetch(shard, must_fit=True))
                except NoRoom:
                    coming.set_result(None)
                except BaseException as error:
                    coming.set_exception(error)

    def _check(self, shard: RemoteShard) -> None:
        where = shard.where
        if not _SHA256.fullmatch(shard.sha256):
            raise InputError(f"{where}: its manifest has no SHA-256 ({shard.sha256[:80]!r})")
        if not 0 < shard.size <= self._folder.max_bytes:
            raise InputError(
                f"{where}: has {shard.size} bytes, the cache holds {self._folder.max_bytes}; "
                "give it more, or make smaller shards"
            )

    def _fetch(self, shard: RemoteShard, must_fit: bool) -> CachedShard:
        """Open, download, or wait for who downloads; NoRoom only if it must fit."""
        while True:
            found = self._folder.find_or_reserve(shard.sha256, shard.size, must_fit)
            if isinstance(found, Reservation):
                return self._download(found, shard)
            if found is None:
                while self._folder.is_being_filled(shard.sha256):
                    self._check_open(shard)
                    time.sleep(_POLL_S)
            elif self._is_right(found, shard):
                return found
            else:
                self._folder.discard(found)

    def _check_open(self, shard: RemoteShard) -> None:
        if self._is_closing.is_set():
            raise MmgenError(f"{shard.where}: the cache was closed while it was fetched")

    def _download(self, reservation: Reservation, shard: RemoteShard) -> CachedShard:
        def receive(offset: int, block: bytes) -> None:
            self._check_open(shard)
            reservation.write(offset, block[: shard.size - offset])

        try:
            _fetch_verified(shard, receive)
            cached = reservation.keep()
        except BaseException:
            reservation.drop()
            raise
        self._verified.add((shard.sha256, os.fstat(cached.descriptor).st_ino))
        return cached

    def _is_right(self, cached: CachedShard, shard: RemoteShard) -> bool:
        """Hash a file that this process has not seen yet: disks and people damage files."""
        status = os.fstat(cached.descriptor)
        key = (shard.sha256, status.st_ino)
        if key not in self._verified:
            if _sha256(cached.descriptor) != shard.sha256:
                return False
            self._verified.add(key)
        if status.st_size != shard.size:
            raise _mismatch(shard, status.st_size)
        return True


def _fetch_verified(shard: RemoteShard, receive: Callable[[int, bytes], None]) -> None:
    """Fetch a shard, and once more if it is not what the manifest says; then refuse it."""
    for _ in range(2):
        received, sha256 = shard.place.fetch(shard.relative, shard.size, receive)
        if (received, sha256) == (shard.size, shard.sha256):
            return
    raise _mismatch(shard, received)


def _mismatch(shard: RemoteShard, num_bytes: int) -> ShardError:
    found = f"has {num_bytes} bytes, not {shard.size}"
    if num_bytes == shard.size:
        found = "has another SHA-256"
    elif num_bytes > shard.size:
        found = f"has more than {shard.size} bytes"
    return ShardError(f"{shard.where}: {found}, against its manifest; write the shard again")


def _sha256(descriptor: int) -> str:
    digest, offset = hashlib.sha256(), 0
    while block := os.pread(descriptor, _BLOCK_BYTES, offset):
        digest.update(block)
        offset += len(block)
    return digest.hexdigest()


def _found_no_room(coming: _Coming) -> bool:
    if not coming.done() or coming.cancelled():  # by who asked for it meanwhile
        return False
    return coming.exception() is None and coming.result() is None


def _let_go(coming: _Coming) -> None:
    """Close a shard that nobody asked for, now or when it arrives."""

    def close(done: _Coming) -> None:
        if done.exception() is None and (cached := done.result()) is not None:
            cached.close()

    if not coming.cancel():
        coming.add_done_callback(close)
