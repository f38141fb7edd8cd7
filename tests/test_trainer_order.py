"""The order of an epoch is a permutation, a pure function, and looks like chance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import InputError
from trainer.order import batch_indices, batches_per_epoch, epoch_keys, permute

AROUND_POWERS = [4**k + d for k in range(1, 9) for d in (-2, -1, 0, 1, 2)]
seeds = st.integers(0, 2**63 - 1)


def whole_epoch(epoch, num_sequences, batch_size, seed=0):
    batches = num_sequences // batch_size
    sizes = {"num_sequences": num_sequences, "batch_size": batch_size, "seed": seed}
    steps = range(epoch * batches, (epoch + 1) * batches)
    return np.concatenate([batch_indices(step, **sizes) for step in steps])


@pytest.mark.parametrize("sizes", [range(1, 301), AROUND_POWERS], ids=["small", "near 4**k"])
def test_every_size_is_permuted(sizes):
    for size in sizes:
        placed = permute(np.arange(size, dtype=np.uint64), size, epoch_keys(7, size))
        assert (np.bincount(placed.astype(np.int64), minlength=size) == 1).all(), size


@given(size=st.integers(1, 2**62), place=st.integers(0, 2**62), seed=seeds)
def test_any_size_stays_inside(size, place, seed):
    placed = permute(np.array([place % size], np.uint64), size, epoch_keys(seed, 3))
    assert 0 <= int(placed[0]) < size


@given(num_sequences=st.integers(1, 120), batch_size=st.integers(1, 30), seed=seeds)
def test_an_epoch_has_each_sequence_at_most_once_and_all_but_the_remainder(
    num_sequences, batch_size, seed
):
    if num_sequences < batch_size:
        return
    for epoch in (0, 1, 5):
        seen = whole_epoch(epoch, num_sequences, batch_size, seed)
        assert len(seen) == num_sequences - num_sequences % batch_size == len(set(seen.tolist()))
        assert 0 <= seen.min() <= seen.max() < num_sequences


def test_order_is_frozen():
    """Another order would make every saved run end elsewhere: `order` in state_dict must change."""
    sizes = {"num_sequences": 1000, "batch_size": 8, "seed": 0}
    assert batch_indices(0, **sizes).tolist() == GOLDEN[0]
    assert batch_indices(126, **sizes).tolist() == GOLDEN[126]
    assert batch_indices(126, **sizes).dtype == np.int64


GOLDEN = {0: [972, 126, 638, 541, 12, 719, 183, 535], 126: [384, 881, 282, 305, 104, 463, 313, 43]}


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [whole_epoch(e, 100, 10, seed).tolist() for e in range(4) for seed in (0, 1, 2**40)]
    assert len({tuple(order) for order in orders}) == len(orders)
    left_out = [set(range(22)) - set(whole_epoch(e, 22, 4).tolist()) for e in range(100)]
    assert set().union(*left_out) == set(range(22))  # nobody is left out for ever


def test_neighbours_have_nothing_to_do_with_each_other():
    for epoch in range(5):
        order = whole_epoch(epoch, 4096, 32)
        for one, other in ((order[:-1], order[1:]), (np.arange(4096), order)):
            assert abs(np.corrcoef(one, other)[0, 1]) < 4 / 64  # four standard deviations


def test_a_set_smaller_than_a_batch_is_refused():
    with pytest.raises(InputError, match=r"^batch_size: 9 is more than the 8 sequences there are"):
        batches_per_epoch(8, 9)
    assert batches_per_epoch(8, 8) == 1
