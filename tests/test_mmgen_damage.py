"""Damage to a shard is answered by one line that names it, and never returned as data."""

import hashlib
import json
import os
import pickle
import re
import shutil
import socket
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from shard_data import SHARD, commit, frames_of, store

import mmgen
from mmgen.errors import ShardError
from mmgen.pipeline import generate_dataset
from mmgen.presets import load_config
from mmgen.shard.checks import open_file, opened
from mmgen.shard.codecs import CODECS
from mmgen.verify import find_damage


@pytest.fixture
def tiny_dataset(tmp_path):
    """Return a set of one shard with two sequences."""
    config = load_config(assignments=["canvas=28", "frames=2", "digits=1"])
    generate_dataset(tmp_path / "tiny", config, {"train": 2}, workers=1)
    return tmp_path / "tiny"


def refusal(read):
    """Return the one line with which reading is refused, or None where it is not."""
    try:
        read()
    except ShardError as error:
        return str(error)
    return None


def flipped(content, stride):
    """Yield copies of the content in which one bit of one byte in every `stride` is turned."""
    for number, place in enumerate(range(0, len(content), stride)):
        yield content[:place] + bytes([content[place] ^ 1 << number % 8]) + content[place + 1 :]


def test_a_flipped_bit_is_refused(tiny_dataset):
    shard = tiny_dataset / SHARD
    for damaged in flipped(shard.read_bytes(), 7):
        shard.write_bytes(damaged)
        line = refusal(lambda: mmgen.open(tiny_dataset)["train"][0])
        assert re.fullmatch(f"{shard}: is not the file that the manifest lists .*", line)


def test_a_shard_that_changed_since_it_was_open_is_refused(tiny_dataset):
    split = mmgen.open(tiny_dataset)["train"]
    assert split[1].index == 1
    shard = tiny_dataset / SHARD
    shard.write_bytes(next(flipped(shard.read_bytes()[::-1], 1))[::-1])
    again = pickle.loads(pickle.dumps(split))
    assert "is not the file that the manifest lists" in refusal(lambda: again[1])


def test_frames_that_change_while_the_shard_is_open_are_refused(tiny_dataset):
    split = mmgen.open(tiny_dataset)["train"]
    out = np.empty((2, *split.sequence_shape), np.uint8)
    split.read([0, 1], out)
    expected, refused = out.tobytes(), 0
    shard = tiny_dataset / SHARD
    for damaged in flipped(shard.read_bytes(), 3):
        with shard.open("r+b") as file:  # the file that is open, not a new one of its name
            file.write(damaged)
        if line := refusal(lambda: split.read([0, 1], out)):
            assert re.search(r"sequence [01] does not (unpack|match its checksum); delete", line)
            refused += 1
        else:
            assert out.tobytes() == expected
    assert refused > 30


@pytest.mark.parametrize("is_vouched_for", [False, True])
def test_a_truncated_shard_is_refused(tiny_dataset, vouch_for, is_vouched_for):
    shard = tiny_dataset / SHARD
    content = shard.read_bytes()
    for size in (*range(0, len(content), 250), len(content) - 1):
        shard.write_bytes(content[:size])
        problem = f"has {size} bytes, the manifest says {len(content)}: truncated or replaced"
        if is_vouched_for:
            vouch_for(tiny_dataset, SHARD)
            problem = "is damaged"
        line = refusal(lambda: mmgen.open(tiny_dataset)["train"][0])
        assert re.fullmatch(f"{shard}: {problem}; delete the file and run .*", line)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("other/train/train-000000.h5", "another data set .seed is 6, the manifest says 5."),
        ("copy/test/test-000000.h5", "another data set .split is test, the manifest says train."),
        ("copy/train/train-000001.h5", "holds the sequences from 7 on, the manifest says 0"),
    ],
)
def test_a_foreign_shard_under_the_right_name_is_refused(
    copied_dataset, small_config, vouch_for, source, problem
):
    root = copied_dataset.parent
    generate_dataset(root / "other", small_config, {"train": 7}, seed=6)
    (root / source).replace(copied_dataset / SHARD)
    with pytest.raises(ShardError, match=r"bytes, the manifest says .*: truncated or replaced"):
        mmgen.open(copied_dataset)["train"][0]
    vouch_for(copied_dataset, SHARD)
    with pytest.raises(ShardError, match=rf"train-000000\.h5: .*{problem}; delete the file and r"):
        mmgen.open(copied_dataset)["train"][0]


def test_a_missing_shard_is_named_but_an_open_one_needs_no_name(copied_dataset):
    split = mmgen.open(copied_dataset)["train"]
    before = split[0].position
    (copied_dataset / SHARD).unlink()
    assert np.array_equal(split[0].position, before, equal_nan=True)
    again = mmgen.open(copied_dataset)["train"]
    assert again[7].index == 7
    with pytest.raises(ShardError, match=r"train-000000\.h5: is missing; run"):
        again[0]


def test_a_shard_that_shrinks_while_it_is_open_is_refused(tiny_dataset):
    split = mmgen.open(tiny_dataset)["train"]
    shard, out = split.shard(0), np.empty((1, *split.sequence_shape), np.uint8)
    os.truncate(tiny_dataset / SHARD, 3000)
    assert f"{SHARD}: sequence 1 does not match its checksum" in refusal(
        lambda: split.read([1], out)
    )
    assert f"{SHARD}: is damaged; delete" in refusal(shard.annotations)


def test_a_shard_that_shrinks_under_hdf5_is_refused(tmp_path):
    """h5py 3.16 takes a read that was cut short for a whole one, and returns what memory held."""
    path = store(tmp_path / "set", *frames_of(3, 4, 12, 10), "none") / SHARD
    _, first, last = chunk_places(path)[1]

    def read():
        with opened(path, descriptor) as file:
            os.truncate(path, (first + last) // 2)
            file["frames"][1]

    descriptor = open_file(path)
    assert refusal(read).startswith(f"{path}: is damaged; delete")
    os.close(descriptor)


def test_shards_of_several_shapes_are_no_split(copied_dataset, vouch_for):
    wide = load_config(assignments=["canvas=32x41", "frames=3..5", "digits=1..2"])
    root, second = copied_dataset.parent / "wide", "train/train-000001.h5"
    generate_dataset(root, wide, {"train": 14}, seed=5, shard_size=7)
    (root / second).replace(copied_dataset / second)
    vouch_for(copied_dataset, second)
    split = mmgen.open(copied_dataset)["train"]
    out = np.empty((2, *split.sequence_shape), np.uint8)
    shapes = r"holds sequences of \(5, 32, 41\), other shards of \(5, 32, 40\); delete"
    with pytest.raises(ShardError, match=rf"train-000001\.h5: {shapes}"):
        split.read([0, 8], out)


def bind(path):
    """Make a socket, whose whole path may be longer than a socket's name."""
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (os.mkfifo, "is no file"),
        (os.mkdir, "is no file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no file"),
        (lambda path: path.symlink_to(path), "cannot be opened .Too many levels of symbolic l"),
        (bind, "cannot be opened .No such device or address"),
    ],
)
def test_what_is_no_file_is_refused_at_once(tiny_dataset, make, problem):
    shard = tiny_dataset / SHARD
    shard.unlink()
    make(shard)
    for read in (lambda: mmgen.open(tiny_dataset)["train"][0], lambda: raise_damage(tiny_dataset)):
        assert re.match(rf"{shard}: {problem}.*; delete the file and run", refusal(read))


def raise_damage(root):
    for line in find_damage(mmgen.open(root), lambda _: None):
        raise ShardError(line)


# A single flipped bit, in a file for which the manifest vouches: only the shard itself can tell.

SHAPES = {"whole": (3, 4, 12, 10), "cut along time": (3, 5, 400, 700)}


def smooth_frames_of(*shape):
    """Return frames that every codec shrinks."""
    frames, annotations = frames_of(*shape)
    frames[..., 1:] = frames[..., :1] // 64
    return frames, annotations


def chunk_places(path):
    """Return, for each chunk of frames: its sequence, and where it begins and ends."""
    with h5py.File(path) as file:
        infos = []
        file["frames"].id.chunk_iter(infos.append)
        return [(i.chunk_offset[0], i.byte_offset, i.byte_offset + i.size) for i in infos]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("codec", CODECS)
def test_a_flipped_bit_in_a_chunk_is_named_though_the_manifest_vouches(tmp_path, codec, shape):
    frames, mandatory = smooth_frames_of(*SHAPES[shape])
    root = store(tmp_path / "set", frames, mandatory, codec)
    shard, out = root / SHARD, np.empty_like(frames)
    content, places = shard.read_bytes(), chunk_places(root / SHARD)
    assert len(places) == 3 * (1 if shape == "whole" else 2)
    for row, first, last in places:
        for place in (first, first + 9, (first + last) // 2, last - 1):
            damaged = bytearray(content)
            damaged[place] ^= 1 << place % 8
            shard.write_bytes(damaged)
            commit(root, len(frames))
            line = refusal(lambda: mmgen.open(root)["train"].read(range(3), out))
            assert re.match(rf"{shard}: sequence {row} does not (match its|unpack).*; delete", line)
            assert list(find_damage(mmgen.open(root), lambda _: None)) == [line]


def sweep(root, stride):
    """Flip bits all over the shard of a set, one at a time; return how many, how many refused."""
    shard, manifest = root / SHARD, json.loads((root / "manifest.json").read_text())
    expected, refused = everything_in(root), 0
    for number, damaged in enumerate(flipped(shard.read_bytes(), stride), 1):
        shard.write_bytes(damaged)
        sha256 = hashlib.sha256(damaged).hexdigest()
        manifest["splits"]["train"]["shards"][0]["sha256"] = sha256
        (root / "manifest.json").write_text(json.dumps(manifest))
        found = []
        if line := refusal(lambda: found.extend(everything_in(root))):  # noqa: B023
            assert line.startswith(f"{shard}: ")
            refused += 1
        else:
            assert found == expected, number
    return number, refused


def everything_in(root):
    split = mmgen.open(root)["train"]
    rows = [value for sequence in split for value in vars(sequence).values() if value is not None]
    return [
        np.asarray(value).tobytes() for value in (*rows, *split.shard(0).annotations().values())
    ]


def test_a_flipped_bit_anywhere_is_refused_or_harmless(tiny_dataset, start_python):
    """In a process of its own: HDF5 may crash on damage, or not come back."""
    code = (
        f"import sys; sys.path.append({str(Path(__file__).parent)!r}); from pathlib import Path; "
        "import test_mmgen_damage; print(*test_mmgen_damage.sweep(Path(sys.argv[1]), 23))"
    )
    told, problems = start_python("-c", code, tiny_dataset).communicate(timeout=100)
    assert not problems
    flips, refused = map(int, told.split())
    assert flips > 250
    assert refused > flips // 2


def test_chunks_that_were_stored_past_their_filter_are_read_as_they_are(tmp_path):
    frames, mandatory = frames_of(3, 4, 12, 10)
    root = store(tmp_path / "set", frames, mandatory)
    rewrite_chunk(root, frames[1].tobytes(), filter_mask=1)
    out = np.empty_like(frames)
    mmgen.open(root)["train"].read(range(3), out)
    assert np.array_equal(out, frames)


@pytest.mark.parametrize(
    ("stored", "filter_mask", "problem"),
    [
        (b"x" * 300, 1, "sequence 1 does not unpack"),
        (b"x" * 300, 0, "sequence 1 does not unpack"),
        (b"x" * 10_000, 1, "has chunks larger than what they hold"),
    ],
)
def test_a_chunk_of_nonsense_that_its_checksum_vouches_for_is_refused(
    tmp_path, stored, filter_mask, problem
):
    frames, mandatory = frames_of(3, 4, 12, 10)
    root = store(tmp_path / "set", frames, mandatory)
    rewrite_chunk(root, stored, filter_mask)
    line = refusal(lambda: mmgen.open(root)["train"].read(range(3), np.empty_like(frames)))
    assert line.startswith(f"{root / SHARD}: {problem}; delete")


def rewrite_chunk(root, stored, filter_mask):
    """Give sequence 1 another chunk, for which checksum and manifest vouch."""
    with h5py.File(root / SHARD, "r+") as file:
        file["frames"].id.write_direct_chunk((1, 0, 0, 0), stored, filter_mask)
        file["checksum"][1] = zlib.crc32(stored)
    commit(root, 3)


def test_a_shard_with_other_counts_than_the_manifest_says_is_refused(copied_dataset, edit_manifest):
    def lie(data):
        train = data["splits"]["train"]
        train["count"], train["shards"][2]["count"] = 21, 7

    edit_manifest(copied_dataset, lie)
    third = copied_dataset / "train/train-000002.h5"
    line = refusal(lambda: mmgen.open(copied_dataset)["train"][20])
    assert line.startswith(f"{third}: frames is missing or has not 7 rows; delete")


ONE_TERA = 2**40
FRAMES = {"name": "frames", "shape": (2, 2, 28, 28), "dtype": "u1"}


def map_outside(file, elsewhere):
    layout = h5py.VirtualLayout(FRAMES["shape"], "u1")
    layout[:] = h5py.VirtualSource(elsewhere, "frames", FRAMES["shape"])
    file.create_virtual_dataset("frames", layout)


def link_outside(file, elsewhere):
    file["frames"] = h5py.ExternalLink(elsewhere, "frames")


def huge(name, **changes):
    return {"name": name, "shape": (2,), "maxshape": (None,), "chunks": (2**31,)} | changes


def create(*datasets):
    """Return a function that adds the mandatory frames, changed so, and further datasets."""

    def craft(file, _):
        for changes in datasets:
            file.create_dataset(**FRAMES | changes)

    return craft


CRAFTED = {
    "frames are uint8 .2, 1099511627776, 28, 28.": create(
        {"shape": (2, ONE_TERA, 28, 28), "chunks": (1, 1, 28, 28)}
    ),
    "frames promises more than the file can hold": create(
        {"chunks": (1, 1000, 2000, 2000), "maxshape": (None,) * 4}
    ),
    "label promises more than the file can hold": create(
        {}, {"name": "label", "shape": (2, ONE_TERA), "chunks": (1, 64)}
    ),
    "glyph_index promises more than the file can hold": create({}, huge("glyph_index")),
    "mask promises more than the file can hold": create(
        {}, huge("mask", shape=(2, 2), maxshape=(None, None), chunks=(1, 2**31))
    ),
    r"mask is uint8 .2, 1099511627776, 28, 28., frames are .2, 2, 28, 28.": create(
        {}, {"name": "mask", "shape": (2, ONE_TERA, 28, 28), "dtype": "u1", "chunks": (1, 1, 9, 9)}
    ),
    "mask is float32": create({}, FRAMES | {"name": "mask", "dtype": "f4"}),
    "mask is not stored in the file itself": create(
        {}, FRAMES | {"name": "mask", "external": [("/etc/passwd", 0, 3136)]}
    ),
    "frames is missing or has not 2 rows": create({"shape": (3, 2, 28, 28)}),
    "frames are float32": create({"dtype": "f4"}),
    "sequence 0 does not match its checksum": create(
        {"data": np.zeros((2, 2, 28, 28)), "chunks": (1, 2, 28, 28), "compression": "gzip"}
    ),
    "has chunks missing or past its end": create({"chunks": (1, 2, 28, 28), "compression": "gzip"}),
    "frames is not stored in the file itself": create({"external": [("/etc/passwd", 0, 3136)]}),
    "frames is not .* in the file itself": link_outside,
    "frames is not stored in the file .*": map_outside,
}


@pytest.mark.parametrize("problem", CRAFTED)
def test_a_crafted_shard_is_refused_before_memory_is_taken(tiny_dataset, vouch_for, problem):
    true = shutil.copy(tiny_dataset / SHARD, tiny_dataset / "true.h5")
    with h5py.File(true) as file:
        attributes = dict(file.attrs)
    with h5py.File(tiny_dataset / SHARD, "w") as file:
        file.attrs.update(attributes)
        file.create_dataset("num_frames", data=np.array([2, 2], np.int32))
        file.create_dataset("index", data=np.arange(2))
        file.create_dataset("checksum", data=np.zeros(2, np.uint32))
        CRAFTED[problem](file, str(true))
    vouch_for(tiny_dataset, SHARD)
    with pytest.raises(ShardError, match=rf"train-000000\.h5: {problem}.*; delete the file and ru"):
        mmgen.open(tiny_dataset)["train"][0]
