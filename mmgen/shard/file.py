"""One open shard.

Its chunk addresses are read once through h5py; after that a sequence is one positioned read and one
call of its codec, outside the interpreter lock and past HDF5's, checked against its CRC-32. There
is no memory map: that dies with the process where a file has become shorter.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import deflate
import numpy as np
from numpy.typing import NDArray

from mmgen.errors import ShardError
from mmgen.shard import checks, schema
from mmgen.shard.checks import REMEDY, FileState
from mmgen.shard.codecs import BadChunk, Codec, find_codec, find_filter
from mmgen.shard.manifest import ShardEntry


@dataclass(frozen=True)
class Sequence:
    """One stored sequence; arrays as FORMAT.md gives them, None where the set has none.

    frames  uint8 (T, H, W) or (T, H, W, 3), zero past num_frames
    label, glyph_index  (K,)      position, velocity  float32 (T, K, 2), (y, x) in px
    angle, scale, visible  float32 (T, K)    box  int16 (T, K, 4)    bounced  bool (T, K)
    mask  uint8 (T, H, W), 0 or the number + 1 of the digit that owns the pixel
    """

    frames: NDArray[np.uint8]
    num_frames: int
    index: int
    label: NDArray[np.int16] | None = None
    glyph_index: NDArray[np.int32] | None = None
    position: NDArray[np.float32] | None = None
    velocity: NDArray[np.float32] | None = None
    angle: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None
    box: NDArray[np.int16] | None = None
    visible: NDArray[np.float32] | None = None
    bounced: NDArray[np.bool_] | None = None
    mask: NDArray[np.uint8] | None = None


_OPTIONAL = tuple(field.name for field in fields(Sequence) if field.default is None)


class Shard:
    """One open shard: what it claims was checked, and where its chunks lie is known.

    where           its name in messages
    descriptor      of the open file; it is closed with the shard
    entry           what the manifest says of it
    origin          root attributes that it must have
    identified      files whose hash was right, name -> state; this one is added
    num_frames      int32 (N,)
    sequence_shape  (T, H, W) or (T, H, W, 3)
    stored          names of the datasets that are there
    raises          ShardError if it is not what the manifest says, InputError without its codec
    """

    def __init__(
        self,
        where: str,
        descriptor: int,
        entry: ShardEntry,
        origin: Mapping[str, Any],
        identified: dict[str, FileState],
    ) -> None:
        self.where = where
        self.entry = entry
        self._descriptor = descriptor
        checks.check_identity(where, descriptor, entry, identified)
        with checks.opened(where, descriptor) as file:
            checks.check_origin(where, file, origin)
            datasets = checks.check_datasets(where, file, entry)
            self.num_frames, checksum = checks.check_rows(where, datasets, entry)
            self.stored = frozenset(datasets)
            self.sequence_shape: tuple[int, ...] = tuple(datasets["frames"].shape[1:])
            self._chunks = _find_chunks(where, datasets["frames"], entry)
        self._checksums = checksum.data

    def __del__(self) -> None:
        os.close(self._descriptor)

    def read_frames(self, row: int, out: NDArray[np.uint8]) -> None:
        """Read the frames of one sequence into `out`, uint8 of `sequence_shape`, C order."""
        if out.shape != self.sequence_shape:
            raise ValueError(f"the buffer is {out.shape}, sequences are {self.sequence_shape}")
        self.read_bytes(row, out.data.cast("B"))

    def read_bytes(self, row: int, out: memoryview) -> None:
        """Read the frames of one sequence into as many bytes.

        This is what training waits for: about 2 us of 20 or 40 are not the system's or the codec's.
        """
        chunks = self._chunks
        if chunks is None or not chunks.is_plain:
            self._read_slowly(row, out)
        elif chunks.is_raw:
            size = os.preadv(self._descriptor, (out,), chunks.offsets[row])
            if size != len(out) or deflate.crc32(out) != self._checksums[row]:
                raise self._damaged(row, "does not match its checksum")
        else:
            stored = os.pread(self._descriptor, chunks.sizes[row], chunks.offsets[row])
            if deflate.crc32(stored) != self._checksums[row]:
                raise self._damaged(row, "does not match its checksum")
            try:
                chunks.codec.unpack_into(stored, out)
            except BadChunk as error:
                raise self._damaged(row, "does not unpack") from error

    def _read_slowly(self, row: int, out: memoryview) -> None:
        """Read what is cut along time, was stored past its filter, or is chunked in another way."""
        if self._chunks is None:
            with checks.opened(self.where, self._descriptor) as file:
                out[:] = memoryview(file["frames"][row]).cast("B")
            return
        chunks, checksum = self._chunks, 0
        part = memoryview(bytearray(chunks.chunk_bytes))
        for number in range(chunks.per_sequence):
            place = row * chunks.per_sequence + number
            stored = os.pread(self._descriptor, chunks.sizes[place], chunks.offsets[place])
            checksum = deflate.crc32(stored, checksum)
            try:
                chunks.codec_of(place).unpack_into(stored, part)
            except BadChunk as error:
                raise self._damaged(row, "does not unpack") from error
            into = out[number * len(part) : (number + 1) * len(part)]
            into[:] = part[: len(into)]
        if checksum != self._checksums[row]:
            raise self._damaged(row, "does not match its checksum")

    def _damaged(self, row: int, what: str) -> ShardError:
        return ShardError(f"{self.where}: sequence {self.entry.first + row} {what}; {REMEDY}")

    def sequence(self, row: int) -> Sequence:
        """Read one sequence with its annotations."""
        frames = np.empty(self.sequence_shape, np.uint8)
        self.read_frames(row, frames)
        with checks.opened(self.where, self._descriptor) as file:
            present = {name: file[name][row] for name in _OPTIONAL if name in self.stored}
            index = int(file["index"][row])
        return Sequence(frames, int(self.num_frames[row]), index, **present)

    def annotations(self, rows: list[int] | None = None) -> dict[str, NDArray[Any]]:
        """Read annotations but masks, name -> array (N, ...); `rows` says which, ascending."""
        chosen = () if rows is None else rows
        with checks.opened(self.where, self._descriptor) as file:
            return {name: file[name][chosen] for name in schema.ANNOTATIONS if name in self.stored}

    def origin(self) -> dict[str, Any]:
        """Read the root attributes."""
        with checks.opened(self.where, self._descriptor) as file:
            return {name: schema.plain(value) for name, value in file.attrs.items()}

    @property
    def codec(self) -> str | None:
        """Name of the codec of its frames, None for a foreign one."""
        return self._chunks.codec.name if self._chunks else None

    def masks(self, first: int, last: int) -> NDArray[np.uint8]:
        """Read the masks of some rows, uint8 (last - first, T, H, W), of a shard that has them."""
        with checks.opened(self.where, self._descriptor) as file:
            masks: NDArray[np.uint8] = file[schema.MASK][first:last]
            return masks


def damaged_rows(descriptor: int, described: Mapping[str, Any]) -> list[int]:
    """Return the rows that do not match their checksums in a file, which is closed then.

    described  its entry in the manifest, or what that would be
    raises     ShardError where the file does not even open
    """
    entry = ShardEntry(**described)
    known = {entry.name: checks.state_of(os.fstat(descriptor))}
    shard = Shard(entry.name, descriptor, entry, {}, known)
    buffer, rows = memoryview(bytearray(math.prod(shard.sequence_shape))), []
    for row in range(entry.count):
        try:
            shard.read_bytes(row, buffer)
        except ShardError:
            rows.append(row)
    return rows


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Where the chunks of `frames` lie: those of sequence 0 in order of time, of sequence 1, ...

    offsets, sizes  int64, int32 (N * per_sequence,) of the stored bytes; as memoryviews, which give
                    one number in half of an array's time
    unfiltered      places of chunks that were stored past their filter
    chunk_bytes     what each unpacks to
    is_plain        whether each sequence is one chunk of just its frames, packed or else raw
    """

    codec: Codec
    offsets: memoryview
    sizes: memoryview
    unfiltered: set[int]
    per_sequence: int
    chunk_bytes: int
    is_plain: bool
    is_raw: bool

    def codec_of(self, place: int) -> Codec:
        return find_codec("none") if place in self.unfiltered else self.codec


def _find_chunks(where: str, frames: Any, entry: ShardEntry) -> _Chunks | None:
    """Return where the chunks lie, None if HDF5 has to read them: by other filters, or cut so."""
    filters, shape = checks.filters_of(frames), tuple(frames.chunks or ())
    is_cut_so = shape[:1] == (1,) and shape[2:] == frames.shape[2:] and len(filters) < 2
    codec = find_filter(filters[0] if filters else None) if is_cut_so else None
    if codec is None:
        checks.require_filters(where, filters)
        return None
    num_sequences, num_frames = frames.shape[:2]
    step, chunk_bytes = shape[1], math.prod(shape)
    per_sequence = -(-num_frames // step)
    count = num_sequences * per_sequence
    if count > entry.bytes:
        raise ShardError(f"{where}: promises more chunks than it has bytes; {REMEDY}")
    offsets, sizes, unfiltered = np.zeros(count, np.int64), np.zeros(count, np.int32), set[int]()
    into_offsets, into_sizes = offsets.data, sizes.data

    def note(info: Any) -> None:
        sequence, frame = info.chunk_offset[:2]
        place = sequence * per_sequence + frame // step
        into_offsets[place], into_sizes[place] = info.byte_offset, info.size
        if info.filter_mask:
            unfiltered.add(place)

    frames.id.chunk_iter(note)
    if (sizes <= 0).any() or (offsets < 0).any() or (offsets > entry.bytes - sizes).any():
        raise ShardError(f"{where}: has chunks missing or past its end; {REMEDY}")
    if sizes.max() > chunk_bytes + chunk_bytes // 8 + 4096:  # no codec expands that much
        raise ShardError(f"{where}: has chunks larger than what they hold; {REMEDY}")
    return _Chunks(
        codec,
        into_offsets,
        into_sizes,
        unfiltered,
        per_sequence,
        chunk_bytes,
        is_plain=step == num_frames and not unfiltered,
        is_raw=not filters,
    )
