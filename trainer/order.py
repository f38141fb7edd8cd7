"""Which sequences make up which batch: pure functions of the seed, the sizes and the step.

An epoch's order is a keyed permutation evaluated place by place, so any batch is found without
making a list of the set and without any state but the step: an 8-round Feistel network over the
smallest even number of bits that holds the set, walking each cycle until it is back inside.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from trainer.errors import InputError

_ROUNDS = 8
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def batch_indices(
    step: int, *, num_sequences: int, batch_size: int, seed: int
) -> NDArray[np.int64]:
    """Return the sequences of global batch `step`, int64 (batch_size,).

    No sequence comes twice in an epoch; the num_sequences % batch_size that do not fill a batch are
    left out, others each epoch.

    raises  InputError if the set is smaller than a batch
    """
    batches = batches_per_epoch(num_sequences, batch_size)
    epoch, batch = divmod(step, batches)
    places = np.arange(batch * batch_size, (batch + 1) * batch_size, dtype=np.uint64)
    return permute(places, num_sequences, epoch_keys(seed, epoch)).astype(np.int64)


def batches_per_epoch(num_sequences: int, batch_size: int) -> int:
    """Return how many whole batches an epoch has."""
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} is out of range, allowed is 1 or more")
    if num_sequences < batch_size:
        raise InputError(
            f"batch_size: {batch_size} is more than the {num_sequences} sequences there are; "
            "lower batch_size or generate more"
        )
    return num_sequences // batch_size


def epoch_keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    """Derive the round keys of an epoch, uint64 (8,)."""
    digest = hashlib.blake2b(f"order 1, {seed}, {epoch}".encode(), digest_size=8 * _ROUNDS)
    return np.frombuffer(digest.digest(), "<u8").astype(np.uint64)


def permute(places: NDArray[np.uint64], size: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Send places in [0, size) through a permutation of [0, size); uint64 in and out."""
    half = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
    mask = (np.uint64(1) << half) - np.uint64(1)
    values = _feistel(places, half, mask, keys)
    while (outside := values >= size).any():
        values[outside] = _feistel(values[outside], half, mask, keys)
    return values


def _feistel(
    values: NDArray[np.uint64], half: np.uint64, mask: np.uint64, keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    left, right = values >> half, values & mask
    for key in keys:
        mixed = right ^ key
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
        left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(31))) & mask)
    return (left << half) | right
