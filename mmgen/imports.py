"""Sequences that somebody else made, as an npy file -> shards.

The file is untrusted: nothing is unpickled, and what its header promises is compared with its size.
It is read in blocks, so memory stays bounded. Killed anywhere, the same import finishes the set.
Letters: N sequences, T frames, H x W canvas.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray

import mmgen
from mmgen.errors import InputError, MmgenError
from mmgen.parts import Claim, claimed
from mmgen.request import find_shard_size
from mmgen.shard import schema
from mmgen.shard.codecs import DEFAULT
from mmgen.shard.manifest import Manifest, ShardEntry, canonical_json
from mmgen.shard.writer import PlannedShard, ShardWriter, gather_splits, plan_shards

# mnist_test_seq.npy of Srivastava et al. 2015; its MD5 is be083ec986bfe91a449d63653c411eb2.
PUBLISHED_SHA256 = "c2a3e8d3939c001ab77bf543f130157424efa486bb4d0974d2cebb773b13f8b3"

_UNKNOWN = "unknown"  # which glyphs there are, and which of them a split uses
_BLOCK_BYTES = 32 << 20
_MANY_FRAMES = 100  # what is longer than this, and than the next axis, hardly counts frames
_READ_HEADER = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}


@dataclass(frozen=True)
class Source:
    """An npy file of frames: `axes` says which of its first two axes is time.

    shape   (N, T, H, W) or (N, T, H, W, 3), whatever the order in the file
    offset  where the frames begin in the file, in bytes
    """

    path: Path
    axes: str
    shape: tuple[int, ...]
    offset: int
    sha256: str

    @property
    def is_published(self) -> bool:
        """Tell the published test set, mnist_test_seq.npy, from any other file."""
        return self.sha256 == PUBLISHED_SHA256


@dataclass(frozen=True)
class ImportRequest:
    """What a folder was made for. `splits`: split -> [first, last) of the file's sequences."""

    source: Source
    splits: Mapping[str, tuple[int, int]]
    shard_size: int

    def to_json(self) -> str:
        """Write the request in canonical form: equal requests give equal bytes."""
        source = self.source
        fields = {
            "format": schema.FORMAT,
            "seed": 0,
            "shard_size": self.shard_size,
            "codec": DEFAULT,
            "source": {"sha256": source.sha256, "axes": source.axes, "shape": source.shape},
            "splits": self.splits,
        }
        return canonical_json(fields)


def open_source(path: Path, axes: str | None = None) -> Source:
    """Check an npy file whose frames are uint8, in colour with a last axis of 3.

    axes    TNHW, time first (the published layout, assumed unless the shape speaks against it), or
            NTHW, sequence first
    raises  InputError if the file is damaged, holds anything else, or could have either order
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            shape, is_fortran, dtype = _read_header(file, path)
            offset = file.tell()
            _check_frames(path, shape, is_fortran, dtype, axes)
            order = axes or "TNHW"
            by_sequence = shape if order == "NTHW" else (shape[1], shape[0], *shape[2:])
            if (size := prod(by_sequence[1:])) > schema.MAX_SEQUENCE_BYTES:
                raise InputError(
                    f"{path}: a sequence has {size} bytes, allowed are "
                    f"{schema.MAX_SEQUENCE_BYTES}; cut it into shorter ones"
                )
            there, promised = path.stat().st_size, offset + prod(shape)
            if there != promised:
                raise InputError(
                    f"{path}: has {there} bytes, its header promises {promised}: truncated or "
                    "damaged; get it again"
                )
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return Source(path, order, by_sequence, offset, sha256)


def _read_header(file: BufferedReader, path: Path) -> tuple[tuple[int, ...], bool, "np.dtype"]:
    try:
        return _READ_HEADER[read_magic(file)](file)
    except OSError:
        raise
    except Exception as error:  # numpy answers damage with many of the built-in errors
        raise InputError(f"{path}: is no npy file; save the array with numpy.save") from error


def _check_frames(
    path: Path, shape: tuple[int, ...], is_fortran: bool, dtype: "np.dtype", axes: str | None
) -> None:
    if dtype != np.uint8:
        raise InputError(
            f"{path}: holds {dtype}, frames are uint8 0..255; save it so: whole numbers 0..255 by "
            "frames.astype(numpy.uint8), floats 0..1 by (255 * frames).round().astype(numpy.uint8)"
        )
    if not (len(shape) == 4 or shape[4:] == (3,)) or min(shape) < 1:
        raise InputError(
            f"{path}: has the shape {shape}; expected is (T, N, H, W), or (T, N, H, W, 3) in colour"
        )
    if is_fortran:
        raise InputError(
            f"{path}: is stored in Fortran order; save numpy.ascontiguousarray of it instead"
        )
    if axes is None and shape[0] > shape[1] and (shape[1] == 20 or shape[0] > _MANY_FRAMES):
        raise InputError(
            f"{path}: {shape} looks like sequences first; say axes NTHW if it is so, TNHW if time "
            "is first"
        )


def parse_splits(text: str, source: Source) -> dict[str, tuple[int, int]]:
    """Read `test`, all of a file, or `train=9000,test=1000`, from its start on in this order.

    returns  split -> [first, last) of the file's sequences
    raises   InputError if that cannot be read, or takes more sequences than there are
    """
    num_sequences = source.shape[0]
    if text in schema.SPLITS:
        return {text: (0, num_sequences)}
    splits: dict[str, tuple[int, int]] = {}
    first = 0
    for part in text.split(","):
        found = re.fullmatch(r"(\w+)=(\d{1,15})", part.strip(), re.ASCII)
        if not found or found[1] not in schema.SPLITS or found[1] in splits or int(found[2]) < 1:
            raise InputError(
                f"split {text!r} is neither one of {', '.join(schema.SPLITS)} nor sequences for "
                "each, such as train=9000,test=1000"
            )
        splits[found[1]] = first, first + int(found[2])
        first += int(found[2])
    if first > num_sequences:
        raise InputError(
            f"split {text!r} takes {first} sequences, {source.path} has {num_sequences}"
        )
    return splits


def import_dataset(
    source: Source,
    out: str | os.PathLike[str],
    splits: Mapping[str, tuple[int, int]],
    *,
    shard_size: int | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Manifest:
    """Write the sequences of a file as shards, or finish a folder that an equal call began.

    splits      split -> [first, last) of the file's sequences, from `parse_splits`
    shard_size  sequences a shard, default 8192 or 512 MiB of raw frames
    progress    called with the sequences and the bytes that a finished piece of work adds
    raises      InputError for a bad shard size or a folder that holds something else; ShardError
                for shards under our names that are not of this import
    """
    size = find_shard_size(shard_size, source.shape[1:])
    counts = {split: last - first for split, (first, last) in splits.items()}
    with (
        claimed(out, ImportRequest(source, splits, size)) as claim,
        source.path.open("rb") as file,
    ):
        made = [
            (shard, _find_or_make(shard, claim, source, file, splits[shard.split][0], progress))
            for shard in plan_shards(counts, size)
        ]
        manifest = Manifest(
            version=mmgen.__version__,
            config=None,
            seed=0,
            glyphs={"name": _UNKNOWN},
            codec=DEFAULT,
            shard_size=size,
            splits=gather_splits(made),
        )
        return claim.commit(manifest)


def _find_or_make(
    shard: PlannedShard,
    claim: Claim,
    source: Source,
    file: BufferedReader,
    start: int,
    progress: Callable[[int, int], None],
) -> ShardEntry:
    """Make one shard of a split that starts there in the file, or check the one that is there."""
    known, no_config = claim.known(shard), canonical_json(None)
    attributes = schema.attributes(no_config, 0, shard.split, _UNKNOWN, mmgen.__version__)
    if found := claim.folder.find(shard, attributes, known):
        progress(shard.count, 0)
        return found
    make = partial(_make, shard, attributes, source, file, start, progress)
    entry = claim.folder.add(shard, known, make)
    progress(0, entry.bytes)
    claim.leave(shard, entry)
    return entry


def _make(
    shard: PlannedShard,
    attributes: Mapping[str, Any],
    source: Source,
    file: BufferedReader,
    start: int,
    progress: Callable[[int, int], None],
    path: Path,
) -> ShardEntry:
    shape = source.shape[1:]
    block = max(1, _BLOCK_BYTES // prod(shape))
    last = shard.first + shard.count
    with ShardWriter(path, shard.count, shape, 0, attributes, ("num_frames", "index")) as writer:
        for first in range(shard.first, last, block):
            index = np.arange(first, min(first + block, last))
            num_frames = np.full(len(index), shape[0], np.int32)
            frames = _read(source, file, start + first, len(index))
            writer.write(frames, {"num_frames": num_frames, "index": index})
            progress(len(index), 0)
        return writer.commit()


def _read(source: Source, file: BufferedReader, first: int, count: int) -> NDArray[np.uint8]:
    """Read frames uint8 (count, T, H, W) or (count, T, H, W, 3), C order."""
    num_sequences, num_frames, *frame = source.shape
    if source.axes == "NTHW":
        frames = np.empty((count, num_frames, *frame), np.uint8)
        _fill(source, file, first * num_frames * prod(frame), frames)
        return frames
    instants = np.empty((num_frames, count, *frame), np.uint8)
    for t, instant in enumerate(instants):
        _fill(source, file, (t * num_sequences + first) * prod(frame), instant)
    return np.ascontiguousarray(instants.swapaxes(0, 1))


def _fill(source: Source, file: BufferedReader, place: int, values: NDArray[np.uint8]) -> None:
    file.seek(source.offset + place)
    if file.readinto(values.data) != values.nbytes:
        raise MmgenError(f"{source.path}: changed while it was read; import it again")
