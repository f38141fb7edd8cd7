"""Plan shards and write one: partial file -> chunks -> annotations -> flush -> rename.

All is packed by the codecs' own libraries, several times faster than HDF5's filters and outside its
lock, and stored as ready-made chunks; any HDF5 program reads them.
"""

import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from uuid import uuid4

import h5py
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from mmgen.errors import MmgenError, ShardError
from mmgen.shard import schema
from mmgen.shard.checks import open_file
from mmgen.shard.codecs import CHECKED, DEFAULT, find_codec, pack_checked
from mmgen.shard.file import damaged_rows
from mmgen.shard.manifest import ShardEntry, SplitEntry, replace_durably

_ANNOTATION_CHUNK_BYTES = 64 << 10
_DAMAGED = "is damaged"
_LOG = logging.getLogger(__name__)


class ShardWriter:
    """A shard in the making; use as a context manager, call `write` in order, then `commit`.

    path            where the shard goes, in a folder that is made if it is missing; until `commit`
                    it has another name that ends in .partial
    num_sequences   N
    sequence_shape  (T, H, W) or (T, H, W, 3)
    num_digits      K
    attributes      root attributes, from `schema.attributes`
    annotations     what is stored beside the frames: names of `schema.ANNOTATIONS`, `num_frames`
                    and `index` among them, and `schema.MASK` where masks are wanted
    codec           how frames are packed, one of `codecs.CODECS`
    raises          ValueError for other annotations, InputError for another codec
    """

    def __init__(
        self,
        path: Path,
        num_sequences: int,
        sequence_shape: tuple[int, ...],
        num_digits: int,
        attributes: Mapping[str, Any],
        annotations: Collection[str] = tuple(schema.ANNOTATIONS),
        codec: str = DEFAULT,
    ) -> None:
        if not {"num_frames", "index"} <= {*annotations} <= {*schema.ANNOTATIONS, schema.MASK}:
            raise ValueError(f"a shard cannot hold just these annotations: {sorted(annotations)}")
        self.path = path
        # Two writers of one shard, on one machine or on several, never share a file.
        self.partial = path.with_name(f"{path.name}.{uuid4().hex[:8]}{schema.PARTIAL_SUFFIX}")
        self.num_sequences = num_sequences
        self.rows_written = 0
        self._codec = find_codec(codec)
        self._checksum = np.zeros(num_sequences, np.uint32)
        self._annotations = {
            name: np.empty(
                (num_sequences, *annotation.shape(sequence_shape[0], num_digits)), annotation.dtype
            )
            for name, annotation in schema.ANNOTATIONS.items()
            if name in annotations
        }
        self._has_mask = schema.MASK in annotations
        self._sequence_shape = sequence_shape
        self._attributes = attributes
        self._lock: BinaryIO | None = None
        self._file: Any = None

    def __enter__(self) -> Self:
        try:
            self._create()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._clear()

    def _create(self) -> None:
        with _naming(self.path):
            self.path.parent.mkdir(exist_ok=True)
            self._lock = self._locked_partial()
        with schema.HDF5_LOCK, _naming(self.path):
            # v110: a file whose writer died refuses to open; older layouts open and read zeros.
            self._file = h5py.File(self.partial, "w", libver=("v110", "v110"), locking=False)
            self._file.attrs.update(self._attributes)
            shape = (self.num_sequences, *self._sequence_shape)
            self._frames = _Pictures(self._file, "frames", shape, self._codec.options)
            if self._has_mask:
                self._masks = _Pictures(self._file, schema.MASK, shape[:4], CHECKED)

    def _locked_partial(self) -> BinaryIO:
        """Make the partial file; the lock on it tells others that its writer lives."""
        while True:
            file = self.partial.open("xb")
            fcntl.flock(file, fcntl.LOCK_EX)
            if self.partial.exists():
                return file
            file.close()  # cleared away before it was locked

    def _clear(self) -> None:
        """Leave nothing of a shard that was not committed."""
        if self._file is not None:
            with schema.HDF5_LOCK, suppress(OSError, RuntimeError):
                self._file.close()  # fails again where a full disk has failed a write
        if self._lock is not None:
            self.partial.unlink(missing_ok=True)  # gone already after a commit
            self._lock.close()

    def write(self, frames: NDArray[np.uint8], annotations: Mapping[str, NDArray[Any]]) -> None:
        """Append sequences.

        frames       uint8 (B, T, H, W) or (B, T, H, W, 3), C order
        annotations  every name that the constructor was told -> array (B, ...)
        raises       MmgenError if the file cannot be written, a full disk for example
        """
        first, last = self.rows_written, self.rows_written + len(frames)
        packed = [[self._codec.pack(part) for part in _cut(sequence)] for sequence in frames]
        for row, chunks in enumerate(packed, first):
            for chunk in chunks:
                self._checksum[row] = isal_zlib.crc32(chunk, int(self._checksum[row]))
        masks = annotations[schema.MASK] if self._has_mask else ()
        packed_masks = [[pack_checked(part) for part in _cut(mask)] for mask in masks]
        with schema.HDF5_LOCK, _naming(self.path):
            for place in range(len(frames)):  # the order in the file is that of the sequences
                self._frames.store(first + place, packed[place])
                if self._has_mask:
                    self._masks.store(first + place, packed_masks[place])
        for name, values in self._annotations.items():
            values[first:last] = annotations[name]
        self.rows_written = last

    def commit(self) -> ShardEntry:
        """Write the annotations, close, and give the file its final name."""
        assert self.rows_written == self.num_sequences, "a shard is committed when it is full"
        assert self._lock is not None, "it is a context manager"
        for name, values in (self._annotations | {schema.CHECKSUM: self._checksum}).items():
            self._write_annotation(name, values)
        with schema.HDF5_LOCK, _naming(self.path):
            self._file.close()
        with _naming(self.path):
            os.fsync(self._lock.fileno())
            index = self._annotations["index"]
            entry = describe_shard(self.partial, int(index[0]), self.num_sequences)
            replace_durably(self.partial, self.path)
        return replace(entry, name=self.path.name)

    def _write_annotation(self, name: str, values: NDArray[Any]) -> None:
        row_bytes = max(1, values.nbytes // len(values))
        step = max(1, min(len(values), _ANNOTATION_CHUNK_BYTES // row_bytes))
        rest = values.shape[1:]
        packed = [pack_checked(part) for part in _equal_parts(values, step)] if values.size else []
        with schema.HDF5_LOCK, _naming(self.path):
            dataset = self._file.create_dataset(
                name, values.shape, values.dtype, chunks=(step, *rest), **CHECKED
            )
            for number, chunk in enumerate(packed):
                dataset.id.write_direct_chunk((number * step, *(0,) * len(rest)), chunk)


class _Pictures:
    """The dataset of frames or of masks: a sequence is a row of chunks, each packed already."""

    def __init__(
        self, file: Any, name: str, shape: tuple[int, ...], options: Mapping[str, Any]
    ) -> None:
        step = schema.chunk_frames(shape[1:])
        self._dataset = file.create_dataset(
            name, shape, np.uint8, chunks=(1, step, *shape[2:]), **options
        )
        self._offsets = [(first, *(0,) * len(shape[2:])) for first in range(0, shape[1], step)]

    def store(self, row: int, chunks: list[bytes]) -> None:
        for offset, chunk in zip(self._offsets, chunks, strict=True):
            self._dataset.id.write_direct_chunk((row, *offset), chunk)


def _cut(sequence: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Cut frames or masks, (T, H, W) or (T, H, W, 3), into chunks."""
    return _equal_parts(sequence, schema.chunk_frames(sequence.shape))


def _equal_parts(values: NDArray[Any], step: int) -> Iterator[NDArray[Any]]:
    """Cut along the first axis; HDF5 stores the last chunk as large as the others."""
    for first in range(0, len(values), step):
        part = values[first : first + step]
        if len(part) < step:
            part = np.concatenate([part, np.zeros((step - len(part), *part.shape[1:]), part.dtype)])
        yield part


def describe_shard(path: Path, first: int, count: int) -> ShardEntry:
    """Measure a complete shard for the manifest."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return ShardEntry(path.name, first, count, path.stat().st_size, digest.hexdigest())


@dataclass(frozen=True)
class PlannedShard:
    """A shard to make or to find: the sequences first..first+count-1 of a split."""

    split: str
    number: int
    first: int
    count: int

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.split}-{self.number:06d}.h5"

    @property
    def relative(self) -> str:
        """Where it lies in its data set, wherever that lies."""
        return f"{self.split}/{self.name}"


def plan_shards(counts: Mapping[str, int], shard_size: int) -> list[PlannedShard]:
    """Cut splits, split -> sequences, into shards; a split of 0 sequences has none."""
    return [
        PlannedShard(split, number, first, min(shard_size, counts[split] - first))
        for split in schema.SPLITS
        if split in counts
        for number, first in enumerate(range(0, counts[split], shard_size))
    ]


def gather_splits(made: Iterable[tuple[PlannedShard, ShardEntry]]) -> dict[str, SplitEntry]:
    """Put together what a manifest says of the splits, from all their shards in order."""
    entries: dict[str, list[ShardEntry]] = {}
    for planned, entry in made:
        entries.setdefault(planned.split, []).append(entry)
    return {
        split: SplitEntry(sum(entry.count for entry in shards), tuple(shards))
        for split, shards in entries.items()
    }


def find_shard(
    path: Path,
    planned: PlannedShard,
    attributes: Mapping[str, Any],
    known: ShardEntry | None,
) -> ShardEntry | None:
    """Measure the shard that a resumed writer finds; None if it is to be made: missing, or damaged.

    known   what an earlier writer vouched for
    raises  ShardError if this writer would have made another
    """
    if not path.exists():
        return None
    if not path.is_file():  # a pipe would be waited for without end
        raise ShardError(f"{path}: is no file; delete it, or overwrite the data set")
    found = describe_shard(path, planned.first, planned.count)
    if found == known:
        return found
    problem = _origin_problem(path, planned, attributes)
    if problem is None and (known is not None or not _holds(path, found)):
        problem = _DAMAGED
    if problem is None:
        return found
    if problem != _DAMAGED:
        raise ShardError(f"{path}: {problem}; delete it, or overwrite the data set")
    _LOG.warning("%s: %s and is made again", path, problem)
    return None


def _holds(path: Path, entry: ShardEntry) -> bool:
    """Tell whether a shard that nobody vouches for matches the checksums inside it."""
    with suppress(ShardError):
        if damaged_rows(open_file(path), asdict(entry)):
            return False
        with (
            schema.HDF5_LOCK,
            suppress(OSError, RuntimeError),
            h5py.File(path, locking=False) as h5,
        ):
            for name in h5.keys() - {"frames"}:
                h5[name][()]  # HDF5 checks what it reads
            return True
    return False


def _origin_problem(path: Path, planned: PlannedShard, attributes: Mapping[str, Any]) -> str | None:
    """Say why a complete shard is not the one that a writer would make; None if it is."""
    try:
        with schema.HDF5_LOCK, h5py.File(path, "r", locking=False) as file:
            for name, value in attributes.items():
                there, wanted = schema.plain(file.attrs.get(name)), schema.plain(value)
                if name != "version" and there != wanted:
                    return f"is a shard of another request ({name} is {there}, not {wanted})"
            index = file["index"]
            if index.shape != (planned.count,) or index[0] != planned.first:
                return f"does not hold the {planned.count} sequences from {planned.first} on"
    except (OSError, RuntimeError, KeyError, ValueError):
        return _DAMAGED
    return None


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn HDF5's many-line errors, and the system's, into one line that names the file."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        said = re.search("error message = '([^']*)'", str(error))  # by the system, through HDF5
        reason = (
            said[1] if said else getattr(error, "strerror", None) or " ".join(str(error).split())
        )
        raise MmgenError(
            f"{path}: could not be written ({reason}); the same command goes on with what is there"
        ) from error
