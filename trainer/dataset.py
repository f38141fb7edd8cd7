"""The sequences of a split as a map-style dataset, for anybody's sampler and DataLoader."""

from collections.abc import Sequence
from operator import index as as_integer

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainer.address import Address
from trainer.errors import InputError
from trainer.source import Truth, open_source

Item = tuple[Tensor, dict[str, Tensor]]


class SequenceDataset(Dataset[Item]):
    """`dataset[i]` is sequence i: its frames, and what is known of it.

    data           a DATA address
    num_sequences  the first ones; all if None, which live data, having no end, cannot give
    annotations    False leaves only num_frames and index: from many shards in random order the
                   others take much longer than the frames
    [i]            frames uint8 (T, H, W) or (T, H, W, 3), zero past num_frames, and a dict of
                   tensors by the names of FORMAT.md: num_frames, index, and what the set has of
                   label, glyph_index, position, velocity, angle, scale, box, visible, bounced, mask

    Nothing in an item is None, so torch's own collate function makes batches of it. It pickles, and
    may be read in the workers of a DataLoader whether they are forked or spawned.
    """

    def __init__(
        self,
        data: Address,
        split: str = "train",
        *,
        num_sequences: int | None = None,
        annotations: bool = True,
    ) -> None:
        self._source = open_source(data, split)
        count = self._source.count
        if num_sequences is None and count is None:
            raise InputError(f"{data}: has no end; say how many with num_sequences")
        if num_sequences is not None and not 0 < num_sequences <= (count or num_sequences):
            raise InputError(f"{data}: {num_sequences} sequences asked for, {split} has {count}")
        self._annotations = annotations
        self._count = num_sequences or count or 0

    @property
    def sequence_shape(self) -> tuple[int, ...]:
        """(T, H, W) or (T, H, W, 3)."""
        return self._source.sequence_shape

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Item:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Return several items, read in one go: a DataLoader asks so for its batches."""
        places = np.array([self._place(index) for index in indices], np.int64)
        frames = np.empty((len(places), *self.sequence_shape), np.uint8)
        num_frames = self._source.read(places, frames)
        truth: list[Truth] = (
            self._source.truth(places.tolist())
            if self._annotations
            else [{"num_frames": n, "index": i} for n, i in zip(num_frames, places, strict=True)]
        )
        return [
            (torch.from_numpy(one), _as_tensors(known))
            for one, known in zip(frames, truth, strict=True)
        ]

    def _place(self, index: int) -> int:
        place = as_integer(index)
        if not -self._count <= place < self._count:
            raise IndexError(f"sequence {place} of {self._count}")
        return place % self._count


def _as_tensors(known: Truth) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in known.items()}
