"""The order is a pure function: each sequence at most once an epoch, for any sizes and ranks."""

import hashlib
import pickle
import time
import tracemalloc
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from trainer.errors import InputError
from trainer.order import InOrder, Mixture, Order, rank_part

seeds = st.integers(0, 2**63 - 1)
MILLION = (8192,) * 122 + (576,)


@st.composite
def orders(draw):
    """Orders of uneven shards, of one, of shards of one sequence; windows longer than lanes."""
    largest = draw(st.sampled_from([1, 2, 7, 40]))
    counts = tuple(draw(st.lists(st.integers(1, largest), min_size=1, max_size=70)))
    batch_size = draw(st.integers(1, sum(counts)) | st.just(1) | st.just(sum(counts)))
    assume(sum(counts) // batch_size < 300)  # steps of an epoch, for speed
    lanes, window = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    return Order(counts, batch_size, draw(seeds), lanes, window)


def epoch_of(order, epoch):
    """Return the batches of an epoch, int64 (batches, G)."""
    per_epoch = order.batches_per_epoch
    return order.batches(epoch * per_epoch, (epoch + 1) * per_epoch)


def shard_of(order, places):
    return np.searchsorted(np.cumsum(order.shard_counts), places, side="right")


@given(order=orders(), epoch=st.sampled_from([0, 1, 2, 1000]))
@example(order=Order((5,), 5, 0), epoch=0)
@example(order=Order((1,) * 70, 3, 0, lanes=8, window_shards=1), epoch=3)
def test_an_epoch_has_each_sequence_at_most_once_and_all_but_the_remainder(order, epoch):
    seen = epoch_of(order, epoch)
    total = order.num_sequences
    assert seen.dtype == np.int64
    assert seen.size == len(np.unique(seen)) == total - total % order.batch_size
    assert 0 <= seen.min() <= seen.max() < total


@given(order=orders(), epoch=st.integers(0, 5))
def test_the_order_behind_it_leaves_nothing_out(order, epoch):
    size = order.num_sequences
    draws = np.arange(epoch * size - size // 2 * (epoch > 0), (epoch + 1) * size)
    assert np.array_equal(np.sort(order.places(draws)[-size:]), np.arange(size))


@given(order=orders(), data=st.data())
def test_any_part_is_the_same_part_of_the_whole(order, data):
    """Resuming at a step, with other batches read at once, gives the tail of the same order."""
    start = data.draw(st.integers(0, 2 * order.batches_per_epoch))
    cuts = sorted(data.draw(st.lists(st.integers(start, start + 20), max_size=4)))
    whole = order.batches(start, start + 20)
    parts = [order.batches(a, b) for a, b in pairwise([start, *cuts, start + 20])]
    assert np.array_equal(np.concatenate(parts), whole)
    fresh = pickle.loads(pickle.dumps(order))
    assert fresh == order
    assert np.array_equal(fresh.batches(start + 19, start + 20), whole[-1:])


@given(order=orders(), num_ranks=st.sampled_from([1, 2, 3, 4, 8, 16]))
def test_ranks_together_have_the_batches_of_one_rank(order, num_ranks):
    batches = order.batches(0, 5)
    if order.batch_size % num_ranks:
        with pytest.raises(InputError, match=f"is not divisible by {num_ranks} ranks"):
            rank_part(batches, 0, num_ranks)
        return
    parts = [rank_part(batches, rank, num_ranks) for rank in range(num_ranks)]
    assert {part.shape for part in parts} == {(5, order.batch_size // num_ranks)}
    assert np.array_equal(np.concatenate(parts, axis=-1), batches)


def fetches(order, batches, num_kept):
    """Count how often each shard is fetched for batches, which need not be of one length.

    A cache keeps `num_kept` shards; the one used longest ago makes room.
    """
    kept, count = {}, np.zeros(len(order.shard_counts), int)
    for batch in batches:
        for shard in set(shard_of(order, batch).tolist()):
            count[shard] += shard not in kept
            kept.pop(shard, None)
            kept[shard] = True
            if len(kept) > num_kept:
                del kept[next(iter(kept))]
    return count


@pytest.mark.parametrize("num_ranks", [1, 8])
@pytest.mark.parametrize(
    ("order", "touched"),
    [
        (Order(MILLION, 128, 0), 5),
        (Order((64,) * 300 + (9,), 16, 1), 5),
        (Order((64,) * 300 + (9,), 128, 2), 5),
        (Order((40, 64, 55) * 100, 8, 3), 6),
    ],
    ids=["million", "small", "large-batches", "uneven"],
)
def test_each_shard_is_fetched_once_an_epoch_and_ranks_share_only_borders(
    order, touched, num_ranks
):
    """A lane keeps the shards that its window touches, and as many that it is done with."""
    batches = epoch_of(order, 0)
    of_ranks = [
        fetches(order, rank_part(batches, rank, num_ranks), 8 * 2 * touched // num_ranks)
        for rank in range(num_ranks)
    ]
    assert max(count.max() for count in of_ranks) == 1
    assert np.sum(of_ranks, axis=0).min() == 1
    assert np.sum(of_ranks) <= len(order.shard_counts) + num_ranks - 1


def test_64_shards_are_enough_also_where_a_batch_does_not_reach_every_lane():
    order = Order((64,) * 301, 3, 0)
    assert fetches(order, epoch_of(order, 0), 64).max() == 1


def test_a_set_of_a_few_windows_is_permuted_as_a_whole():
    order = Order((100,) * 32, 8, 0)
    assert order.fixed() == {
        "order": 2,
        "seed": 0,
        "batch_size": 8,
        "lanes": 1,
        "window": 3200,
        "num_sequences": 3200,
    }
    assert set(shard_of(order, order.batches(0, 64)).ravel().tolist()) == set(range(32))
    larger = Order((100,) * 33, 8, 0).fixed()
    assert (larger["lanes"], larger["window"]) == (8, 400)


@pytest.mark.parametrize("name", ["batch_size", "lanes", "window_shards"])
def test_sizes_out_of_range_are_refused(name):
    with pytest.raises(InputError, match=rf"^{name}: 0 is out of range, allowed is 1 or more$"):
        Order((8,), **({"batch_size": 4, "seed": 0} | {name: 0}))


def test_a_set_smaller_than_a_batch_is_refused():
    with pytest.raises(InputError, match=r"^batch_size: 9 is more than the 8 sequences there are"):
        Order((5, 3), 9, 0)
    assert Order((5, 3), 8, 0).batches_per_epoch == 1


def test_order_is_frozen():
    """Another order would make every saved run end elsewhere: its number must change with it."""
    found = {
        "whole": hashlib.sha256(Order((60, 40), 8, 0).batches(0, 60).tobytes()).hexdigest()[:16],
        "lanes": hashlib.sha256(Order(MILLION, 96, 1).batches(10_400, 10_500)).hexdigest()[:16],
        "mixture": hashlib.sha256(np.stack(mixture().batches(0, 2000))).hexdigest()[:16],
        "first": Order((60, 40), 8, 0).batches(0, 1)[0].tolist(),
    }
    assert found == GOLDEN


GOLDEN = {
    "whole": "911d160d66031102",
    "lanes": "28be9305d548a7f7",
    "mixture": "a5c2f5313c78e2a0",
    "first": [44, 51, 25, 48, 56, 18, 94, 72],
}


def test_a_hundred_million_sequences_cost_their_shards_alone():
    counts = (8192,) * 12_207 + (256,)
    assert sum(counts) == 100_000_000
    tracemalloc.start()
    try:
        order = Order(counts, 128, 0)
        order.batches(0, 16)
        start = time.perf_counter()
        late = order.batches(7_000_000, 7_000_001)
        took = time.perf_counter() - start
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert took < 0.1  # measured: 4 ms
    assert peak < 4e6  # measured: 1.1 MB
    assert len(np.unique(shard_of(order, late[0]))) <= 8 * 5


def test_batches_differ_as_those_of_a_full_permutation():
    """The row inside a shard is as random; the shards are those of the open windows."""
    order = Order(MILLION, 128, 3)
    full = np.random.default_rng(0).permutation(order.num_sequences)[: 7812 * 128]
    measured = [measure(order, places) for places in (epoch_of(order, 1), full.reshape(-1, 128))]
    (spread, neighbours, shards), (full_spread, full_neighbours, full_shards) = measured
    assert 0.95 < spread / full_spread < 1.1
    assert abs(neighbours) < 0.01
    assert abs(full_neighbours) < 0.01
    assert shards > 28
    assert 75 < full_shards < 85


def measure(order, places):
    """Find how batch means of the row spread, how neighbours correlate, how many shards meet."""
    shards = shard_of(order, places)
    rows = places - np.cumsum((0, *order.shard_counts))[shards]
    neighbours = np.corrcoef(rows.ravel()[:-1], rows.ravel()[1:])[0, 1]
    return rows.mean(1).std(), neighbours, np.mean([len(set(batch)) for batch in shards[::50]])


@pytest.mark.parametrize(
    "order",
    [Order((16,) * 60, 1, 3, 4, 2), Order((7, 1, 30, 3) * 20, 1, 3, 8, 1), Order((100,), 1, 3)],
    ids=["lanes", "uneven", "whole"],
)
def test_a_sequence_comes_anywhere_in_an_epoch_and_elsewhere_in_the_next(order):
    size = order.num_sequences
    at = np.empty((500, size))
    for epoch in range(500):
        at[epoch, order.places(np.arange(epoch * size, (epoch + 1) * size))] = np.arange(size)
    tenths = np.stack([(at * 10 // size == tenth).sum(0) for tenth in range(10)])
    square = ((tenths - 50) ** 2 / 50).sum(0)
    assert 7 < square.mean() < 11  # 9 by chance, 12 if windows began at the same row each epoch
    assert abs(np.corrcoef(at[:-1].ravel(), at[1:].ravel())[0, 1]) < 0.02


def test_every_sequence_is_left_out_at_times():
    order = Order((4,) * 12, 25, 0, 2, 1)
    missing = [set(range(48)) - set(epoch_of(order, epoch)[0].tolist()) for epoch in range(60)]
    assert set().union(*missing) == set(range(48))
    assert len({frozenset(left) for left in missing}) == 60


def mixture(weights=(0.7, 0.3), batch_size=8, seed=0, sizes=((60, 40), (9,) * 50)):
    return Mixture.of(sizes[: len(weights)], weights, batch_size, seed)


WEIGHTS = [(0.7, 0.3), (1, 1, 1), (1e-3, 1), (5,), (0.1, 0.2, 0.3, 1e-2), (1, 4095)]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_hold_exactly_and_never_drift(weights):
    mixed = mixture(weights, 4096, sizes=[(10_000,)] * len(weights))
    exact = [Fraction(str(weight)) for weight in weights]
    drawn = np.zeros(len(weights), np.int64)
    for step in range(50):
        source, _ = mixed.batches(step, step + 1)
        drawn += np.bincount(source[0], minlength=len(weights))
        ideal = [(step + 1) * 4096 * weight / sum(exact) for weight in exact]
        assert all(abs(int(n) - share) < 1 for n, share in zip(drawn, ideal, strict=True)), step
    source, _ = mixed.batches(10**12, 10**12 + 1)
    late = np.bincount(source[0], minlength=len(weights)).tolist()
    assert all(abs(n - 4096 * w / sum(exact)) < 2 for n, w in zip(late, exact, strict=True))


@given(
    weights=st.sampled_from(WEIGHTS[:4]), batch_size=st.integers(1, 300), seed=seeds, data=st.data()
)
def test_each_split_keeps_its_own_endless_order(weights, batch_size, seed, data):
    mixed = mixture(weights, batch_size, seed, sizes=[(60, 40), (9,) * 50, (33,)])
    steps = data.draw(st.integers(1, 20))
    source, index = mixed.batches(0, steps)
    assert source.shape == index.shape == (steps, batch_size)
    for number, order in enumerate(mixed.orders):
        mine = index[source == number]
        assert np.array_equal(mine, order.places(np.arange(len(mine))))
    first = data.draw(st.integers(0, steps - 1))
    for whole, part in zip((source, index), mixed.batches(first, steps), strict=True):
        assert np.array_equal(part, whole[first:])


@pytest.mark.parametrize("batch_size", [7, 256])
def test_a_mixture_fetches_each_shard_once_an_epoch(batch_size):
    mixed = mixture((0.7, 0.3), batch_size, sizes=[(64,) * 300, (20,) * 400])
    source, index = mixed.batches(0, 26_000 // batch_size)  # not yet an epoch of either
    for number, order in enumerate(mixed.orders):
        batches = [row[whose == number] for row, whose in zip(index, source, strict=True)]
        count = fetches(order, batches, 64)
        assert count.max() == 1
        assert count.mean() > 0.9


def test_a_mixture_is_shuffled_inside_its_blocks():
    source, _ = mixture((1, 1), 4096).batches(0, 20)
    assert abs(np.corrcoef(source.ravel()[:-1], source.ravel()[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(source[0], source[1])[0, 1]) < 0.08


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_weights_that_are_none_are_refused(weight):
    with pytest.raises(InputError, match=rf"^weights: {weight} is out of range"):
        mixture((1, weight))


def test_weights_that_cannot_hold_are_refused():
    with pytest.raises(InputError, match=r"^weights: 0\.0002 is less than 1/4096 of their sum"):
        mixture((0.0002, 1))
    with pytest.raises(InputError, match=r"^weights: 1 for 2 data sets"):
        Mixture(mixture().orders, (1,), 4, 0)


def test_splits_of_a_mixture_have_orders_of_their_own():
    mixed = mixture((1, 1), sizes=[(500,), (500,)])
    one, other = (order.batches(0, 20).ravel().tolist() for order in mixed.orders)
    assert one != other
    assert mixed.fixed() == {
        "order": 2,
        "seed": 0,
        "batch_size": 8,
        "weights": [1, 1],
        "splits": [{"lanes": 1, "window": 500, "num_sequences": 500}] * 2,
    }


def test_live_data_comes_in_order():
    order = InOrder(3)
    assert order.batches(2, 4).tolist() == [[6, 7, 8], [9, 10, 11]]
    assert order.fixed() == {"order": "live", "batch_size": 3}
    with pytest.raises(InputError, match=r"^batch_size: 0 is out of range"):
        InOrder(0)
