"""A DATA address -> sequences to read: a split that is stored, or rendered as it is asked for."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmgen import errors
from mmgen.config import GeneratorConfig
from mmgen.shard import reader
from mmgen.shard.cache import ShardCache
from mmgen.shard.checks import OtherHash
from mmgen.shard.manifest import Manifest, canonical_json
from mmgen.shard.reader import Split, open_dataset
from mmgen.shard.schema import MASK
from trainer.address import Address, check_named, is_file, is_live, parse_live
from trainer.errors import InputError

if TYPE_CHECKING:
    from mmgen.glyphs import GlyphSet

Truth = dict[str, NDArray[Any]]

LIVE_SEQUENCES = 1000  # as many are looked at where nobody says how many
# Rendered at once: 128 sequences of 20 x 64 x 64 in one call; smaller parts are slower, since
# entering a call costs as much as two sequences.
_RENDERED_BYTES = 16 << 20
_MAX_SHARDS_KEPT = 16
_BESIDE_FRAMES = tuple(f.name for f in fields(reader.Sequence) if f.name != "frames")


class Source(Protocol):
    """The sequences of one split, wherever they come from; threads may read, pickle may copy."""

    address: str
    split: str

    @property
    def sequence_shape(self) -> tuple[int, ...]:
        """(T, H, W) or (T, H, W, 3); T is that of the longest."""

    @property
    def shortest(self) -> int:
        """Frames of the shortest sequence there may be."""

    @property
    def count(self) -> int | None:
        """How many there are; None if there is no end of them."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 that differs where the sequences do."""

    def read(self, indices: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Put sequences (B,) into `out`, uint8 (B, T, H, W), C order; return num_frames (B,)."""

    def truth(self, indices: Iterable[int]) -> list[Truth]:
        """Return what is known of sequences besides their frames, by the names of FORMAT.md."""


class StoredSource:
    """A split of a data set."""

    def __init__(self, address: str, stored: Split) -> None:
        self.address = address
        self.split = stored.name
        self._stored = stored
        self._tables: dict[int, Truth] = {}

    @property
    def manifest(self) -> Manifest:
        """What the data set was made from."""
        return self._stored.manifest

    @property
    def shard_counts(self) -> tuple[int, ...]:
        """Sequences of each shard."""
        return tuple(entry.count for entry in self._stored.entries)

    @property
    def count(self) -> int:
        """How many sequences there are."""
        return len(self._stored)

    @property
    def sequence_shape(self) -> tuple[int, ...]:
        """Shape of a sequence as stored."""
        with self._naming_damage():
            return self._stored.sequence_shape

    @property
    def shortest(self) -> int:
        """Frames of the shortest sequence the config allows.

        It knows without opening every shard; a set without one has sequences of one length.
        """
        frames = (self._stored.manifest.config or {}).get("frames")
        low = str(frames).partition("..")[0]
        stored = self.sequence_shape[0]
        is_short = low.isdecimal() and len(low) < 10  # int() refuses thousands of digits
        return min(int(low), stored) if is_short else stored

    @property
    def fingerprint(self) -> str:
        """Name the very files: a set made again with another seed is another set."""
        hashes = "".join(entry.sha256 for entry in self._stored.entries)
        return hashlib.sha256(hashes.encode()).hexdigest()

    def read(self, indices: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Read and check; ShardError names shard and sequence where either is damaged."""
        with self._naming_damage():
            return self._stored.read(indices.tolist(), out)

    @contextmanager
    def _naming_damage(self) -> Iterator[None]:
        """Say of a shard that is not what the manifest lists which sequences are damaged."""
        try:
            yield
        except OtherHash as error:
            raise errors.ShardError(f"{error}{self._stored.damage(error.entry)}") from error

    def fetch_ahead(self, shards: list[int]) -> None:
        """Fetch shards that are read soon in the background, where they are remote."""
        self._stored.fetch_ahead(shards)

    def truth(self, indices: Iterable[int]) -> list[Truth]:
        """Read annotations.

        Opening a shard takes most of the time for a few, so those of one shard are read together;
        if the split has few enough, whole shards are kept, 10 MB for 8192 sequences.
        """
        places = np.fromiter(indices, np.int64)
        numbers = np.searchsorted(np.cumsum(self.shard_counts), places, "right")
        known: dict[int, Truth] = {}
        with self._naming_damage():
            for number in np.unique(numbers).tolist():
                known |= self._truth_in(number, np.unique(places[numbers == number]))
        return [dict(known[place]) for place in places.tolist()]

    def _truth_in(self, number: int, places: NDArray[np.int64]) -> dict[int, Truth]:
        """Return what is known of some sequences of a shard, by their places in the split."""
        shard = self._stored.shard(number)
        rows = (places - shard.entry.first).tolist()
        if len(self._stored.entries) > _MAX_SHARDS_KEPT:
            table, at = shard.annotations(rows), range(len(rows))
        else:
            if number not in self._tables:
                self._tables[number] = shard.annotations()
            table, at = self._tables[number], rows
        names = [name for name in _BESIDE_FRAMES if name in table]
        known = [{name: table[name][row] for name in names} for row in at]
        if MASK in shard.stored:
            for truth, row in zip(known, rows, strict=True):
                (truth[MASK],) = shard.masks(row, row + 1)
        return dict(zip(places.tolist(), known, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_tables": {}}


class LiveSource:
    """A split that is rendered: sequence i equals sequence i of the stored one, byte for byte."""

    count = None

    def __init__(
        self,
        address: str,
        split: str,
        config: GeneratorConfig,
        seed: int,
        glyphs: "GlyphSet | None" = None,
    ) -> None:
        self.address = address
        self.split = split
        self.config, self.seed = config, seed
        self.glyphs = glyphs  # in place of those that the config names
        self._render(0, None)  # refuses what cannot be rendered before any work

    @property
    def sequence_shape(self) -> tuple[int, ...]:
        """Shape of a sequence."""
        return (self.config.frames.high, *self.config.frame_shape)

    @property
    def shortest(self) -> int:
        """Frames of the shortest sequence that may be drawn."""
        return self.config.frames.low

    @property
    def fingerprint(self) -> str:
        """Name config and seed, and by a few frames the glyphs and the rules of rendering too."""
        asked = canonical_json({"config": self.config.model_dump(), "seed": self.seed})
        frames: NDArray[np.uint8] = self._render(8, None).frames
        return hashlib.sha256(asked.encode() + self.split.encode() + frames.tobytes()).hexdigest()

    def read(self, indices: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Render into `out`."""
        num_frames = np.empty(len(out), np.int32)
        at_once = max(1, _RENDERED_BYTES // math.prod(self.sequence_shape))
        for first in range(0, len(out), at_once):
            part = slice(first, first + at_once)
            num_frames[part] = self._render(indices[part], out[part]).num_frames
        return num_frames

    def truth(self, indices: Iterable[int]) -> list[Truth]:
        """Render once more, with box and visible, as a data set has them."""
        block = self._render(np.fromiter(indices, np.int64), None, ("box", "visible"))
        arrays = {name: getattr(block, name) for name in _BESIDE_FRAMES}
        present = {name: array for name, array in arrays.items() if array is not None}
        return [
            {name: array[row] for name, array in present.items()} for row in range(len(block.index))
        ]

    def _render(
        self,
        indices: NDArray[np.int64] | int,
        out: NDArray[np.uint8] | None,
        truth: tuple[str, ...] = (),
    ) -> Any:
        from mmgen.generate import render  # numba takes a second that stored data need not pay

        try:
            return render(
                self.config,
                indices,
                split=self.split,
                seed=self.seed,
                glyphs=self.glyphs,
                out=out,
                truth=truth,
            )
        except errors.InputError as error:
            raise InputError(f"{self.address}: {error}") from error


class FileSource:
    """The frames of an npy file, such as the published mnist_test_seq.npy; no more is known."""

    split = "test"

    def __init__(self, address: str) -> None:
        from mmgen.imports import open_source as open_file

        self.address = address
        self._file = open_file(Path(address))
        frames = np.memmap(
            address, np.uint8, "r", self._file.offset, _as_stored(self._file.shape, self._file.axes)
        )
        self._frames = frames if self._file.axes == "NTHW" else frames.swapaxes(0, 1)

    @property
    def count(self) -> int:
        """How many sequences there are."""
        return self._file.shape[0]

    @property
    def sequence_shape(self) -> tuple[int, ...]:
        """Shape of each sequence."""
        return self._file.shape[1:]

    @property
    def shortest(self) -> int:
        """All are as long."""
        return self._file.shape[1]

    @property
    def fingerprint(self) -> str:
        """Name the very bytes."""
        return self._file.sha256

    @property
    def is_published(self) -> bool:
        """Whether this is the test set that published results are on."""
        return self._file.is_published

    def read(self, indices: NDArray[np.int64], out: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Copy into `out`."""
        out[:] = self._frames[indices]
        return np.full(len(out), self.shortest, np.int32)

    def truth(self, indices: Iterable[int]) -> list[Truth]:
        """Return that nothing is known but the place."""
        length = np.int32(self.shortest)
        return [
            {"num_frames": np.asarray(length), "index": np.asarray(i, np.int64)} for i in indices
        ]


def _as_stored(shape: tuple[int, ...], axes: str) -> tuple[int, ...]:
    """Return the shape in the file of (N, T, ...)."""
    return shape if axes == "NTHW" else (shape[1], shape[0], *shape[2:])


def open_source(address: Address, split: str, cache: ShardCache | None = None) -> Source:
    """Open a split of DATA, remote shards through a cache; InputError if it is none or lacks it."""
    check_named(address)
    if is_live(address):
        return LiveSource(str(address), split, *parse_live(str(address)))
    if is_file(address):
        raise InputError(
            f"{address}: is a file of frames, which can be scored on; to train, make a data set of "
            "it with `mmgen import`"
        )
    return StoredSource(str(address), open_dataset(address, cache)[split])


def open_scored(address: Address, split: str) -> Source:
    """Open what a model is scored on: a split of DATA, or an npy file, which is a split test."""
    if not is_file(address):
        return open_source(address, split)
    if split != "test":
        raise InputError(f"{address}: is a file of frames, it has no split {split!r}, only test")
    return FileSource(str(address))


def find_source(address: Address, split: str) -> Source | None:
    """Open a split of DATA, None if the data set has no such split."""
    check_named(address)
    if is_live(address):
        return LiveSource(str(address), split, *parse_live(str(address)))
    dataset = open_dataset(address)
    return StoredSource(str(address), dataset[split]) if split in dataset.splits else None


def count_sequences(source: Source, asked: int | None) -> int:
    """Return how many sequences to take: those asked for, or all; InputError if there are fewer.

    asked  None for all, of live data for LIVE_SEQUENCES
    """
    there = source.count
    if asked is None:
        return LIVE_SEQUENCES if there is None else there
    if asked < 1 or (there is not None and asked > there):
        raise InputError(
            f"{source.address}: {asked} sequences asked for, {source.split} has {there}"
        )
    return asked


def check_agreement(sources: Sequence[Source]) -> None:
    """Refuse to mix canvases, or grey with colour."""
    first = sources[0]
    for other in sources[1:]:
        if other.sequence_shape[1:] != first.sequence_shape[1:]:
            raise InputError(
                f"{first.address}: frames are {first.sequence_shape[1:]}, of {other.address} "
                f"{other.sequence_shape[1:]}; only equal ones can be mixed"
            )
