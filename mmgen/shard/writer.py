"""Plan shards and write one: partial file -> chunks -> annotations -> flush -> rename.

Frames are compressed by isal, which is several times faster than HDF5's own filter and runs outside
the interpreter lock, and stored as ready-made chunks; any HDF5 program reads them.
"""

import hashlib
import os
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from mmgen.errors import MmgenError, ShardError
from mmgen.shard import schema
from mmgen.shard.manifest import Manifest, ShardEntry, SplitEntry, replace_durably

_DEFLATE_LEVEL = 1


class ShardWriter:
    """A shard in the making; use as a context manager, call `write` in order, then `commit`.

    path            where the shard goes, in a folder that is made if it is missing; until `commit`
                    the file is called `path` + .partial
    num_sequences   N
    sequence_shape  (T, H, W) or (T, H, W, 3)
    num_digits      K
    attributes      root attributes, from `schema.attributes`
    annotations     what is stored beside the frames: names of `schema.ANNOTATIONS`, `num_frames`
                    and `index` among them, and `schema.MASK` where masks are wanted
    raises          ValueError for other annotations
    """

    def __init__(
        self,
        path: Path,
        num_sequences: int,
        sequence_shape: tuple[int, ...],
        num_digits: int,
        attributes: Mapping[str, Any],
        annotations: Collection[str] = tuple(schema.ANNOTATIONS),
    ) -> None:
        if not {"num_frames", "index"} <= {*annotations} <= {*schema.ANNOTATIONS, schema.MASK}:
            raise ValueError(f"a shard cannot hold just these annotations: {sorted(annotations)}")
        self.path = path
        self.partial = path.with_name(path.name + schema.PARTIAL_SUFFIX)
        self.num_sequences = num_sequences
        self.rows_written = 0
        self._chunk_frames = schema.chunk_frames(sequence_shape)
        self._checksum = np.zeros(num_sequences, np.uint32)
        self._annotations = {
            name: np.empty(
                (num_sequences, *annotation.shape(sequence_shape[0], num_digits)), annotation.dtype
            )
            for name, annotation in schema.ANNOTATIONS.items()
            if name in annotations
        }
        path.parent.mkdir(exist_ok=True)
        with schema.HDF5_LOCK, _naming(self.path):
            # v110: a file whose writer died refuses to open; older layouts open and read zeros.
            self._file = h5py.File(self.partial, "w", libver=("v110", "v110"))
            self._file.attrs.update(attributes)
            self._frames = self._file.create_dataset(
                "frames",
                (num_sequences, *sequence_shape),
                np.uint8,
                chunks=(1, self._chunk_frames, *sequence_shape[1:]),
                compression="gzip",
                compression_opts=_DEFLATE_LEVEL,
            )
            self._mask = (
                self._create_mask(sequence_shape[:3]) if schema.MASK in annotations else None
            )

    def _create_mask(self, shape: tuple[int, ...]) -> Any:
        return self._file.create_dataset(
            schema.MASK,
            (self.num_sequences, *shape),
            np.uint8,
            chunks=(1, schema.chunk_frames(shape), *shape[1:]),
            compression="gzip",
            compression_opts=_DEFLATE_LEVEL,
            shuffle=True,
            fletcher32=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        with schema.HDF5_LOCK, suppress(OSError, RuntimeError):
            self._file.close()  # fails again where a full disk has failed a write
        self.partial.unlink(missing_ok=True)  # gone already after a commit

    def write(self, frames: NDArray[np.uint8], annotations: Mapping[str, NDArray[Any]]) -> None:
        """Append sequences.

        frames       uint8 (B, T, H, W) or (B, T, H, W, 3), C order
        annotations  every name that the constructor was told -> array (B, ...)
        raises       MmgenError if the file cannot be written, a full disk for example
        """
        for place, sequence in enumerate(frames):
            row = self.rows_written + place
            chunks = self._compress(sequence)
            for chunk in chunks:
                self._checksum[row] = zlib.crc32(chunk, int(self._checksum[row]))
            with schema.HDF5_LOCK, _naming(self.path):
                for number, chunk in enumerate(chunks):
                    offset = (row, number * self._chunk_frames, *(0,) * (frames.ndim - 2))
                    self._frames.id.write_direct_chunk(offset, chunk)
                if self._mask is not None:  # too large to wait for the commit
                    self._mask[row] = annotations[schema.MASK][place]
        last = self.rows_written + len(frames)
        for name, values in self._annotations.items():
            values[self.rows_written : last] = annotations[name]
        self.rows_written = last

    def _compress(self, sequence: NDArray[np.uint8]) -> list[bytes]:
        step = self._chunk_frames
        chunks = []
        for first in range(0, len(sequence), step):
            part = sequence[first : first + step]
            if len(part) < step:  # HDF5 stores the last chunk whole
                part = np.concatenate([part, np.zeros_like(sequence[: step - len(part)])])
            chunks.append(isal_zlib.compress(part.data, _DEFLATE_LEVEL))
        return chunks

    def commit(self) -> ShardEntry:
        """Write the annotations, close, and give the file its final name."""
        assert self.rows_written == self.num_sequences, "a shard is committed when it is full"
        with schema.HDF5_LOCK, _naming(self.path):
            for name, values in (self._annotations | {schema.CHECKSUM: self._checksum}).items():
                row_bytes = max(1, values.nbytes // len(values))
                rows = max(1, min(len(values), (64 << 10) // row_bytes))
                self._file.create_dataset(
                    name,
                    data=values,
                    chunks=(rows, *values.shape[1:]),
                    compression="gzip",
                    shuffle=True,
                    fletcher32=True,
                )
            self._file.close()
        with self.partial.open("rb") as file:
            os.fsync(file.fileno())
        entry = _describe(self.partial, int(self._annotations["index"][0]), self.num_sequences)
        replace_durably(self.partial, self.path)
        return replace(entry, name=self.path.name)


def _describe(path: Path, first: int, count: int) -> ShardEntry:
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

    def path(self, root: Path) -> Path:
        """Return where it lies in a data set."""
        return root / self.split / f"{self.split}-{self.number:06d}.h5"


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


def known_shards(committed: Manifest | None) -> dict[str, ShardEntry]:
    """Return what an earlier commit, if there is one, vouches for: shard name -> entry."""
    splits = committed.splits.values() if committed else ()
    return {entry.name: entry for split in splits for entry in split.shards}


def check_shard(
    path: Path,
    planned: PlannedShard,
    attributes: Mapping[str, Any],
    known: Mapping[str, ShardEntry],
) -> ShardEntry:
    """Measure a shard that a resumed writer finds; ShardError if it would have made another."""
    found = _describe(path, planned.first, planned.count)
    if path.name not in known:
        problem = _origin_problem(path, planned, attributes)
    else:
        problem = None if known[path.name] == found else "is damaged"
    if problem:
        raise ShardError(f"{path}: {problem}; delete it, or overwrite the data set")
    return found


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
        return "is damaged"
    return None


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn HDF5's many-line errors into one line that names the file."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise MmgenError(f"{path}: could not be written ({reason})") from error
