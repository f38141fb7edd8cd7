"""Glyph sets: IDX files -> bitmaps and labels, split so that no glyph is in two splits.

Glyph files are untrusted input: magic number, dimensions and size are checked before any memory is
taken, and nothing in them is executed.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmgen.errors import InputError

# The wheel carries data/mnist inside the package; a checkout has it beside the package.
_DATA_FOLDERS = (
    Path(__file__).parent / "data" / "mnist",
    Path(__file__).parent.parent / "data" / "mnist",
)
_MAX_IDX_BYTES = 1 << 30


@dataclass(frozen=True)
class GlyphSet:
    """Bitmaps with their labels, and which of them each split may use.

    images  uint8 (N, h, w), ink 0..255     labels  uint8 (N,)
    splits  split name -> (first, last), half open, disjoint
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    splits: dict[str, tuple[int, int]]
    _padded: dict[int, NDArray[np.uint8]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of all bitmaps, then all labels: what a data set names to be made again."""
        digest = hashlib.sha256(self.images.data)
        digest.update(self.labels.data)
        return digest.hexdigest()

    @cached_property
    def num_ink(self) -> NDArray[np.int32]:
        """Number of pixels with ink of each glyph, int32 (N,)."""
        num_ink: NDArray[np.int32] = (self.images > 0).sum(axis=(1, 2), dtype=np.int32)
        return num_ink

    @cached_property
    def ink_box(self) -> NDArray[np.int16]:
        """Tight box of each glyph's ink, int16 (N, 4): y0, x0, y1, x1, half open; 0 if none."""
        sides = []
        for axis in (2, 1):
            has_ink = self.images.max(axis) > 0
            first = has_ink.argmax(1)
            last = has_ink.shape[1] - has_ink[:, ::-1].argmax(1)
            sides.append((first, last))
        (top, bottom), (left, right) = sides
        box = np.stack([top, left, bottom, right], 1).astype(np.int16)
        box[self.num_ink == 0] = 0
        return box

    def padded(self, width: int) -> NDArray[np.uint8]:
        """Return the bitmaps with columns without ink on both sides: (N, h, 2 * width - w)."""
        pad = width - self.images.shape[2]
        if pad not in self._padded:
            self._padded[pad] = np.pad(self.images, ((0, 0), (0, 0), (pad, pad)))
        return self._padded[pad]


@lru_cache(maxsize=2)
def load_glyphs(name: str = "mnist") -> GlyphSet:
    """Load a glyph set by name.

    `mnist`: train 0-54999, val 55000-59999 (both from the training files), test 60000-69999 (the
    10 000 test digits), numbered through.
    """
    if name != "mnist":
        raise InputError(f"glyph set {name!r} does not exist; choose from: mnist")
    folder = next((folder for folder in _DATA_FOLDERS if folder.is_dir()), None)
    if folder is None:
        raise InputError(f"{_DATA_FOLDERS[-1]}: the MNIST digits are missing; install again")
    images, labels = zip(
        *(
            (
                read_idx(folder / f"{part}-images-idx3-ubyte.gz"),
                read_idx(folder / f"{part}-labels-idx1-ubyte.gz"),
            )
            for part in ("train", "t10k")
        ),
        strict=True,
    )
    return GlyphSet(
        name,
        np.concatenate(images),
        np.concatenate(labels),
        {"train": (0, 55_000), "val": (55_000, 60_000), "test": (60_000, 70_000)},
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzip'd IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist, file formats).

    returns  uint8 array of the dimensions in the header
    raises   InputError if the file is missing, damaged, or promises other data than it holds
    """
    try:
        unpacker = zlib.decompressobj(wbits=31)
        content = unpacker.decompress(path.read_bytes(), _MAX_IDX_BYTES)
    except (OSError, zlib.error) as error:
        raise InputError(f"{path}: is no readable gzip file ({error})") from error
    if not unpacker.eof:
        raise InputError(f"{path}: is truncated, or holds more than {_MAX_IDX_BYTES} bytes")
    if unpacker.unused_data:
        raise InputError(f"{path}: holds more behind the end of its gzip stream")
    num_dimensions = content[3] if len(content) > 3 else 0
    header_bytes = 4 + 4 * num_dimensions
    if (
        content[:3] != b"\x00\x00\x08"
        or not 1 <= num_dimensions <= 3
        or len(content) < header_bytes
    ):
        raise InputError(f"{path}: is no IDX file of bytes (magic number {content[:4].hex()})")
    shape = struct.unpack_from(f">{num_dimensions}I", content, 4)
    num_bytes = int(np.prod(shape, dtype=object))
    if num_bytes != len(content) - header_bytes:
        raise InputError(
            f"{path}: promises {num_bytes} bytes {shape} and holds {len(content) - header_bytes}"
        )
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)
