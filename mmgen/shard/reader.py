"""Open a data set and read its sequences, in any order and from several threads at once.

It may lie in a folder or at any fsspec address; remote shards are read from a cache on this disk.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgen.errors import InputError, ShardError
from mmgen.shard import schema
from mmgen.shard.cache import RemoteShard, ShardCache
from mmgen.shard.checks import REMEDY, FileState, damaged_sequences, open_file
from mmgen.shard.file import Sequence, Shard
from mmgen.shard.manifest import MAX_JSON_BYTES, Manifest, ShardEntry
from mmgen.shard.places import Place, RemotePlace, find_place

__all__ = ["DataSet", "Sequence", "Shard", "Split", "open_dataset"]

_MAX_OPEN_SHARDS = 64


def open_dataset(address: str | os.PathLike[str], cache: ShardCache | None = None) -> "DataSet":
    """Open a data set.

    address  its folder, or any fsspec address whose driver is installed, such as s3://bucket/data
    cache    where remote shards go; by default 20 GB in the user's cache folder
    raises   InputError if there is none
    """
    place = find_place(address)
    if not place.exists(schema.MANIFEST_NAME):
        unfinished = place.exists(schema.REQUEST_NAME)
        why = (
            "is not finished; run the same `mmgen generate` or `mmgen import` again"
            if unfinished
            else (f"is no data set (no {schema.MANIFEST_NAME}); make one with `mmgen generate`")
        )
        raise InputError(f"{place.name}: {why}")
    text = place.read_text(schema.MANIFEST_NAME, MAX_JSON_BYTES)
    manifest = Manifest.from_json(text, place.where(schema.MANIFEST_NAME))
    return DataSet(place, manifest, cache or ShardCache())


class DataSet:
    """Splits in shards: `dataset["test"][3]` is sequence 3 of the split test."""

    def __init__(self, place: Place, manifest: Manifest, cache: ShardCache) -> None:
        self.address = place.name
        self.manifest = manifest
        self.splits = {name: Split(place, manifest, name, cache) for name in manifest.splits}

    def __getitem__(self, split: str) -> "Split":
        if split not in self.splits:
            names = ", ".join(self.splits) or "none"
            raise InputError(f"{self.address}: has no split {split!r}; there are: {names}")
        return self.splits[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        return f"<DataSet {self.address}: {counts}>"


class _Slot:
    """A shard that is open, or that one thread opens while others that want it wait."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.shard: Shard | None = None


class Split:
    """The sequences of one split, in shards that open on first use; picklable.

    Several threads may read at once; where one opens a shard, those that read others go on.
    """

    def __init__(self, place: Place, manifest: Manifest, name: str, cache: ShardCache) -> None:
        self.name = name
        self.address = place.name
        self.manifest = manifest
        self._place = place
        self._cache = cache
        self.entries = manifest.splits[name].shards
        self._firsts = np.array([entry.first for entry in self.entries], np.int64)
        self._shape: tuple[int, ...] = ()
        self._identified: dict[str, FileState] = {}
        self._forget_files()

    def _forget_files(self) -> None:
        self._process = os.getpid()
        self._slots: OrderedDict[int, _Slot] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_slots", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_files()

    def __len__(self) -> int:
        return self.manifest.splits[self.name].count

    def __getitem__(self, index: int) -> Sequence:
        (index,) = self._places([index])
        number = np.searchsorted(self._firsts, index, "right") - 1
        return self.shard(int(number)).sequence(int(index - self._firsts[number]))

    def __iter__(self) -> Iterator[Sequence]:
        return (self[index] for index in range(len(self)))

    @property
    def sequence_shape(self) -> tuple[int, ...]:
        """(T, H, W) or (T, H, W, 3), as stored in the first shard that was opened."""
        return self._shape or self.shard(0).sequence_shape

    def read(self, indices: Iterable[int], out: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Read frames into the caller's buffer.

        indices  B places in the split
        out      uint8 (B, T, H, W) or (B, T, H, W, 3), C order
        returns  num_frames, int32 (B,)
        raises   ShardError that names shard and sequence, for anything damaged
        """
        places = self._places(indices)
        shape = (len(places), *self.sequence_shape)
        if out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(f"the buffer is {out.dtype} {out.shape}, needed is uint8 {shape}")
        num_frames = np.empty(len(places), np.int32)
        if not len(places):
            return num_frames
        # Shard by shard, so that each is looked up once and no more than one is needed at a time;
        # memoryviews, of which a part costs half of an array's.
        order = np.argsort(places, kind="stable")
        numbers = np.searchsorted(self._firsts, places[order], "right") - 1
        rows = places[order] - self._firsts[numbers]
        into, into_num_frames, size = out.data.cast("B"), num_frames.data, out[0].nbytes
        current, shard, lengths = -1, self.shard(int(numbers[0])), num_frames.data
        for place, number, row in zip(order.tolist(), numbers.tolist(), rows.tolist(), strict=True):
            if number != current:
                current, shard = number, self.shard(number)
                lengths = shard.num_frames.data
            shard.read_bytes(row, into[place * size : (place + 1) * size])
            into_num_frames[place] = lengths[row]
        return num_frames

    def _places(self, indices: Iterable[int]) -> NDArray[np.int64]:
        """Return indices as they count from 0; IndexError names the first that is outside."""
        places = np.fromiter(indices, np.int64)
        outside = (places < -len(self)) | (places >= len(self))
        if outside.any():
            wrong = places[outside][0]
            raise IndexError(f"sequence {wrong} of {self.name}, which has {len(self)}")
        return places % len(self)

    def shard(self, number: int) -> Shard:
        """Return an open shard; the least recently used one is let go when there are many."""
        if self._process != os.getpid():  # after a fork a lock may be that of a thread left behind
            self._forget_files()
        with self._lock:
            slot = self._slots.setdefault(number, _Slot())
            self._slots.move_to_end(number)
            if len(self._slots) > _MAX_OPEN_SHARDS:
                self._slots.popitem(last=False)
        with slot.lock:
            if slot.shard is None:
                slot.shard = self._opened(self.entries[number])
            return slot.shard

    def fetch_ahead(self, numbers: Iterable[int]) -> None:
        """Fetch remote shards in the background, in this order; local ones are there already."""
        if self._place.is_remote:
            self._cache.fetch_ahead(
                self._remote(self._place, self.entries[number])
                for number in numbers
                if number not in self._slots
            )

    def _opened(self, entry: ShardEntry) -> Shard:
        origin = {"format": schema.FORMAT, "seed": self.manifest.seed, "split": self.name}
        where = self._place.where(self._relative(entry))
        shard = Shard(where, self._descriptor(entry), entry, origin, self._identified)
        with self._lock:
            self._shape = self._shape or shard.sequence_shape
        if shard.sequence_shape != self._shape:
            raise ShardError(
                f"{where}: holds sequences of {shard.sequence_shape}, other shards of "
                f"{self._shape}; {REMEDY}"
            )
        return shard

    def damage(self, entry: ShardEntry) -> str:
        """Name the sequences of a damaged shard, as the end of a message; it takes a second."""
        descriptor = self._descriptor(entry)
        try:
            return damaged_sequences(descriptor, entry)
        finally:
            os.close(descriptor)

    def _descriptor(self, entry: ShardEntry) -> int:
        """Open a shard's file, here or in the cache, which keeps it for as long as it is open."""
        if not self._place.is_remote:
            return open_file(self._place.path(self._relative(entry)))
        with self._cache.fetch(self._remote(self._place, entry)) as cached:
            return os.dup(cached.descriptor)  # a copy shares the lock

    def _remote(self, place: RemotePlace, entry: ShardEntry) -> RemoteShard:
        return RemoteShard(place, self._relative(entry), entry.bytes, entry.sha256)

    def _relative(self, entry: ShardEntry) -> str:
        return f"{self.name}/{entry.name}"
