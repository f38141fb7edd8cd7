"""Write one shard: partial file -> chunks -> annotations -> flush -> rename.

Frames are compressed by isal, which is several times faster than HDF5's own filter and runs outside
the interpreter lock, and stored as ready-made chunks; any HDF5 program reads them.
"""

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from mmgen.errors import MmgenError
from mmgen.shard import schema
from mmgen.shard.manifest import ShardEntry, replace_durably

_DEFLATE_LEVEL = 1


class ShardWriter:
    """A shard in the making; use as a context manager, call `write` in order, then `commit`.

    path            where the shard goes; until `commit` the file is called `path` + .partial
    num_sequences   N
    sequence_shape  (T, H, W) or (T, H, W, 3)
    num_digits      K
    attributes      root attributes, from `schema.attributes`
    """

    def __init__(
        self,
        path: Path,
        num_sequences: int,
        sequence_shape: tuple[int, ...],
        num_digits: int,
        attributes: Mapping[str, Any],
    ) -> None:
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
        }
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
        annotations  every name of `schema.ANNOTATIONS` -> array (B, ...)
        raises       MmgenError if the file cannot be written, a full disk for example
        """
        for row, sequence in enumerate(frames, self.rows_written):
            chunks = self._compress(sequence)
            for chunk in chunks:
                self._checksum[row] = zlib.crc32(chunk, int(self._checksum[row]))
            with schema.HDF5_LOCK, _naming(self.path):
                for number, chunk in enumerate(chunks):
                    offset = (row, number * self._chunk_frames, *(0,) * (frames.ndim - 2))
                    self._frames.id.write_direct_chunk(offset, chunk)
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
        entry = describe_shard(self.partial, int(self._annotations["index"][0]), self.num_sequences)
        replace_durably(self.partial, self.path)
        return ShardEntry(self.path.name, entry.first, entry.count, entry.bytes, entry.sha256)


def describe_shard(path: Path, first: int, count: int) -> ShardEntry:
    """Measure a complete shard for the manifest."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return ShardEntry(path.name, first, count, path.stat().st_size, digest.hexdigest())


def origin_problem(path: Path, attributes: Mapping[str, Any], first: int, count: int) -> str | None:
    """Say why a complete shard is not the one that a writer would make; None if it is."""
    try:
        with schema.HDF5_LOCK, h5py.File(path, "r", locking=False) as file:
            for name, value in attributes.items():
                there, wanted = schema.plain(file.attrs.get(name)), schema.plain(value)
                if name != "version" and there != wanted:
                    return f"is a shard of another request ({name} is {there}, not {wanted})"
            index = file["index"]
            if index.shape != (count,) or index[0] != first:
                return f"does not hold the {count} sequences from {first} on"
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
