"""A permutation for every size, the same for ever, that looks like chance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.permutation import permute, round_keys, shuffle

AROUND_POWERS = [2**k + d for k in range(12, 18) for d in (-2, -1, 0, 1, 2)]


def permuted(size, number=0, seed=7):
    """Send [0, size) through the permutation of a name, int64 (size,)."""
    names = np.full(size, number, np.uint64)
    return permute(np.arange(size), np.full(size, size), round_keys("test", seed, 0), names)


@pytest.mark.parametrize("sizes", [range(1, 4097, 3), AROUND_POWERS], ids=["small", "near 2**k"])
def test_every_size_is_permuted(sizes):
    for size in sizes:
        assert (np.bincount(permuted(size, size), minlength=size) == 1).all(), size


@given(sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=8), seed=st.integers(0, 2**70))
def test_sizes_and_names_do_not_disturb_each_other(sizes, seed):
    values = np.concatenate([np.arange(size) for size in sizes])
    names = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
    sent = permute(values, np.repeat(sizes, sizes), round_keys("test", seed, 0), names)
    alone = [permuted(size, number, seed) for number, size in enumerate(sizes)]
    assert sent.tolist() == np.concatenate(alone).tolist()


@given(size=st.integers(1, 2**62), value=st.integers(0, 2**62), seed=st.integers(0, 2**63))
def test_any_size_stays_inside(size, value, seed):
    names = np.zeros(1, np.uint64)
    sent = permute(np.array([value % size]), np.array([size]), round_keys("t", seed, 3), names)
    assert 0 <= int(sent[0]) < size


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31])
def test_each_pair_of_values_goes_to_each_pair_of_places_as_often(size):
    """Chi square over its degrees of freedom: about 1 by chance, 16 where rounds are too few."""
    names = np.arange(10_000, dtype=np.uint64)
    sizes, keys = np.full(10_000, size), round_keys("test", 0, 0)
    first, second = (permute(np.full(10_000, i), sizes, keys, names) for i in (0, 1))
    pairs = np.bincount(first * size + second, minlength=size**2).reshape(size, size)
    assert not pairs.diagonal().any()
    counts = pairs[~np.eye(size, dtype=bool)]
    free, expected = len(counts) - 1, counts.mean()
    square = ((counts - expected) ** 2 / expected).sum() / free
    assert square < 1 + 5 * (2 / free) ** 0.5


def test_short_lists_are_shuffled():
    for size in (0, 1, 2, 1000):
        assert sorted(shuffle(size, round_keys("test", 0, size))) == list(range(size))
    firsts = [shuffle(4, round_keys("test", 0, number))[0] for number in range(4000)]
    assert abs(np.bincount(firsts) - 1000).max() < 5 * 750**0.5


def test_permutations_are_frozen():
    assert permuted(11).tolist() == GOLDEN_PERMUTED
    assert shuffle(11, round_keys("test", 7, 0)).tolist() == GOLDEN_SHUFFLED


GOLDEN_PERMUTED = [4, 1, 6, 7, 3, 10, 8, 5, 0, 2, 9]
GOLDEN_SHUFFLED = [1, 2, 10, 0, 4, 3, 8, 6, 9, 5, 7]
