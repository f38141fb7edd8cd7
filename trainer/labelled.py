"""What a classifier learns from: images of MNIST read row by row, or the sequences of DATA.

A sequence of one digit belongs to that digit's class. Where there may be more digits, any subset of
the classes can be present, and each of them is a question of its own.

Letters: B batch, T frames or rows, K digits a sequence, C classes.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.address import Address
from trainer.errors import InputError
from trainer.source import LIVE_SEQUENCES, Source, open_source
from trainer.stream import SequenceStream, in_order

_LOOKED_AT = 64  # sequences whose labels are checked before any work


class Labelled(NamedTuple):
    """B sequences and what they show.

    frames  uint8 (B, T, ...)      num_frames  integers (B,)
    target  int64 (B,), the class; or float32 (B, C), 1 where a class is present and 0 elsewhere
    """

    frames: Tensor
    num_frames: Tensor
    target: Tensor

    def to(self, device: torch.device) -> "Labelled":
        """Copy to a device."""
        return Labelled(*(part.to(device) for part in self))


class Examples(Protocol):
    """Labelled sequences to train on, and others to test on."""

    name: str

    @property
    def num_values(self) -> int:
        """Values of a frame."""

    @property
    def num_train(self) -> int | None:
        """Sequences to train on; None if there is no end of them."""

    @property
    def num_test(self) -> int:
        """Sequences to test on."""

    @property
    def has_one(self) -> bool:
        """Whether each sequence shows one class, or any number of them."""

    def train(self, batch_size: int, seed: int) -> Iterator[Labelled]:
        """Yield batches in an order that the seed fixes, for ever."""

    def test(self, batch_size: int) -> Iterator[Labelled]:
        """Yield each test sequence once, in order."""


class Rows:
    """The shipped MNIST images, 28 rows of 28 px each: all 60 000 of train, and the test images.

    Moving MNIST's own val, the last 5 000 of them, is trained on as well: that is the protocol of
    the 2020 tutorial, and nothing here is chosen by val.
    """

    name = "rows of MNIST"
    has_one = True

    def __init__(self, num_classes: int) -> None:
        from mmgen.glyphs import load_glyphs  # reads files only: no numba

        glyphs = load_glyphs("mnist")
        first_test = glyphs.splits["test"][0]
        target = _targets(glyphs.labels[:, None], num_classes, self.name)
        images = torch.from_numpy(glyphs.images)
        self._train = images[:first_test], target[:first_test]
        self._test = images[first_test:], target[first_test:]
        self.num_values = images.shape[2]
        self.num_train, self.num_test = (len(part[1]) for part in (self._train, self._test))

    def train(self, batch_size: int, seed: int) -> Iterator[Labelled]:
        """Yield batches, each image at most once an epoch; what is left of one is left out."""
        generator = torch.Generator().manual_seed(seed)
        images, target = self._train
        while True:
            order = torch.randperm(self.num_train, generator=generator)
            for first in range(0, self.num_train - batch_size + 1, batch_size):
                yield _as_rows(images, target, order[first : first + batch_size])

    def test(self, batch_size: int) -> Iterator[Labelled]:
        """Yield the test images in order."""
        for first in range(0, self.num_test, batch_size):
            last = min(first + batch_size, self.num_test)
            yield _as_rows(*self._test, torch.arange(first, last))


def _as_rows(images: Tensor, target: Tensor, places: Tensor) -> Labelled:
    chosen = images[places]
    return Labelled(chosen, torch.full((len(chosen),), chosen.shape[1]), target[places])


class Sequences:
    """The splits train and test of a DATA address, frame by frame.

    Live data have no end: their first 1000 test sequences are tested on, and every seed trains on
    the same ones of train in the same order.
    """

    def __init__(self, data: Address, num_classes: int) -> None:
        self.name = str(data)
        self._classes = num_classes
        self._sources = {split: open_source(data, split) for split in ("train", "test")}
        # The labels of many are looked at, so that those that do not fit are known before any work.
        looked = [self._look(source) for source in self._sources.values()]
        self.has_one = all(labels.shape[1] == 1 for labels in looked)
        self.num_train = self._sources["train"].count
        test = self._sources["test"].count
        self.num_test = LIVE_SEQUENCES if test is None else test
        self.num_values = int(np.prod(self._sources["train"].sequence_shape[1:]))

    def train(self, batch_size: int, seed: int) -> Iterator[Labelled]:
        """Yield batches of train, as a SequenceStream has them."""
        stream = SequenceStream(self.name, batch_size, seed=seed)
        for batch in stream:
            target = self._target(stream.sources[0], batch.index)
            yield Labelled(batch.frames, batch.num_frames, target)

    def test(self, batch_size: int) -> Iterator[Labelled]:
        """Yield the sequences of test in order."""
        source = self._sources["test"]
        for batch in in_order(source, self.num_test, batch_size):
            target = self._target(source, batch.index)
            yield Labelled(batch.frames, batch.num_frames, target)

    def _look(self, source: Source) -> NDArray[np.int16]:
        """Return the labels (N, K) of the first sequences of a split, if it has any that fit."""
        count = min(source.count or _LOOKED_AT, _LOOKED_AT)
        truth = source.truth(range(count))
        if "label" not in truth[0]:
            raise InputError(
                f"{self.name}: has no labels to learn; name a set made by `mmgen generate`"
            )
        labels = np.stack([known["label"] for known in truth])
        _targets(labels, self._classes, self.name)
        return labels

    def _target(self, source: Source, index: Tensor) -> Tensor:
        labels = np.stack([known["label"] for known in source.truth(index.tolist())])
        return _targets(labels, self._classes, self.name)


def _targets(labels: NDArray[np.integer[Any]], num_classes: int, where: str) -> Tensor:
    """Return what sequences show: classes (B,) where K is 1, else which are present (B, C).

    labels  integers (B, K), -1 where a sequence has fewer digits than the largest
    raises  InputError for a label that is no class
    """
    if labels.max() >= num_classes:
        raise InputError(
            f"{where}: holds the label {labels.max()}; set num_classes={labels.max() + 1} or more"
        )
    if labels.shape[1] == 1:
        return torch.from_numpy(labels[:, 0].astype(np.int64))
    is_present = (labels[..., None] == np.arange(num_classes)).any(1)
    return torch.from_numpy(is_present.astype(np.float32))
