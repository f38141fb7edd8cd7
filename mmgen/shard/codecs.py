"""How a shard's frames are packed: as HDF5's registered filters do it, by faster libraries.

What is packed here any HDF5 program with the filter reads, and the other way round. All of them run
outside the interpreter lock.
"""

import struct
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import deflate
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from mmgen.errors import InputError

DEFAULT = "gzip"
_DEFLATE_LEVEL = 1
# Levels 1 and 2 of ISA-L 2.32 file the third byte by the address of a buffer, so that what they
# find, and the bytes of a shard, differ from run to run. Level 0 does not, and is faster; frames of
# `srivastava` take a third more bytes.
_ISAL_LEVEL = 0
_ZSTD_LEVEL = 1
_GZIP = {"compression": "gzip", "compression_opts": _DEFLATE_LEVEL}
_LZ4_HEADER = struct.Struct(">QII")  # bytes of the whole, of a block, of the first packed block
_LZ4_BLOCK = struct.Struct(">I")  # bytes of a further packed block


class BadChunk(ValueError):
    """A chunk that does not unpack to what it should."""


@dataclass(frozen=True)
class Codec:
    """One way to pack a chunk.

    options      what names the HDF5 filter that does the same, for `create_dataset`; HDF5 itself
                 need not have it to store chunks that are packed already
    pack         uint8 array in C order -> the bytes to store; any thread
    unpack_into  stored bytes, writable bytes (a flat memoryview) that they fill -> None; any
                 thread; takes no more memory than those; BadChunk where they are not filled exactly
    """

    name: str
    options: Mapping[str, Any]
    pack: Callable[[NDArray[np.uint8]], bytes]
    unpack_into: Callable[[bytes, memoryview], None]


class _Recipe(Protocol):
    def __call__(self) -> Codec: ...


@cache
def find_codec(name: str) -> Codec:
    """Return a codec by its name; InputError if there is none, or its library is missing."""
    if name not in _RECIPES:
        raise InputError(f"codec {name!r} does not exist; choose from: {', '.join(CODECS)}")
    return _RECIPES[name]()


def find_filter(number: int | None) -> Codec | None:
    """Return the codec of an HDF5 filter, None if it is none of ours; InputError as above."""
    return find_codec(_FILTERS[number]) if number in _FILTERS else None


def _none() -> Codec:
    return Codec("none", {}, lambda array: array.tobytes(), _fill)


def _gzip() -> Codec:
    def pack(array: NDArray[np.uint8]) -> bytes:
        packed: bytes = isal_zlib.compress(array.data, _ISAL_LEVEL)
        if len(packed) > array.nbytes:  # its codes are made for what shrinks
            packed = zlib.compress(array.data, 0)
        return packed

    def unpack_into(stored: bytes, out: memoryview) -> None:
        try:
            raw = deflate.zlib_decompress(stored, len(out))
        except (deflate.DeflateError, ValueError) as error:
            raise BadChunk(str(error)) from error
        _fill(raw, out)

    return Codec("gzip", _GZIP, pack, unpack_into)


def _zstd() -> Codec:
    zstandard = _library("zstandard", "zstd")

    class Contexts(threading.local):
        """One of each a thread: they hold state, and a new one a chunk costs 5 us."""

        def __init__(self) -> None:
            # HDF5's own filter writes no checksum; one costs nothing and any zstd checks it.
            self.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
            self.decompressor = zstandard.ZstdDecompressor()

    contexts = Contexts()

    def pack(array: NDArray[np.uint8]) -> bytes:
        packed: bytes = contexts.compressor.compress(array.data)
        return packed

    def unpack_into(stored: bytes, out: memoryview) -> None:
        try:
            _check_count(zstandard.frame_content_size(stored), out)  # it would take what is said
            raw = contexts.decompressor.decompress(stored, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise BadChunk(str(error)) from error
        _fill(raw, out)

    return Codec("zstd", _plugin(32015, _ZSTD_LEVEL), pack, unpack_into)


def _lz4() -> Codec:
    cramjam = _library("cramjam", "lz4")

    def pack(array: NDArray[np.uint8]) -> bytes:
        flat, size = array.reshape(-1), array.nbytes
        packed = bytes(cramjam.lz4.compress_block(flat, store_size=False))
        if len(packed) >= size:  # the filter's sign for a block stored as it is
            packed = flat.tobytes()
        return _LZ4_HEADER.pack(size, size, len(packed)) + packed

    def unpack_block(content: memoryview, out: memoryview) -> None:
        if len(content) == len(out):
            out[:] = content
        else:
            count = cramjam.lz4.decompress_block_into(content, out, output_len=len(out))
            _check_count(count, out)

    def unpack_into(stored: bytes, out: memoryview) -> None:
        try:
            size, block, packed = _LZ4_HEADER.unpack_from(stored)
            _check_count(size, out)
            content, place = memoryview(stored), _LZ4_HEADER.size
            for first in range(0, size, block):  # ours is one; other writers may cut smaller ones
                if first:
                    (packed,) = _LZ4_BLOCK.unpack_from(stored, place)
                    place += _LZ4_BLOCK.size
                unpack_block(content[place : place + packed], out[first : first + block])
                place += packed
        except (struct.error, ValueError, cramjam.DecompressionError) as error:
            raise BadChunk(str(error)) from error
        if place != len(stored):
            raise BadChunk(f"has {len(stored)} bytes, its blocks say {place}")

    return Codec("lz4", _plugin(32004), pack, unpack_into)


_RECIPES: dict[str, _Recipe] = {"gzip": _gzip, "zstd": _zstd, "lz4": _lz4, "none": _none}
_FILTERS = {None: "none", 1: "gzip", 32015: "zstd", 32004: "lz4"}
CODECS = tuple(_RECIPES)


def pack_checked(array: NDArray[Any]) -> bytes:
    """Pack an array in C order as HDF5's filters shuffle, gzip and fletcher32 do in a row."""
    rows = array.reshape(-1).view(np.uint8).reshape(-1, array.itemsize)
    packed = bytes(deflate.zlib_compress(np.ascontiguousarray(rows.T).data, _DEFLATE_LEVEL))
    return packed + struct.pack("<I", _fletcher32(packed))


# What makes HDF5 unpack it again, for `create_dataset`.
CHECKED = {**_GZIP, "shuffle": True, "fletcher32": True}


def _fletcher32(data: bytes) -> int:
    """Compute HDF5's checksum: sums modulo 65535 over big-endian words of 16 bits."""
    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2").astype(np.int64)
    first, second = int(words.sum()), int(words @ np.arange(len(words), 0, -1))
    # Carries are folded back in, which makes 65535, not 0, of what 65535 divides.
    low, high = ((total - 1) % 65535 + 1 if total else 0 for total in (first, second))
    return high << 16 | low


def _plugin(number: int, *parameters: int) -> dict[str, Any]:
    return {"compression": number, "compression_opts": parameters, "allow_unknown_filter": True}


def _fill(raw: bytes | bytearray, out: memoryview) -> None:
    _check_count(len(raw), out)
    out[:] = raw


def _check_count(count: int, out: memoryview) -> None:
    if count != len(out):
        raise BadChunk(f"unpacks to {count} bytes, not {len(out)}")


def _library(name: str, codec: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"codec {codec} needs the package {name}: pip install 'moving-mnist[codecs]'"
        ) from error
