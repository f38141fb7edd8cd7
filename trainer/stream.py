"""Shards -> batches of uint8 frames, in the order of `order.py`, read ahead in the background.

Frames stay uint8 until they are on the device: a quarter of the bytes to move.
"""

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmgen.shard.reader import Split, open_dataset
from trainer.errors import InputError
from trainer.order import batch_indices, batches_per_epoch

_BATCHES_AHEAD = 3


@dataclass(frozen=True)
class Batch:
    """B sequences.

    frames  uint8 (B, T, H, W) or (B, T, H, W, 3), zero past num_frames
    num_frames  int32 (B,)      index  int64 (B,), places in the split
    """

    frames: Tensor
    num_frames: Tensor
    index: Tensor


class SequenceStream:
    """Endless shuffled batches of a split: iterate, and save or load `state_dict` at any batch.

    data        a data set folder
    batch_size  sequences a batch; the set must hold as many
    seed        of the order
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | Split,
        batch_size: int,
        *,
        split: str = "train",
        seed: int = 0,
    ) -> None:
        self.split = data if isinstance(data, Split) else open_dataset(data)[split]
        self.batch_size = batch_size
        self.seed = seed
        self.step = 0
        batches_per_epoch(len(self.split), batch_size)

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs: the batches handed out, and what fixes their order."""
        return {"step": self.step} | self._fixed()

    def _fixed(self) -> dict[str, Any]:
        return {
            "order": 1,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "num_sequences": len(self.split),
            "shards_sha256": self._shards_sha256(),
        }

    def _shards_sha256(self) -> str:
        """Name the very files: a set made again with another seed is another set."""
        hashes = "".join(entry.sha256 for entry in self.split.entries)
        return hashlib.sha256(hashes.encode()).hexdigest()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the batches already handed out, from the next `iter` on.

        raises  InputError if the order would differ
        """
        if state.get("shards_sha256") != self._shards_sha256():
            raise InputError(f"{self.split.root}: is not the data set that the saved state is of")
        for name, value in self._fixed().items():
            if state.get(name) != value:
                raise InputError(
                    f"the stream's {name} is {state.get(name)} in the saved state, {value} here"
                )
        self.step = state["step"]

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield batches from the current step on, for ever; one iterator at a time."""
        with ThreadPoolExecutor(1, thread_name_prefix="shards") as reader:
            waiting: deque[Future[Batch]] = deque()
            try:
                while True:
                    while len(waiting) < _BATCHES_AHEAD:
                        waiting.append(reader.submit(self._read, self.step + len(waiting)))
                    batch = waiting.popleft().result()
                    self.step += 1
                    yield batch
            finally:
                reader.shutdown(cancel_futures=True)

    def _read(self, step: int) -> Batch:
        indices = batch_indices(
            step, num_sequences=len(self.split), batch_size=self.batch_size, seed=self.seed
        )
        return read_batch(self.split, indices)


def read_batch(split: Split, indices: NDArray[np.int64]) -> Batch:
    """Read the sequences at `indices`, int64 (B,), of a split."""
    frames = np.empty((len(indices), *split.sequence_shape), np.uint8)
    num_frames = split.read(indices.tolist(), frames)
    return Batch(torch.from_numpy(frames), torch.from_numpy(num_frames), torch.from_numpy(indices))


def in_order(split: Split, num_sequences: int, batch_size: int) -> Iterator[Batch]:
    """Yield the first sequences of a split in their own order; the last batch may be smaller."""
    for first in range(0, num_sequences, batch_size):
        yield read_batch(split, np.arange(first, min(first + batch_size, num_sequences)))
