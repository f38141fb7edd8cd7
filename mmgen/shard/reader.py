"""Open a data set, check its shards, read sequences.

A shard's chunk addresses are read once through h5py; after that a sequence is one positioned read
and one call of libdeflate, outside the interpreter lock and past HDF5's, checked against its
CRC-32. Shards are untrusted: what they claim is compared with the manifest and the file's size
before memory is taken.
"""

import bisect
import hashlib
import math
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import deflate
import h5py
import numpy as np
from numpy.typing import NDArray

from mmgen.errors import InputError, MmgenError, ShardError
from mmgen.shard import schema
from mmgen.shard.manifest import Manifest, ShardEntry, read_json_file

_MAX_OPEN_SHARDS = 64


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


def open_dataset(path: str | os.PathLike[str]) -> "DataSet":
    """Open a data set folder; InputError if it is none."""
    root = Path(path)
    manifest_path = root / schema.MANIFEST_NAME
    if not manifest_path.is_file():
        unfinished = (root / schema.REQUEST_NAME).is_file()
        why = (
            "is not finished; run the same `mmgen generate` or `mmgen import` again"
            if unfinished
            else (f"is no data set (no {schema.MANIFEST_NAME}); make one with `mmgen generate`")
        )
        raise InputError(f"{root}: {why}")
    manifest = Manifest.from_json(read_json_file(manifest_path), str(manifest_path))
    return DataSet(root, manifest)


class DataSet:
    """A folder of shards: `dataset["test"][3]` is sequence 3 of the split test."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest
        self.splits = {name: Split(root, manifest, name) for name in manifest.splits}

    def __getitem__(self, split: str) -> "Split":
        if split not in self.splits:
            names = ", ".join(self.splits) or "none"
            raise InputError(f"{self.root}: has no split {split!r}; there are: {names}")
        return self.splits[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        return f"<DataSet {self.root}: {counts}>"


class Split:
    """The sequences of one split, in shards that open on first use; picklable."""

    def __init__(self, root: Path, manifest: Manifest, name: str) -> None:
        self.name = name
        self.root = root
        self.manifest = manifest
        self.entries = manifest.splits[name].shards
        self._firsts = [entry.first for entry in self.entries]
        self._shape: tuple[int, ...] = ()
        self.identified: dict[str, tuple[int, ...]] = {}  # shards whose hash was right: file state
        self._forget_files()

    def _forget_files(self) -> None:
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_open", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_files()

    def __len__(self) -> int:
        return self.manifest.splits[self.name].count

    def __getitem__(self, index: int) -> Sequence:
        shard, row = self._locate(index)
        return shard.sequence(row)

    def __iter__(self) -> Iterator[Sequence]:
        return (self[index] for index in range(len(self)))

    @property
    def sequence_shape(self) -> tuple[int, ...]:
        """(T, H, W) or (T, H, W, 3), as stored in the first shard."""
        return self.shard(0).sequence_shape

    def read(self, indices: Iterable[int], out: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Read frames into the caller's buffer.

        indices  B places in the split
        out      uint8 (B, T, H, W) or (B, T, H, W, 3), C order
        returns  num_frames, int32 (B,)
        raises   ShardError that names shard and sequence, for anything damaged
        """
        num_frames = np.empty(len(out), np.int32)
        for place, index in enumerate(indices):
            shard, row = self._locate(int(index))
            shard.read_frames(row, out[place])
            num_frames[place] = shard.num_frames[row]
        return num_frames

    def _locate(self, index: int) -> tuple["Shard", int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {self.name}, which has {len(self)}")
        index %= len(self)
        number = bisect.bisect_right(self._firsts, index) - 1
        return self.shard(number), index - self._firsts[number]

    def shard(self, number: int) -> "Shard":
        """Return an open shard; the least recently used one is let go when there are many."""
        with self._lock:
            if number not in self._open:
                entry = self.entries[number]
                shard = Shard(self.root / self.name / entry.name, entry, self)
                self._same_shape(shard)
                self._open[number] = shard
                if len(self._open) > _MAX_OPEN_SHARDS:
                    self._open.popitem(last=False)
            self._open.move_to_end(number)
            return self._open[number]

    def _same_shape(self, shard: "Shard") -> None:
        self._shape = self._shape or shard.sequence_shape
        if shard.sequence_shape != self._shape:
            raise ShardError(
                f"{shard.path}: holds sequences of {shard.sequence_shape}, other shards of "
                f"{self._shape}; {_REMEDY}"
            )


class Shard:
    """One open shard: what it claims was checked, and where its chunks lie is known."""

    def __init__(self, path: Path, entry: ShardEntry, split: Split) -> None:
        self.path = path
        self.entry = entry
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ShardError(f"{path}: cannot be opened ({error.strerror}); {_REMEDY}") from error
        self._check_identity(split.identified)
        with _opened(path) as file:
            _check_origin(path, file, split)
            frames, self.num_frames, self.checksum = _check_contents(path, file, entry)
            self.sequence_shape = tuple(frames.shape[1:])
            self._filters = _filters(frames)
            self._chunk_shape = tuple(frames.chunks or ())
            self._chunks = self._chunk_table(frames)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _check_identity(self, identified: dict[str, tuple[int, ...]]) -> None:
        """Compare size and hash before HDF5 sees the file: on some damage it loops for ever.

        A shard of 8192 sequences, 16 MB, takes 10 ms, a twentieth of what decoding it takes; one
        that is opened again unchanged is not read again.
        """
        status = os.fstat(self._descriptor)
        size = status.st_size
        state = (status.st_dev, status.st_ino, size, status.st_mtime_ns)
        if identified.get(self.entry.name) == state:
            return
        if size != self.entry.bytes:
            raise ShardError(
                f"{self.path}: has {size} bytes, the manifest says {self.entry.bytes}: "
                f"truncated or replaced; {_REMEDY}"
            )
        with open(self._descriptor, "rb", closefd=False) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self.entry.sha256:
                raise ShardError(
                    f"{self.path}: is not the file that the manifest lists (SHA-256 differs): "
                    f"damaged, or of another data set; {_REMEDY}"
                )
        identified[self.entry.name] = state

    def _chunk_table(self, frames: Any) -> NDArray[np.int64] | None:
        """Return offset, size and filter mask of each chunk, int64 (N, C, 3), None if foreign."""
        num_sequences, num_frames = frames.shape[:2]
        whole = self._chunk_shape[2:] == frames.shape[2:] and self._chunk_shape[:1] == (1,)
        if not whole or self._filters not in ([], [_DEFLATE]):
            return None
        step = self._chunk_shape[1]
        shape = (num_sequences, -(-num_frames // step), 3)
        if shape[0] * shape[1] > self.entry.bytes:
            raise ShardError(f"{self.path}: promises more chunks than it has bytes; {_REMEDY}")
        table = np.zeros(shape, np.int64)

        def note(info: Any) -> None:
            place = info.chunk_offset[0], info.chunk_offset[1] // step
            table[place] = info.byte_offset, info.size, info.filter_mask

        frames.id.chunk_iter(note)
        if (table[..., 1] <= 0).any() or (table[..., :2].sum(-1) > self.entry.bytes).any():
            raise ShardError(f"{self.path}: has chunks missing or past its end; {_REMEDY}")
        return table

    def read_frames(self, row: int, out: NDArray[np.uint8]) -> None:
        """Read the frames of one sequence into `out`, uint8 of `sequence_shape`."""
        if self._chunks is None:
            self._read_by_h5py(row, out)
            return
        checksum = 0
        step = self._chunk_shape[1]
        chunk_bytes = int(np.prod(self._chunk_shape, dtype=np.int64))
        for number, (offset, size, mask) in enumerate(self._chunks[row].tolist()):
            stored = os.pread(self._descriptor, size, offset)
            checksum = zlib.crc32(stored, checksum)
            packed = self._filters and not mask
            try:
                raw = deflate.zlib_decompress(stored, chunk_bytes) if packed else stored
                part = np.frombuffer(raw, np.uint8).reshape(self._chunk_shape[1:])
            except (deflate.DeflateError, ValueError) as error:
                raise self._damaged(row, "does not unpack") from error
            into = out[number * step : (number + 1) * step]
            into[:] = part[: len(into)]
        if checksum != self.checksum[row]:
            raise self._damaged(row, "does not match its checksum")

    def _read_by_h5py(self, row: int, out: NDArray[np.uint8]) -> None:
        with _opened(self.path) as file:
            out[:] = file["frames"][row]

    def _damaged(self, row: int, what: str) -> ShardError:
        return ShardError(f"{self.path}: sequence {self.entry.first + row} {what}; {_REMEDY}")

    def sequence(self, row: int) -> Sequence:
        """Read one sequence with its annotations."""
        frames = np.empty(self.sequence_shape, np.uint8)
        self.read_frames(row, frames)
        with _opened(self.path) as file:
            present = {name: file[name][row] for name in _OPTIONAL if name in file}
            index = int(file["index"][row])
        return Sequence(frames, int(self.num_frames[row]), index, **present)

    def annotations(self) -> dict[str, NDArray[Any]]:
        """Read every annotation of the shard but its masks, name -> array (N, ...)."""
        with _opened(self.path) as file:
            return {name: file[name][()] for name in schema.ANNOTATIONS if name in file}


_KNOWN = tuple(dict.fromkeys((*schema.MANDATORY, *schema.ANNOTATIONS, schema.MASK)))
_DEFLATE = 1  # HDF5's number of the gzip filter
_MAX_DEFLATE_RATIO = 1100  # the format cannot pack tighter than 1032 to 1
_REMEDY = "delete the file and run the same `mmgen generate` or `mmgen import` again"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a shard with h5py; what goes wrong in there becomes one line that names the file."""
    try:
        with schema.HDF5_LOCK, _unlocked(path) as file:
            yield file
    except MmgenError:
        raise
    except Exception as error:  # h5py answers damage with most of the built-in errors
        raise ShardError(f"{path}: is damaged or gone; {_REMEDY}") from error


def _unlocked(path: Path) -> Any:
    """Open without file locks: shards never change, and some network file systems have none."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking flag" not in str(error):
            raise
        return h5py.File(path, "r")  # somebody in this process has it open, with HDF5's default


def _check_origin(path: Path, file: Any, split: Split) -> None:
    expected = {"format": schema.FORMAT, "seed": split.manifest.seed, "split": split.name}
    for name, value in expected.items():
        if (found := schema.plain(file.attrs.get(name))) != value:
            raise ShardError(
                f"{path}: is a shard of another data set ({name} is {found}, the manifest says "
                f"{value}); {_REMEDY}"
            )


def _check_contents(
    path: Path, file: Any, entry: ShardEntry
) -> tuple[Any, NDArray[np.int32], NDArray[np.uint32]]:
    """Check dtypes, shapes and sizes before anything is allocated."""
    for name in _KNOWN:
        if name in file and not _is_inside(file, name):
            raise ShardError(f"{path}: {name} is not stored in the file itself; {_REMEDY}")
    for name in schema.MANDATORY:
        if not isinstance(file.get(name), h5py.Dataset) or len(file[name]) != entry.count:
            raise ShardError(f"{path}: {name} is missing or has not {entry.count} rows; {_REMEDY}")
    for name in _KNOWN:
        if name in file and _promises_too_much(name, file[name], entry.bytes):
            raise ShardError(f"{path}: {name} promises more than the file can hold; {_REMEDY}")
    frames = file["frames"]
    sequence_bytes = int(np.prod(frames.shape[1:], dtype=object))
    holds_sequences = frames.dtype == np.uint8 and (frames.ndim == 4 or frames.shape[4:] == (3,))
    if not holds_sequences or not 0 < sequence_bytes <= schema.MAX_SEQUENCE_BYTES:
        raise ShardError(f"{path}: frames are {frames.dtype} {frames.shape}; {_REMEDY}")
    mask = file.get(schema.MASK)
    if mask is not None and (mask.dtype != np.uint8 or mask.shape != frames.shape[:4]):
        raise ShardError(
            f"{path}: mask is {mask.dtype} {mask.shape}, frames are {frames.shape}; {_REMEDY}"
        )
    num_frames, checksum = file["num_frames"], file[schema.CHECKSUM]
    if num_frames.shape != (entry.count,) or checksum.shape != (entry.count,):
        raise ShardError(f"{path}: num_frames or checksum is not one a sequence; {_REMEDY}")
    if (first := file["index"][0]) != entry.first:
        raise ShardError(
            f"{path}: holds the sequences from {first} on, the manifest says {entry.first}; "
            f"{_REMEDY}"
        )
    lengths = num_frames[()].astype(np.int32)
    if lengths.min() < 1 or lengths.max() > frames.shape[1]:
        raise ShardError(f"{path}: num_frames is not within 1..{frames.shape[1]}; {_REMEDY}")
    return frames, lengths, checksum[()].astype(np.uint32)


def _promises_too_much(name: str, dataset: Any, file_bytes: int) -> bool:
    """Tell whether a chunk, or annotations that are read whole, would take absurd memory."""
    if math.prod(dataset.chunks or ()) * dataset.dtype.itemsize > schema.MAX_SEQUENCE_BYTES:
        return True
    is_read_whole = name not in ("frames", schema.MASK)
    return is_read_whole and dataset.nbytes > _MAX_DEFLATE_RATIO * file_bytes


def _is_inside(file: Any, name: str) -> bool:
    """Tell what the shard itself holds from links to other files and data that lie in them."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return False
    return not (
        isinstance(file[name], h5py.Dataset) and (file[name].external or file[name].is_virtual)
    )


def _filters(dataset: Any) -> list[int]:
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
