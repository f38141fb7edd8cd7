"""Codecs: HDF5 reads what we pack, we read what it packs, and no chunk is trusted."""

import struct
import zlib
from itertools import product

import h5py
import numpy as np
import pytest
from shard_data import ATTRIBUTES, SHARD, commit, frames_of, store

import mmgen
from mmgen.errors import InputError
from mmgen.shard.codecs import CODECS, BadChunk, find_codec

hdf5plugin = pytest.importorskip("hdf5plugin", reason="the extra 'codecs' is not installed")

KINDS = {
    "noise": lambda noise: noise,
    "black": lambda noise: noise * 0,
    "digits": lambda noise: np.where(noise > 240, noise, 0).astype(np.uint8),
}
SHAPES = [(3, 4, 12, 10), (2, 1, 1, 1), (2, 3, 9, 7, 3), (2, 5, 400, 700)]
CASES = list(product(KINDS, SHAPES))


def read_all(root):
    split = mmgen.open(root)["train"]
    out = np.empty((len(split), *split.sequence_shape), np.uint8)
    split.read(range(len(split)), out)
    return out


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_plain_h5py_reads_what_we_pack(tmp_path, codec, kind, shape):
    noise, mandatory = frames_of(*shape)
    frames = KINDS[kind](noise)
    root = store(tmp_path / "set", frames, mandatory, codec)
    with h5py.File(root / SHARD) as file:
        assert np.array_equal(file["frames"][()], frames)
    assert np.array_equal(read_all(root), frames)


FILTERS = {
    "gzip": {"compression": "gzip", "compression_opts": 6},
    "zstd": dict(hdf5plugin.Zstd(clevel=5)),
    "lz4": dict(hdf5plugin.LZ4()),
    "lz4 in blocks": dict(hdf5plugin.LZ4(nbytes=100)),
    "none": {},
}
FOREIGN = {
    "bitshuffle": dict(hdf5plugin.Bitshuffle()),
    "gzip behind shuffle": {"compression": "gzip", "shuffle": True},
    "chunks of two": {"chunks": (2, 4, 12, 10), "compression": "gzip"},
    "cut across": {"chunks": (1, 4, 6, 10)},
    "contiguous": {"chunks": None},
}


def store_by_h5py(root, frames, mandatory, options):
    """Write a shard as another program would, its checksums taken from what HDF5 stored."""
    (root / SHARD).parent.mkdir(parents=True)
    with h5py.File(root / SHARD, "w") as file:
        file.attrs.update(ATTRIBUTES)
        stored = file.create_dataset("frames", data=frames, **options)
        sums = np.zeros(len(frames), np.uint32)
        for chunk in stored.iter_chunks() if stored.chunks else ():
            corner = tuple(part.start for part in chunk)
            raw = stored.id.read_direct_chunk(corner)[1]
            sums[corner[0]] = zlib.crc32(raw, sums[corner[0]])
        for name, values in (mandatory | {"checksum": sums}).items():
            file[name] = values
    return commit(root, len(frames))


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_we_read_what_hdf5_packs(tmp_path, name, kind, shape):
    noise, mandatory = frames_of(*shape)
    frames = KINDS[kind](noise)
    step = 4 if shape[1] == 4 else max(1, shape[1] // 2)
    options = {"chunks": (1, step, *shape[2:])} | FILTERS[name]
    root = store_by_h5py(tmp_path / "set", frames, mandatory, options)
    assert np.array_equal(read_all(root), frames)


@pytest.mark.parametrize("name", FOREIGN)
def test_hdf5_reads_what_is_packed_or_cut_in_another_way(tmp_path, name):
    frames, mandatory = frames_of(4, 4, 12, 10)
    options = {"chunks": (1, 4, 12, 10)} | FOREIGN[name]
    root = store_by_h5py(tmp_path / "set", frames, mandatory, options)
    assert np.array_equal(read_all(root), frames)
    assert np.array_equal(mmgen.open(root)["train"][3].frames, frames[3])


READ_WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(["hdf5plugin", "cramjam", "zstandard"]))
import mmgen
try:
    mmgen.open(sys.argv[1])["train"][0]
except mmgen.errors.InputError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (FILTERS["lz4"], "codec lz4 needs the package cramjam: pip install"),
        (FILTERS["zstd"], "codec zstd needs the package zstandard: pip install"),
        (
            FILTERS["zstd"] | {"chunks": (2, 4, 12, 10)},
            "/train/train-000000.h5: frames are packed by HDF5's filter 32015, which is not here",
        ),
    ],
)
def test_a_missing_library_is_named_with_the_extra_that_has_it(
    tmp_path, start_python, options, problem
):
    frames, mandatory = frames_of(2, 4, 12, 10)
    options = {"chunks": (1, 4, 12, 10)} | options
    root = store_by_h5py(tmp_path / "set", frames, mandatory, options)
    told, problems = start_python("-c", READ_WITHOUT, root).communicate(timeout=60)
    assert problem in told, problems
    assert "pip install 'moving-mnist[codecs]'" in told


def test_an_unknown_codec_is_refused():
    with pytest.raises(InputError, match="codec 'lzf' does not exist; choose from: gzip, zstd, "):
        find_codec("lzf")


# Chunks that anybody may have written.

SIZE = 4096
PLAIN = np.arange(SIZE, dtype=np.uint32).view(np.uint8)[::4] % 251


def unpack(codec, stored):
    """Unpack into the middle of a buffer; what lies around it must stay as it was."""
    buffer = bytearray(b"\xa5" * 3 * SIZE)
    find_codec(codec).unpack_into(stored, memoryview(buffer)[SIZE : 2 * SIZE])
    assert buffer[:SIZE] == buffer[2 * SIZE :] == b"\xa5" * SIZE
    return bytes(buffer[SIZE : 2 * SIZE])


def lz4(size, block, packed, content):
    return struct.pack(">QII", size, block, packed) + content


TERA = 1 << 40
HOSTILE = {
    "gzip": [],
    "zstd": [
        b"\x28\xb5\x2f\xfd\xe0" + TERA.to_bytes(8, "little") + b"\x01\x00\x00",
        b"\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00",  # says no size, but a window of 1 TiB
        find_codec("zstd").pack(PLAIN) * 2,
    ],
    "lz4": [
        lz4(TERA, SIZE, 4, b"\0" * 4),
        lz4(SIZE, 0, 4, b"\0" * 4),
        lz4(SIZE, SIZE, 2**32 - 1, b"\0" * 4),
        lz4(SIZE, 1, 1, b"\0"),
        lz4(SIZE, SIZE, SIZE, bytes(SIZE) + b"\0"),
        lz4(SIZE, SIZE, 4, b"\x1f\0\xff\xff"),  # a match from before the beginning
    ],
    "none": [],
}


@pytest.mark.parametrize("codec", CODECS)
def test_a_hostile_chunk_is_refused(codec):
    pack = find_codec(codec).pack
    cut = [pack(PLAIN)[:size] for size in (0, 1, 3, 15, 17, len(pack(PLAIN)) - 1)]
    others = [pack(np.zeros(size, np.uint8)) for size in (SIZE - 1, SIZE + 1, 1 << 24)]
    for stored in (*HOSTILE[codec], *cut, *others, b"\xff" * 100):
        with pytest.raises(BadChunk):
            unpack(codec, stored)


@pytest.mark.parametrize("codec", CODECS)
def test_no_flipped_bit_writes_outside_the_buffer(codec):
    sound = find_codec(codec).pack(PLAIN)
    assert unpack(codec, sound) == PLAIN.tobytes()
    refused = 0
    for bit in range(0, 8 * len(sound), 5):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            unpack(codec, bytes(damaged))
        except BadChunk:
            refused += 1
    assert (refused == 0) == (codec == "none")  # whose bytes are data, all of them


def test_a_bomb_takes_no_memory(start_python):
    """Chunks of 256 MiB of zeros, where 4 KiB are due, in a process that may take 100 MiB more."""
    code = (
        "import resource, sys; import numpy as np\n"
        "from mmgen.shard.codecs import CODECS, BadChunk, find_codec\n"
        "bombs = {c: find_codec(c).pack(np.zeros(1 << 28, np.uint8)) for c in CODECS[:3]}\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)\n"
        "for codec, bomb in bombs.items():\n"
        "    try: find_codec(codec).unpack_into(bomb, memoryview(bytearray(4096)))\n"
        "    except BadChunk: print(codec)\n"
    )
    told, problems = start_python("-c", code).communicate(timeout=60)
    assert told.split() == list(CODECS[:3]), problems
