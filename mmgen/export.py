"""Stored sequences in the file layouts that other people's loaders read.

A split is read and written in blocks, so memory stays bounded whatever it holds; a file has its
final name when it is complete. Letters: N sequences, T frames, H x W canvas, C channels.
"""

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from numpy.lib.format import write_array, write_array_header_1_0
from numpy.typing import DTypeLike, NDArray

from mmgen.errors import InputError, MmgenError
from mmgen.preview import check_picture, write_picture
from mmgen.shard import schema
from mmgen.shard.manifest import partial_of, replace_durably
from mmgen.shard.reader import Split

KINDS = ("npy", "npz", "gif", "mp4")
NUM_PICTURES = 16  # animations, unless more are asked for

_BLOCK_BYTES = 8 << 20
_TORCHVISION_NAME = "MovingMNIST/mnist_test_seq.npy"
_PREDRNN_NAMES = {split: f"moving-mnist-{split}.npz" for split in schema.SPLITS}
_PREDRNN_NAMES["val"] = "moving-mnist-valid.npz"


def num_exported(split: Split, kind: str, asked: int | None) -> int:
    """Return how many sequences an export takes; InputError if the split has not that many."""
    if asked is None:
        return min(len(split), NUM_PICTURES) if kind in ("gif", "mp4") else len(split)
    if not 1 <= asked <= len(split):
        raise InputError(
            f"{asked} sequences are out of range; {split.name} has {len(split)}, allowed are "
            f"1..{len(split)}"
        )
    return asked


def export_split(
    split: Split,
    out: Path,
    kind: str,
    num_sequences: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Path:
    """Write the first sequences of a split; return the file, or the folder of animations.

    kind           npy  uint8 (T, N, H, W), in colour (T, N, H, W, 3), zero after a sequence's end,
                        to a file, or to `MovingMNIST/mnist_test_seq.npy` in a folder
                   npz  the layout of PredRNN, to a file, or to `moving-mnist-train.npz` (-valid,
                        -test) in a folder: `clips` int32 (2, N, 2), first frame and number of
                        frames of each sequence's input, its first T // 2 frames, and output, the
                        rest; `dims` int32 (1, 3) = C, H, W; `input_raw_data` float32
                        (N * T, C, H, W) in [0, 1]
                   gif, mp4  one animation a sequence, of the frames it has, in a new folder
    num_sequences  N, by default all; of animations 16
    raises         InputError if what would be written exists, lies in no folder, or cannot be said
                   in that layout; MmgenError if it cannot be written, a full disk for example
    """
    count = num_exported(split, kind, num_sequences)
    if kind in ("gif", "mp4"):
        if out.suffix.lower()[1:] in KINDS:
            raise InputError(f"{out}: {kind} makes one file a sequence; name a folder for them")
        _write_animations(split, count, out, kind, progress)
        return out
    path = _file_to_write(split, out, kind)
    write = _write_npy if kind == "npy" else _write_npz
    path.parent.mkdir(parents=True, exist_ok=True)
    with _new_file(path) as file:
        write(split, count, file, progress)
    return path


def _file_to_write(split: Split, out: Path, kind: str) -> Path:
    """Return the file that `out` means, itself or one in it; refuse what must not be written."""
    is_file_name = out.suffix.lower() == f".{kind}"
    if not is_file_name and out.suffix.lower()[1:] in KINDS:
        raise InputError(f"{out}: is no name for {kind}; end it in .{kind}, or name a folder")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: is no folder; make it first")
    if not is_file_name and out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder, or a file that ends in .{kind}")
    if kind == "npz" and split.sequence_shape[0] < 2:
        raise InputError(
            f"{split.address}: has sequences of one frame; npz needs an input and output"
        )
    if kind == "npy" and not is_file_name and len(split.sequence_shape) == 4:
        raise InputError(
            f"{split.address}: is in colour, which torchvision would take for width; "
            "name a file that ends in .npy"
        )
    in_folder = _TORCHVISION_NAME if kind == "npy" else _PREDRNN_NAMES[split.name]
    path = out if is_file_name else out / in_folder
    if path.exists():
        raise InputError(f"{path}: exists already; name another, or delete it")
    return path


def _write_npy(split: Split, count: int, file: BinaryIO, progress: Callable[[int], None]) -> None:
    """Write time first: a block of sequences lies in T places of the file."""
    num_frames, *frame = split.sequence_shape
    _write_header(file, np.uint8, (num_frames, count, *frame))
    start = file.tell()
    for first, frames in _blocks(split, count):
        for t in range(num_frames):
            file.seek(start + (t * count + first) * prod(frame))
            file.write(np.ascontiguousarray(frames[:, t]).data)
        progress(len(frames))


def _write_npz(split: Split, count: int, file: BinaryIO, progress: Callable[[int], None]) -> None:
    num_frames, height, width, *colour = split.sequence_shape
    channels = prod(colour)
    first_frames = np.arange(count) * num_frames
    half = num_frames // 2
    clips = np.empty((2, count, 2), np.int32)
    clips[0] = np.stack([first_frames, np.full(count, half)], 1)
    clips[1] = np.stack([first_frames + half, np.full(count, num_frames - half)], 1)
    dims = np.array([[channels, height, width]], np.int32)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in (("clips", clips), ("dims", dims)):
            with archive.open(f"{name}.npy", "w") as member:
                write_array(member, array)
        with archive.open("input_raw_data.npy", "w", force_zip64=True) as member:
            _write_header(member, np.float32, (count * num_frames, channels, height, width))
            for _, frames in _blocks(split, count):
                channels_last = frames.reshape(-1, height, width, channels)
                share = np.moveaxis(channels_last, 3, 1) / np.float32(255)
                member.write(np.ascontiguousarray(share).data)
                progress(len(frames))


def _write_header(file: IO[bytes], dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    fields = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    write_array_header_1_0(file, fields)


def _blocks(split: Split, count: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the place of a block's first sequence and its frames, in a buffer used again."""
    size = min(count, max(1, _BLOCK_BYTES // prod(split.sequence_shape)))
    buffer = np.empty((size, *split.sequence_shape), np.uint8)
    for first in range(0, count, size):
        frames = buffer[: count - first]
        split.read(range(first, first + len(frames)), frames)
        yield first, frames


def _write_animations(
    split: Split, count: int, out: Path, kind: str, progress: Callable[[int], None]
) -> None:
    """Write a folder beside, then rename: its final name means that all are there."""
    folder = Path(os.path.realpath(out))
    check_picture(folder.with_name(f"{split.name}.{kind}"))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{out}: exists already; name an empty or a new folder")
    partial = folder.with_name(folder.name + schema.PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)  # left by an export that was killed
    partial.mkdir()
    try:
        for index in range(count):
            sequence = split[index]
            path = partial / f"{split.name}-{index:06d}.{kind}"
            write_picture(path, sequence.frames[None, : sequence.num_frames])
            progress(1)
        replace_durably(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name when it is complete, and leaves nothing when it is not."""
    try:
        with partial_of(path) as partial, partial.open("wb") as file:
            yield file
    except OSError as error:
        raise MmgenError(f"{path}: could not be written ({error.strerror or error})") from error
