"""Sources -> batches of uint8 frames, in the order of `order.py`, read ahead in the background.

Frames stay uint8 until they are on the device: a quarter of the bytes to move.
"""

import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from operator import index as as_integer
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map  # documented for such types

from mmgen.shard.cache import ShardCache
from mmgen.shard.places import find_place
from trainer.address import Address, as_weighted
from trainer.errors import InputError
from trainer.order import InOrder, Mixture, Order, rank_part
from trainer.source import Source, StoredSource, check_agreement, open_source

_AHEAD = 2  # batches that wait beside those being read
_PLANNED = 32  # batches whose order is worked out in one go
# Steps from the fetch of a remote shard to its first use. By default (128 sequences a batch in 8
# lanes, 8192 a shard) a lane opens a window of 4 shards every 2048 steps, and some lane every 256:
# so about one window waits in the cache beside the 8 that are read.
_FETCHED_AHEAD = 256
_MAX_WANTED = 128  # shards at a time: each that was fetched and not yet read keeps a file open
_MIXED_ROWS = 16  # sequences of one source on their way into a mixed batch: they stay in the cache

J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True)
class Batch:
    """B sequences.

    frames  uint8 (B, T, H, W) or (B, T, H, W, 3), zero past num_frames
    num_frames  int32 (B,)      index  int64 (B,), places in the split
    source  int64 (B,), which of several DATA each is of; None where there is one
    """

    frames: Tensor
    num_frames: Tensor
    index: Tensor
    source: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """Copy to a device; from pinned memory without waiting for the copy."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Copy into pinned memory, as `DataLoader(pin_memory=True)` asks for."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        source = None if self.source is None else change(self.source)
        return Batch(change(self.frames), change(self.num_frames), change(self.index), source)


def _refuse_to_collate(*_: Any, **__: Any) -> NoReturn:
    raise InputError(
        "what a stream yields is a batch already; write DataLoader(stream, batch_size=None)"
    )


default_collate_fn_map[Batch] = _refuse_to_collate  # where a DataLoader has its batch_size of 1


class SequenceStream(IterableDataset[Batch]):
    """Endless batches of a split: iterate, and save or load `state_dict` at any batch.

    data        a DATA address, or {address: weight} to mix several of one canvas and colour;
                shorter sequences are padded with zeros to the longest
    batch_size  sequences of a global batch; a stored set must hold as many
    seed        of the order; live data come unshuffled
    rank, num_ranks  this process's place: each gets its part of every batch
    readers     threads; they change nothing but the speed
    pin_memory  for copies to CUDA that nobody waits for
    cache       where shards of remote data go; by default 20 GB in the user's cache folder

    Under `DataLoader(stream, batch_size=None, num_workers=W)` worker w reads every W-th batch, so
    the order is the same. It needs batch_size=None: what comes is a Batch already. The workers have
    copies of the stream: set `stream.step` to the number of batches consumed before saving its
    state, or before a new `iter` of the loader. That makes new copies, but not where the workers
    live on (persistent_workers=True): they refuse to begin again.
    """

    def __init__(
        self,
        data: Address | Mapping[str, float],
        batch_size: int,
        *,
        split: str = "train",
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        readers: int = 1,
        pin_memory: bool = False,
        cache: ShardCache | None = None,
    ) -> None:
        batch_size = _whole("batch_size", batch_size, 1)
        seed = _whole("seed", seed, 0, 2**63 - 1)
        self._num_ranks = _whole("num_ranks", num_ranks, 1)
        self._rank = _whole("rank", rank, 0, self._num_ranks - 1)
        self._readers, self._pin_memory = _whole("readers", readers, 1), pin_memory
        weighted = as_weighted(data)
        # What a cache fetches ahead is one list, a new one replaces it: each source has its own.
        self.sources = [open_source(address, split, copy(cache)) for address in weighted]
        check_agreement(self.sources)
        self.batch_size = batch_size
        self.step = 0
        self._has_begun_in_worker = False
        self._order = _order_of(self.sources, list(weighted.values()), batch_size, seed)
        self._part(np.arange(batch_size))  # refuses ranks that cannot share a batch

    @property
    def sequence_shape(self) -> tuple[int, ...]:
        """(T, H, W) or (T, H, W, 3) of every batch."""
        return max(source.sequence_shape for source in self.sources)

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs: the batches handed out, and what fixes their order."""
        fingerprints = [source.fingerprint for source in self.sources]
        return {"step": self.step, "sources": fingerprints} | self._order.fixed()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the batches already handed out, from the next `iter` on.

        raises  InputError if the order would differ, or `state` is none
        """
        saved = state.get("sources") if isinstance(state, dict) else None
        if not isinstance(saved, list):
            raise InputError("the saved state is none of a SequenceStream")
        if len(saved) != len(self.sources):
            raise InputError(
                f"the saved state is of {len(saved)} data sets, the stream of {len(self.sources)}"
            )
        here = [source.fingerprint for source in self.sources]
        if here != saved and sorted(here) == sorted(map(str, saved)):
            raise InputError(
                "the saved state names the same data sets in another order; name them as they were"
            )
        for source, fingerprint, expected in zip(self.sources, here, saved, strict=True):
            if fingerprint != expected:
                raise InputError(
                    f"{source.address}: is not the data set that the saved state is of"
                )
        for name, value in self._order.fixed().items():
            if state.get(name) != value:
                raise InputError(
                    f"the stream's {name} is {state.get(name)} in the saved state, {value} here"
                )
        # So far the numbers of sequences, some batches read ahead among them, fit into int64.
        last = 2**62 // self.batch_size
        self.step = _whole("the saved state's step", state.get("step"), 0, last)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield batches from the current step on, for ever; one iterator at a time.

        raises  InputError in a worker that has begun before
        """
        worker = get_worker_info()
        place, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        # Workers read ahead, each by another number of batches, and never hear of `step` set later.
        if self._has_begun_in_worker:
            raise InputError(
                "a worker begins once, where its copy of the stream was; to iterate again, set "
                "stream.step and use DataLoader(..., persistent_workers=False)"
            )
        self._has_begun_in_worker = worker is not None
        memory = Memory(self.batch_size // self._num_ranks, self.sequence_shape, self._pin_memory)
        read = partial(_read_planned, self.sources, memory=memory)
        planned = self._plan(self.step + place, stride)
        with closing(read_ahead(read, planned, self._readers)) as batches:
            for batch in batches:
                self.step += stride
                yield batch

    def _plan(self, first: int, stride: int) -> Iterator["_Planned"]:
        """Yield which sequences make up every stride-th batch."""
        span = stride * _PLANNED
        blocks = (self._block(begin, begin + span, stride) for begin in count(first, span))
        ahead = -(-_FETCHED_AHEAD // span)
        for block in _with_shards_ahead(blocks, self.sources, ahead):
            yield from block.batches()

    def _block(self, begin: int, end: int, stride: int) -> "_Planned":
        """Work out this rank's part of every stride-th batch from `begin` to `end` - 1."""
        batches = self._order.batches(begin, end)
        source, index = batches if isinstance(batches, tuple) else (None, batches)
        whose = None if source is None else self._part(source[::stride])
        return _Planned(self._part(index[::stride]), whose)

    def _part(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        return rank_part(batch, self._rank, self._num_ranks)


def _whole(name: str, value: Any, low: int, high: int = 2**31 - 1) -> int:
    """Return a plain int, of numpy's too; InputError for what is none or out of range."""
    try:
        number = as_integer(value)
    except TypeError:
        number = low - 1
    if not low <= number <= high:
        raise InputError(f"{name}: {value!r} is no whole number from {low} to {high}")
    return number


@dataclass(frozen=True)
class _Planned:
    """Places in the split, and of several sources which: (B,) of a batch, (batches, B) of many."""

    index: NDArray[np.int64]
    source: NDArray[np.int64] | None = None

    def batches(self) -> Iterator["_Planned"]:
        """Yield each batch of many."""
        for row, index in enumerate(self.index):
            yield _Planned(index, None if self.source is None else self.source[row])

    def places_in(self, number: int) -> NDArray[np.int64]:
        """Return the places in one source, in the order in which they are read."""
        return self.index[... if self.source is None else self.source == number].ravel()


def _with_shards_ahead(
    blocks: Iterator[_Planned], sources: Sequence[Source], num_ahead: int
) -> Iterator[_Planned]:
    """Yield the blocks, each after its shards and those of `num_ahead` more were asked for.

    They are exactly the shards that will be read here, in the order of need: the order of a batch
    is worked out once, only earlier. Data on this machine do not pay for any of it.
    """
    remote = [
        (source, number, np.cumsum(source.shard_counts))
        for number, source in enumerate(sources)
        if isinstance(source, StoredSource) and find_place(source.address).is_remote
    ]
    if not remote:
        yield from blocks
        return
    waiting: deque[tuple[_Planned, list[list[int]]]] = deque()
    for block in blocks:
        needs = [_shards_in_turn(block.places_in(number), ends) for _, number, ends in remote]
        waiting.append((block, needs))
        for place, (source, _, _) in enumerate(remote):
            wanted = dict.fromkeys(shard for _, needs in waiting for shard in needs[place])
            source.fetch_ahead(list(islice(wanted, _MAX_WANTED)))
        if len(waiting) > num_ahead:
            yield waiting.popleft()[0]


def _shards_in_turn(places: NDArray[np.int64], shard_ends: NDArray[np.int64]) -> list[int]:
    """Name each shard that some places lie in once, in the order of the first of them."""
    shards, first = np.unique(np.searchsorted(shard_ends, places, "right"), return_index=True)
    in_turn: list[int] = shards[np.argsort(first)].tolist()
    return in_turn


def _order_of(
    sources: Sequence[Source], weights: Sequence[float], batch_size: int, seed: int
) -> Order | Mixture | InOrder:
    counts = [s.shard_counts if isinstance(s, StoredSource) else None for s in sources]
    if len(counts) > 1:
        return Mixture.of(counts, weights, batch_size, seed)
    return InOrder(batch_size) if counts[0] is None else Order(counts[0], batch_size, seed)


class Memory:
    """Frames of batches: memory that is used again as soon as nobody looks at it, and no sooner.

    A batch of 10 MB costs 2560 page faults where its memory is fresh. What is handed out comes back
    when the last tensor that shows it is gone, so a batch may be kept for as long as one likes.
    Pinned memory is torch's own to use again: it knows which copies are still on their way.
    """

    def __init__(
        self, num_sequences: int, sequence_shape: tuple[int, ...], is_pinned: bool
    ) -> None:
        self._shape = (num_sequences, *sequence_shape)
        self._is_pinned = is_pinned
        # More than these are kept only by a consumer that keeps batches itself.
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=_AHEAD + 2)

    def take(self, num_sequences: int) -> Tensor:
        """Return uint8 (num_sequences, T, H, W) of any content."""
        if self._is_pinned:
            shape = (num_sequences, *self._shape[1:])
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        try:
            whole = self._free.pop()
        except IndexError:
            whole = np.empty(self._shape, np.uint8)
        shown = whole[:num_sequences]  # an array of its own, which only the tensor holds
        weakref.finalize(shown, self._free.append, whole).atexit = False
        return torch.from_numpy(shown)


def _read_planned(sources: Sequence[Source], planned: _Planned, memory: Memory) -> Batch:
    frames = memory.take(len(planned.index))
    if planned.source is None:
        num_frames = sources[0].read(planned.index, frames.numpy())
    else:
        num_frames = _read_mixed(sources, planned.source, planned.index, frames.numpy())
    whose = None if planned.source is None else torch.from_numpy(planned.source.copy())
    index = torch.from_numpy(planned.index.copy())
    return Batch(frames, torch.from_numpy(num_frames), index, whose)


def _read_mixed(
    sources: Sequence[Source],
    whose: NDArray[np.int64],
    index: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> NDArray[np.int32]:
    """Read sequences (B,) of several sources into `out`; shorter ones are zero at their end."""
    num_frames = np.empty(len(out), np.int32)
    for number, source in enumerate(sources):
        rows = np.flatnonzero(whose == number)
        shape = source.sequence_shape
        read = np.empty((min(len(rows), _MIXED_ROWS), *shape), np.uint8)
        for first in range(0, len(rows), _MIXED_ROWS):
            part = rows[first : first + _MIXED_ROWS]
            num_frames[part] = source.read(index[part], read[: len(part)])
            for place, row in enumerate(part.tolist()):
                out[row, : shape[0]] = read[place]
                out[row, shape[0] :] = 0
    return num_frames


def read_ahead(
    read: Callable[[J], R], jobs: Iterable[J], num_threads: int
) -> Generator[R, None, None]:
    """Yield what `read` makes of each job, in their order; threads are some jobs ahead.

    An error comes out at its job's turn. Closing, or the end of the jobs, ends the threads.
    """
    with ThreadPoolExecutor(num_threads, thread_name_prefix="shards") as readers:
        waiting: deque[Future[R]] = deque()
        try:
            for job in jobs:
                waiting.append(readers.submit(read, job))
                if len(waiting) == num_threads + _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            readers.shutdown(cancel_futures=True)


def in_order(
    source: Source, num_sequences: int, batch_size: int, *, first: int = 0
) -> Generator[Batch, None, None]:
    """Yield sequences of a source in order, from `first` on; the last batch may be smaller."""
    last = first + num_sequences
    begins = range(first, last, batch_size)
    planned = (_Planned(np.arange(begin, min(begin + batch_size, last))) for begin in begins)
    memory = Memory(min(batch_size, num_sequences), source.sequence_shape, is_pinned=False)
    return read_ahead(partial(_read_planned, [source], memory=memory), planned, 1)
