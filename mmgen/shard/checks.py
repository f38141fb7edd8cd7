"""What a shard claims, compared with its manifest and its size before memory is taken.

A shard is untrusted: whoever wrote the file may have written the manifest that vouches for it.
"""

import hashlib
import json
import math
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib import import_module
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmgen.errors import InputError, MmgenError, ShardError
from mmgen.shard import schema
from mmgen.shard.manifest import ShardEntry

REMEDY = "delete the file and run the same `mmgen generate` or `mmgen import` again"

_KNOWN = tuple(dict.fromkeys((*schema.MANDATORY, *schema.ANNOTATIONS, schema.MASK)))
_MAX_DEFLATE_RATIO = 1100  # the format cannot pack tighter than 1032 to 1

_LOOK_S = 30
_NAMED = 5  # sequences that a message names

FileState = tuple[int, ...]


class OtherHash(ShardError):
    """A file that is not, or no longer, the one that its manifest lists as `entry`."""

    entry: ShardEntry


def open_file(path: Path) -> int:
    """Return a descriptor of a regular file; a pipe or a device is refused, not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise ShardError(
            f"{path}: is missing; run the same `mmgen generate` or `mmgen import` again"
        ) from error
    except OSError as error:
        raise ShardError(f"{path}: cannot be opened ({error.strerror}); {REMEDY}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ShardError(f"{path}: is no file; {REMEDY}")
    return descriptor


def check_identity(
    where: str, descriptor: int, entry: ShardEntry, identified: dict[str, FileState]
) -> None:
    """Compare size and hash before HDF5 sees the file: on some damage it loops for ever.

    identified  name -> state of the file when its hash was right: it is not read once more
    """
    status = os.fstat(descriptor)
    size = status.st_size
    state = state_of(status)
    if identified.get(entry.name) == state:
        return
    if size != entry.bytes:
        raise ShardError(
            f"{where}: has {size} bytes, the manifest says {entry.bytes}: truncated or replaced; "
            f"{REMEDY}"
        )
    with Path(_by_descriptor(descriptor)).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
            error = OtherHash(
                f"{where}: is not the file that the manifest lists (SHA-256 differs): damaged, or "
                f"of another data set; {REMEDY}"
            )
            error.entry = entry
            raise error
    identified[entry.name] = state


def state_of(status: os.stat_result) -> FileState:
    """Return what changes where a file does."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def damaged_sequences(descriptor: int, entry: ShardEntry) -> str:
    """Say which sequences of a damaged file do not match their checksums, as far as it opens.

    Another process looks, for some seconds at most: on some damage HDF5 loops for ever.
    """
    described = json.dumps([sys.path, descriptor, asdict(entry)])
    look = (
        "import json, sys; sys.path, descriptor, entry = json.loads(sys.argv[1]); "
        "from mmgen.shard.file import damaged_rows; print(*damaged_rows(descriptor, entry))"
    )
    try:
        looked = subprocess.run(
            [sys.executable, "-c", look, described],
            pass_fds=[descriptor],
            capture_output=True,
            text=True,
            timeout=_LOOK_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    rows = [entry.first + int(row) for row in looked.stdout.split()]
    if not rows:
        return ""
    more = ", ..." if len(rows) > _NAMED else ""
    return f"; damaged there: sequence {', '.join(map(str, rows[:_NAMED]))}{more}"


def _by_descriptor(descriptor: int) -> str:
    """Return a name for a file that is open: the one that was checked, whatever has its name now.

    What opens it so has its own position in it, which forked processes do not share.
    """
    return f"/dev/fd/{descriptor}"


class _WholeReads(FileIO):
    """What h5py reads a file through; it would take a read cut short for a whole one (3.16)."""

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        if count != len(buffer):
            raise OSError("the file has become shorter")
        return count


@contextmanager
def opened(where: str, descriptor: int) -> Iterator[Any]:
    """Open a shard with h5py; what goes wrong in there becomes one line that names the file.

    It takes no file lock on this way: shards never change, and some network file systems have none.
    """
    try:
        with (
            schema.HDF5_LOCK,
            _WholeReads(_by_descriptor(descriptor)) as raw,
            h5py.File(raw, "r") as file,
        ):
            yield file
    except (MmgenError, MemoryError):
        raise
    except Exception as error:  # h5py answers damage with most of the built-in errors
        raise ShardError(f"{where}: is damaged; {REMEDY}") from error


def check_origin(where: str, file: Any, expected: Mapping[str, Any]) -> None:
    """Compare root attributes with what the manifest says."""
    for name, value in expected.items():
        if (found := schema.plain(file.attrs.get(name))) != value:
            raise ShardError(
                f"{where}: is a shard of another data set ({name} is {found}, the manifest says "
                f"{value}); {REMEDY}"
            )


def check_datasets(where: str, file: Any, entry: ShardEntry) -> dict[str, Any]:
    """Check dtypes, shapes and sizes before anything is read; return what is there by name."""
    there = {name: _find_inside(where, file, name) for name in _KNOWN if name in file}
    for name in schema.MANDATORY:
        if not isinstance(there.get(name), h5py.Dataset) or len(there[name]) != entry.count:
            raise ShardError(f"{where}: {name} is missing or has not {entry.count} rows; {REMEDY}")
    for name, dataset in there.items():
        if _promises_too_much(name, dataset, entry.bytes):
            raise ShardError(f"{where}: {name} promises more than the file can hold; {REMEDY}")
    frames = there["frames"]
    sequence_bytes = int(np.prod(frames.shape[1:], dtype=object))
    holds_sequences = frames.dtype == np.uint8 and (frames.ndim == 4 or frames.shape[4:] == (3,))
    if not holds_sequences or not 0 < sequence_bytes <= schema.MAX_SEQUENCE_BYTES:
        raise ShardError(f"{where}: frames are {frames.dtype} {frames.shape}; {REMEDY}")
    mask = there.get(schema.MASK)
    if mask is not None and (mask.dtype != np.uint8 or mask.shape != frames.shape[:4]):
        raise ShardError(
            f"{where}: mask is {mask.dtype} {mask.shape}, frames are {frames.shape}; {REMEDY}"
        )
    return there


def _find_inside(where: str, file: Any, name: str) -> Any:
    """Return what the shard itself holds; refuse links to other files and data that lie there."""
    if isinstance(file.get(name, getlink=True), h5py.HardLink):
        found = file[name]
        if not isinstance(found, h5py.Dataset) or not (found.is_virtual or found.external):
            return found
    raise ShardError(f"{where}: {name} is not stored in the file itself; {REMEDY}")


def _promises_too_much(name: str, dataset: Any, file_bytes: int) -> bool:
    """Tell whether a chunk, or annotations that are read whole, would take absurd memory."""
    if math.prod(dataset.chunks or ()) * dataset.dtype.itemsize > schema.MAX_SEQUENCE_BYTES:
        return True
    is_read_whole = name not in ("frames", schema.MASK)
    return is_read_whole and dataset.nbytes > _MAX_DEFLATE_RATIO * file_bytes


def check_rows(
    where: str, datasets: Mapping[str, Any], entry: ShardEntry
) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
    """Read num_frames and checksum; refuse them where they are not one a sequence."""
    num_frames, checksum = datasets["num_frames"], datasets[schema.CHECKSUM]
    if num_frames.shape != (entry.count,) or checksum.shape != (entry.count,):
        raise ShardError(f"{where}: num_frames or checksum is not one a sequence; {REMEDY}")
    if (first := datasets["index"][0]) != entry.first:
        raise ShardError(
            f"{where}: holds the sequences from {first} on, the manifest says {entry.first}; "
            f"{REMEDY}"
        )
    lengths, longest = num_frames[()].astype(np.int32), datasets["frames"].shape[1]
    if lengths.min() < 1 or lengths.max() > longest:
        raise ShardError(f"{where}: num_frames is not within 1..{longest}; {REMEDY}")
    return lengths, checksum[()].astype(np.uint32)


def filters_of(dataset: Any) -> list[int]:
    """Return HDF5's numbers of a dataset's filters, in the order in which they pack."""
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]


def require_filters(where: str, numbers: list[int]) -> None:
    """Make HDF5 know some filters; InputError if it does not, and no plugin here does."""
    for number in numbers:
        if not h5py.h5z.filter_avail(number):
            with suppress(ImportError):
                import_module("hdf5plugin")  # knows many; registers them by being imported
        if not h5py.h5z.filter_avail(number):
            raise InputError(
                f"{where}: frames are packed by HDF5's filter {number}, which is not here; try "
                "pip install 'moving-mnist[codecs]'"
            )
