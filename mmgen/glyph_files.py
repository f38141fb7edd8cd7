"""Files of glyphs -> bitmaps and labels: IDX, npz and PNG.

All of them are untrusted input: types and sizes are checked before memory is taken, and nothing in
them is unpickled or executed.
"""

import math
import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgen.errors import InputError

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # images (N, h, w), labels (N,)

_MAX_SIDE_PX = 256
_MAX_BYTES = 1 << 30  # of one file or array, unpacked
_IDX_DTYPES: dict[bytes, np.dtype[Any]] = {
    b"\0\0\x08": np.dtype(np.uint8),
    b"\0\0\x0c": np.dtype(">i4"),
}

# What zipfile raises on a damaged archive, and numpy on a header that it cannot parse.
_DAMAGED_NPZ = (
    *(OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error),
    *(ValueError, TypeError, SyntaxError, tokenize.TokenError),
)


def read_idx(path: Path) -> NDArray[Any]:
    """Read an IDX file (http://yann.lecun.com/exdb/mnist, file formats), gzip'd if it ends in .gz.

    returns  uint8 or big-endian int32, of the dimensions in the header
    raises   InputError if the file is missing, damaged, or promises other data than it holds
    """
    content = _unpacked(path)
    num_dimensions = content[3] if len(content) > 3 else 0
    header_bytes = 4 + 4 * num_dimensions
    dtype = _IDX_DTYPES.get(content[:3])
    if dtype is None or not 1 <= num_dimensions <= 3 or len(content) < header_bytes:
        raise InputError(
            f"{path}: is no IDX file of bytes or int32 (magic number {content[:4].hex()})"
        )
    shape = struct.unpack_from(f">{num_dimensions}I", content, 4)
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes != len(content) - header_bytes:
        raise InputError(
            f"{path}: promises {num_bytes} bytes {shape} and holds {len(content) - header_bytes}"
        )
    array: NDArray[Any] = np.frombuffer(content, dtype, offset=header_bytes)
    return array.reshape(shape)


def _unpacked(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > _MAX_BYTES:
        raise InputError(f"{path}: holds more than {_MAX_BYTES} bytes")
    if path.suffix != ".gz":
        return content
    unpacker = zlib.decompressobj(wbits=31)
    try:
        content = unpacker.decompress(content, _MAX_BYTES)
    except zlib.error as error:
        raise InputError(f"{path}: is no readable gzip file ({error})") from error
    if not unpacker.eof:
        raise InputError(f"{path}: is truncated, or holds more than {_MAX_BYTES} bytes")
    if unpacker.unused_data:
        raise InputError(f"{path}: holds more behind the end of its gzip stream")
    return content


def read_idx_parts(files: Sequence[Path]) -> list[Part]:
    """Read images, labels, images, labels, ...: a part of the set for each pair of files."""
    return [
        _read_idx_part(images, labels)
        for images, labels in zip(files[::2], files[1::2], strict=True)
    ]


def _read_idx_part(images_path: Path, labels_path: Path) -> Part:
    images = read_idx(images_path)
    _check_images(images_path, images.dtype, images.shape)
    if images_path.name.startswith("emnist-"):
        # Published with rows and columns exchanged. A copy: kernels want rows in order.
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
    labels = read_idx(labels_path)
    if labels.shape[1:] == (8,):
        labels = labels[:, 0]  # QMNIST: the class, then seven columns on who wrote it
    return images, _checked_labels(labels_path, labels, len(images))


def _check_images(where: object, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if dtype != np.uint8 or len(shape) != 3:
        raise InputError(f"{where}: holds {dtype} {shape}; glyphs are uint8 (N, h, w)")
    if not all(1 <= side <= _MAX_SIDE_PX for side in shape[1:]):
        raise InputError(
            f"{where}: has glyphs of {shape[1]}x{shape[2]} px; allowed are 1..{_MAX_SIDE_PX} a side"
        )
    if math.prod(shape) > _MAX_BYTES:
        raise InputError(f"{where}: holds {math.prod(shape)} bytes; allowed are {_MAX_BYTES}")


def _checked_labels(where: object, labels: NDArray[Any], num_glyphs: int) -> NDArray[np.uint8]:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(f"{where}: holds {labels.dtype} {labels.shape}; labels are integers (N,)")
    if len(labels) != num_glyphs:
        raise InputError(f"{where}: holds {len(labels)} labels for {num_glyphs} glyphs")
    is_wrong = (labels < 0) | (labels > 255)
    if is_wrong.any():
        raise InputError(f"{where}: holds the label {labels[is_wrong][0]}; allowed are 0..255")
    return labels.astype(np.uint8)


def read_npz(files: Sequence[Path]) -> list[Part]:
    """Read an archive with `images` uint8 (N, h, w) and `labels`, any integers (N,)."""
    (path,) = files
    try:
        with zipfile.ZipFile(path) as archive:
            images = np.ascontiguousarray(_npz_array(archive, path, "images"))
            labels = _npz_array(archive, path, "labels")
    except _DAMAGED_NPZ as error:
        raise InputError(f"{path}: is no readable npz file ({error})") from error
    return [(images, _checked_labels(f"{path}: labels", labels, len(images)))]


def _npz_array(archive: zipfile.ZipFile, path: Path, name: str) -> NDArray[Any]:
    """Read one array of an archive, if its header promises numbers, as many as are there."""
    where = f"{path}: {name}"
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise InputError(f"{path}: has no array {name!r}; needed are images and labels") from None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{where}: is packed in another way than np.savez_compressed does")
    if member.file_size > _MAX_BYTES:
        raise InputError(f"{where}: holds {member.file_size} bytes; allowed are {_MAX_BYTES}")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        data_bytes = member.file_size - file.tell()
    if dtype.hasobject:
        raise InputError(f"{where}: holds pickled objects, which are never loaded; save numbers")
    if name == "images":
        _check_images(where, dtype, shape)
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes != data_bytes:
        raise InputError(f"{where}: promises {num_bytes} bytes {shape} and holds {data_bytes}")
    with archive.open(member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def read_pngs(files: Sequence[Path]) -> list[Part]:
    """Read PNGs of one size; the name of the folder of each gives its label."""
    from PIL import Image

    label_of = _class_labels(sorted({path.parent.name for path in files}))
    glyphs: list[NDArray[np.uint8]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for path in files:
            glyphs.append(_read_png(path))
            if glyphs[-1].shape != glyphs[0].shape:
                (height, width), (first_height, first_width) = glyphs[-1].shape, glyphs[0].shape
                raise InputError(
                    f"{path}: is {height}x{width} px, {files[0]} is {first_height}x{first_width}; "
                    "all must have one size"
                )
    where = files[0].parent.parent
    _check_images(where, glyphs[0].dtype, (len(files), *glyphs[0].shape))
    labels = np.array([label_of[path.parent.name] for path in files])
    return [(np.stack(glyphs), _checked_labels(where, labels, len(files)))]


def _class_labels(names: Sequence[str]) -> dict[str, int]:
    """Map class folders to labels: their names if all are 0..255, else their places."""
    if all(re.fullmatch("[0-9]+", name) and int(name) <= 255 for name in names):
        return {name: int(name) for name in names}
    return {name: label for label, name in enumerate(names)}


def _read_png(path: Path) -> NDArray[np.uint8]:
    """Decode a PNG to grey, uint8 (h, w); what is transparent lies on black."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            _check_images(path, np.dtype(np.uint8), (1, image.height, image.width))
            if image.mode.startswith("I"):
                raise InputError(f"{path}: has 16 bits a pixel; store it with 8")
            opaque: Image.Image = image
            if image.has_transparency_data:
                black = Image.new("RGBA", image.size, "black")
                opaque = Image.alpha_composite(black, image.convert("RGBA"))
            return np.array(opaque.convert("L"))
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise InputError(f"{path}: is no readable PNG ({error})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: is too large ({error})") from error
