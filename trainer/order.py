"""Which sequences make up which batch: pure functions of the seed, the sizes and the step.

Nothing here lists a set: a place in the order is worked out from its number alone, so any step of
a hundred million sequences is found at once, and a saved state is a step and some constants.

An epoch puts the shards of a split in a row, shuffled, and cuts the row into equal lanes. Slot s of
the epoch is read from lane s % lanes, which goes on window by window; a window is a few shards long
and permuted. So few shards are open at a time, and each is opened once an epoch.

How good a shuffle that is, against a full permutation (ten epochs of 1 000 000 sequences in 123
shards, batches of 128, 8 lanes, windows of 4 shards; measured): a batch comes from 33 shards, not
79. The mean over a batch of what differs inside a shard varies as much (1.02 times); of what
differs from shard to shard 2.0 times as much, and slowly. Two epochs correlate by 0.07, as
123 shuffled shards do. Where the shards are alike, as those of one generated set are, nothing
tells it from a full permutation; up to 32 shards it is one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.errors import InputError
from trainer.permutation import Integers, Words, permute, round_keys, shuffle

_VERSION = 2  # of the order: another one would make every saved run end elsewhere
_BLOCK = 4096  # draws of a mixture that are dealt out together


class _Epoch(NamedTuple):
    """The row of an epoch: its shards, where each ends, and what leads from the row to the split.

    shards, ends, moves  int64 (num_shards,)
    keys   uint64 (8,), of its windows
    early  how far before lane 0 the first window of that lane begins
    """

    shards: Integers
    ends: Integers
    moves: Integers
    keys: Words
    early: int


@dataclass(frozen=True)
class Order:
    """The endless order of one split, cut into batches.

    shard_counts   sequences in each shard, in the order of the split
    batch_size     sequences a batch, over all ranks
    lanes          places of the row that are read at once
    window_shards  a window is as long as so many of the largest shard

    An epoch is as many whole batches as the set fills: no sequence comes twice in it, and fewer
    than a batch are left out, others each time. A set of no more than lanes * window_shards of
    the largest shard is permuted as a whole.

    raises  InputError if the set is smaller than a batch
    """

    shard_counts: tuple[int, ...]
    batch_size: int
    seed: int
    lanes: int = 8
    window_shards: int = 4
    _recent: dict[int, _Epoch] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_positive(
            batch_size=self.batch_size, lanes=self.lanes, window_shards=self.window_shards
        )
        if self.num_sequences < self.batch_size:
            raise InputError(
                f"batch_size: {self.batch_size} is more than the {self.num_sequences} sequences "
                "there are; lower batch_size or generate more"
            )

    @cached_property
    def num_sequences(self) -> int:
        """How many sequences the split has."""
        return sum(self.shard_counts)

    @property
    def batches_per_epoch(self) -> int:
        """How many whole batches an epoch has."""
        return self.num_sequences // self.batch_size

    def fixed(self) -> dict[str, Any]:
        """Return what a saved state must agree in, besides the shards themselves."""
        return {"order": _VERSION, "seed": self.seed, "batch_size": self.batch_size} | self.cut()

    def cut(self) -> dict[str, int]:
        """Return how an epoch is cut into lanes and windows."""
        lanes, window = self._lanes_and_window
        return {"lanes": lanes, "window": window, "num_sequences": self.num_sequences}

    def batches(self, first: int, last: int) -> Integers:
        """Return the batches `first` to `last` - 1, int64 (last - first, batch_size), as places.

        A batch is sorted by lane, so that ranks, which take parts of it, share few shards.
        """
        epochs, batch = np.divmod(np.arange(first, last), self.batches_per_epoch)
        slots = (batch * self.batch_size)[:, None] + np.arange(self.batch_size)
        by_lane = np.argsort(slots % self._lanes_and_window[0], axis=1, kind="stable")
        draws = (epochs * self.num_sequences)[:, None] + np.take_along_axis(slots, by_lane, 1)
        return self.places(draws.ravel()).reshape(draws.shape)

    def places(self, draws: Integers) -> Integers:
        """Return the places of draws, int64 (B,), of the order that leaves nothing out.

        draws  int64 (B,): epoch * num_sequences + slot, epochs ascending
        """
        epochs, slots = np.divmod(draws, self.num_sequences)
        numbers, starts = np.unique(epochs, return_index=True)
        parts = zip(numbers.tolist(), np.split(slots, starts[1:]), strict=False)
        return np.concatenate([draws[:0], *(self._places(epoch, part) for epoch, part in parts)])

    @cached_property
    def _lanes_and_window(self) -> tuple[int, int]:
        window = self.window_shards * max(self.shard_counts)
        if self.num_sequences <= self.lanes * window:
            return 1, self.num_sequences
        return self.lanes, window

    def _places(self, epoch: int, slots: Integers) -> Integers:
        row, num_lanes = self._epoch(epoch), self._lanes_and_window[0]
        lanes, inside = slots % num_lanes, slots // num_lanes
        windows, starts, stops = self._windows(row, lanes, inside)
        names = (windows * num_lanes + lanes).astype(np.uint64)
        inside = starts + permute(inside - starts, stops - starts, row.keys, names)
        at = self._along_row(lanes, inside)
        return at + row.moves[np.searchsorted(row.ends, at, side="right")]

    def _windows(
        self, row: _Epoch, lanes: Integers, inside: Integers
    ) -> tuple[Integers, Integers, Integers]:
        """Number the windows of places inside their lanes; say where each starts and stops.

        The windows of a lane begin before it does, further with each lane: its first one is
        shorter, and the lanes do not all open a window at the same step.
        """
        num_lanes, window = self._lanes_and_window
        early = (row.early + lanes * window // num_lanes) % window
        number = (inside + early) // window
        starts = np.maximum(number * window - early, 0)
        return number, starts, np.minimum((number + 1) * window - early, self._lane_size(lanes))

    def _along_row(self, lanes: Integers, inside: Integers) -> Integers:
        """Say where places inside their lanes lie in the row.

        Odd lanes run backwards: so neighbours read the shard that they share at the same time,
        the start or the end of the epoch, and not one at each.
        """
        num_lanes, size = self._lanes_and_window[0], self._lane_size(lanes)
        starts = lanes * (self.num_sequences // num_lanes)
        starts += np.minimum(lanes, self.num_sequences % num_lanes)
        return starts + np.where(lanes % 2 == 0, inside, size - 1 - inside)

    def _lane_size(self, lanes: Integers) -> Integers:
        whole, more = divmod(self.num_sequences, self._lanes_and_window[0])
        return whole + (lanes < more)

    def _epoch(self, epoch: int) -> _Epoch:
        row = self._recent.get(epoch)
        if row is None:
            row = self._lay_out(epoch)
            for old in list(self._recent)[:-1]:  # two are kept: a batch read ahead is of the next
                self._recent.pop(old, None)
            self._recent[epoch] = row
        return row

    def _lay_out(self, epoch: int) -> _Epoch:
        counts = np.array(self.shard_counts, np.int64)
        shards = shuffle(len(counts), round_keys("order 2, shards", self.seed, epoch))
        ends = np.cumsum(counts[shards])
        keys = round_keys("order 2, windows", self.seed, epoch)
        num_lanes, window = self._lanes_and_window
        early = int(keys[0]) % window if num_lanes > 1 else 0  # else two windows, not one
        return _Epoch(shards, ends, np.cumsum(counts)[shards] - ends, keys, early)


@dataclass(frozen=True)
class Mixture:
    """Several splits, mixed with weights that hold exactly; make one with `Mixture.of`.

    orders   of each split, of batches of 1: each goes through epochs of its own, all of its
             sequences, and a batch may hold the end of one and the start of the next; live ones
             have no end
    weights  how often each is drawn, in any unit; no less than 1/4096 of their sum

    After every 4096 draws each split was drawn as often as its weight says, to less than one
    sequence from the start on (largest remainder); in between the draws are shuffled. What comes
    of a split comes in its own order. A batch stays as drawn: each rank meets every lane.

    raises  InputError if the weights are not one for each split, finite, above 0 and large enough
    """

    orders: tuple["Order | InOrder", ...]
    weights: tuple[float, ...]
    batch_size: int
    seed: int

    @classmethod
    def of(
        cls,
        shard_counts: Sequence[Sequence[int] | None],
        weights: Sequence[float],
        batch_size: int,
        seed: int,
    ) -> "Mixture":
        """Give each split an order with a seed of its own, of the seed and its place among them.

        shard_counts  of each split, None for a live one
        """
        seeds = [
            int(round_keys("order 2, split", seed, place)[0]) for place in range(len(shard_counts))
        ]
        orders = (
            InOrder(1) if counts is None else Order(tuple(counts), 1, seed_there)
            for counts, seed_there in zip(shard_counts, seeds, strict=True)
        )
        return cls(tuple(orders), tuple(weights), batch_size, seed)

    def __post_init__(self) -> None:
        _check_positive(batch_size=self.batch_size)
        if not self.weights or len(self.weights) != len(self.orders):
            raise InputError(f"weights: {len(self.weights)} for {len(self.orders)} data sets")
        for weight in self.weights:
            if not (math.isfinite(weight) and weight > 0):
                raise InputError(f"weights: {weight} is out of range, allowed is a number above 0")
        if min(self._shares) * _BLOCK < sum(self._shares):
            raise InputError(
                f"weights: {min(self.weights)} is less than 1/{_BLOCK} of their sum; raise it or "
                "leave that data set out"
            )

    def fixed(self) -> dict[str, Any]:
        """Return what a saved state must agree in, besides the shards themselves."""
        fixed = {"order": _VERSION, "seed": self.seed, "batch_size": self.batch_size}
        return fixed | {"weights": list(self.weights), "splits": [o.cut() for o in self.orders]}

    def batches(self, first: int, last: int) -> tuple[Integers, Integers]:
        """Return which split each sequence of batches `first` to `last` - 1 is of, and its place.

        Both are int64 (last - first, batch_size).
        """
        first, last = first * self.batch_size, last * self.batch_size
        blocks = range(first // _BLOCK, -(-last // _BLOCK))
        dealt = [_deal(self._shares, self.seed, block) for block in blocks]
        start = first - first % _BLOCK
        sources = np.concatenate([np.empty(0, np.int64), *dealt])[first - start : last - start]
        index = np.empty_like(sources)
        for source, (order, drawn) in enumerate(zip(self.orders, self._drawn(first), strict=True)):
            (here,) = np.nonzero(sources == source)
            index[here] = order.places(np.arange(drawn, drawn + len(here)))
        return sources.reshape(-1, self.batch_size), index.reshape(-1, self.batch_size)

    @cached_property
    def _shares(self) -> tuple[int, ...]:
        """The weights as whole numbers, of what was typed: 0.7 and 0.3 are 7 and 3."""
        exact = [Fraction(repr(float(weight))) for weight in self.weights]
        unit = math.lcm(*(share.denominator for share in exact))
        return tuple(int(share * unit) for share in exact)

    def _drawn(self, draws: int) -> list[int]:
        """Count what was drawn of each split in the first `draws`."""
        block, rest = divmod(draws, _BLOCK)
        counts = _apportion(self._shares, block * _BLOCK)
        if rest:
            dealt = _deal(self._shares, self.seed, block)[:rest]
            of_block = np.bincount(dealt, minlength=len(counts)).tolist()
            counts = [a + b for a, b in zip(counts, of_block, strict=True)]
        return counts


@dataclass(frozen=True)
class InOrder:
    """The order of live data, which is endless: batch t is sequences t * G to (t + 1) * G - 1."""

    batch_size: int

    def __post_init__(self) -> None:
        _check_positive(batch_size=self.batch_size)

    def fixed(self) -> dict[str, Any]:
        """Return what a saved state must agree in."""
        return {"order": "live", "batch_size": self.batch_size} | self.cut()

    def cut(self) -> dict[str, int]:
        """Return how an epoch is cut: there is none."""
        return {}

    def places(self, draws: Integers) -> Integers:
        """Return the places of draws: each its own."""
        return draws

    def batches(self, first: int, last: int) -> Integers:
        """Return the batches `first` to `last` - 1, int64 (last - first, batch_size)."""
        draws = np.arange(first * self.batch_size, last * self.batch_size)
        return draws.reshape(-1, self.batch_size)


def rank_part(batch: NDArray[Any], rank: int, num_ranks: int) -> NDArray[Any]:
    """Return the part of a rank of a batch, or of batches: a slice of the last axis.

    raises  InputError if the ranks cannot share a batch evenly
    """
    part, rest = divmod(batch.shape[-1], num_ranks)
    if rest:
        raise InputError(
            f"batch_size: {batch.shape[-1]} is not divisible by {num_ranks} ranks; choose another"
        )
    return batch[..., rank * part : (rank + 1) * part]


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise InputError(f"{name}: {value} is out of range, allowed is 1 or more")


@lru_cache(maxsize=8)
def _deal(shares: tuple[int, ...], seed: int, block: int) -> Integers:
    """Say which split each draw of a block is of, int64 (4096,)."""
    before, after = (_apportion(shares, (block + turn) * _BLOCK) for turn in (0, 1))
    counts = [b - a for a, b in zip(before, after, strict=True)]
    in_turn = np.repeat(np.arange(len(shares)), counts)
    dealt: Integers = in_turn[shuffle(_BLOCK, round_keys("order 2, block", seed, block))]
    dealt.flags.writeable = False  # the cache hands out this very array
    return dealt


def _apportion(shares: tuple[int, ...], draws: int) -> list[int]:
    """Count the draws of each split by the largest remainder, the first of equal ones first.

    In whole numbers of any length, so that nothing drifts. From a block to the next no count goes
    down, as each share of a block is one draw at least.
    """
    counts, remainders = zip(*(divmod(draws * s, sum(shares)) for s in shares), strict=True)
    largest = sorted(range(len(shares)), key=lambda split: -remainders[split])
    more = set(largest[: draws - sum(counts)])
    return [count + (split in more) for split, count in enumerate(counts)]
