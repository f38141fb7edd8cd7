"""Permutations that a key names: the chance in the order of the sequences, and nothing else.

The same for every version of numpy: hashes of whole numbers, no random generator.
"""

import hashlib
from typing import cast

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]

_ROUNDS = 8
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_POWERS = np.uint64(1) << np.arange(64, dtype=np.uint64)


def round_keys(purpose: str, seed: int, number: int) -> Words:
    """Derive the keys of one permutation, uint64 (8,)."""
    digest = hashlib.blake2b(f"{purpose}, {seed}, {number}".encode(), digest_size=8 * _ROUNDS)
    return np.frombuffer(digest.digest(), "<u8").astype(np.uint64)


def shuffle(size: int, keys: Words) -> Integers:
    """Return [0, size) sorted by hash, int64 (size,): a list, so for short ones."""
    hashes = _mix(_mix(np.arange(size, dtype=np.uint64) ^ keys[0]) ^ keys[1])
    return np.argsort(hashes, kind="stable").astype(np.int64, copy=False)


def permute(values: Integers, sizes: Integers, keys: Words, names: Words) -> Integers:
    """Send each value, in [0, size), through a permutation of [0, size); all (B,).

    One value at a time, whatever the size: an 8-round Feistel network over the bits that hold
    the size, which walks a cycle until it is back inside, less than two turns on average.

    keys  uint64 (8,)      names  uint64 (B,): permutations of different names are unrelated
    """
    bits = np.searchsorted(_POWERS, sizes.astype(np.uint64)).astype(np.uint64)  # none for size 1
    bits[bits == 3] = 4  # 8 rounds on 1 + 2 bits: chi2 of pairs is 6 to 16 times that of chance
    low_bits = (bits + np.uint64(1)) >> np.uint64(1)
    high_mask, low_mask = _POWERS[bits - low_bits] - np.uint64(1), _POWERS[low_bits] - np.uint64(1)
    network = np.stack([low_bits, high_mask, low_mask, _mix(names)])
    sent = _feistel(values.astype(np.uint64), network, keys)
    limits = sizes.astype(np.uint64)
    while len(outside := np.flatnonzero(sent >= limits)):
        sent[outside] = _feistel(sent[outside], network[:, outside], keys)
    return sent.astype(np.int64)


def _feistel(values: Words, network: Words, keys: Words) -> Words:
    low_bits, high_mask, low_mask, salt = network
    high, low = values >> low_bits, values & low_mask
    for key, other_key in keys.reshape(-1, 2):
        high = high ^ (_mix(low ^ salt ^ key) & high_mask)
        low = low ^ (_mix(high ^ salt ^ other_key) & low_mask)
    return cast(Words, (high << low_bits) | low)


def _mix(words: Words) -> Words:
    """Hash each word: the end of splitmix64."""
    words = (words ^ (words >> np.uint64(30))) * _MIX_1
    words = (words ^ (words >> np.uint64(27))) * _MIX_2
    return words ^ (words >> np.uint64(31))
