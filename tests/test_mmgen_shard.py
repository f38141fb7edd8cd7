"""Shards: what is stored is what was rendered, as FORMAT.md says, and damage is never returned."""

import pickle
import re
import shutil
import zlib
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest

import mmgen
from mmgen.errors import InputError, ShardError
from mmgen.pipeline import generate_dataset
from mmgen.presets import load_config
from mmgen.shard import schema
from mmgen.shard.manifest import Manifest, SplitEntry
from mmgen.shard.reader import Sequence
from mmgen.shard.writer import ShardWriter

FORMAT = (Path(mmgen.__file__).parent / "shard" / "FORMAT.md").read_text()
SHARD = "train/train-000000.h5"


def test_stored_equals_rendered(small_dataset, small_config):
    dataset = mmgen.open(small_dataset)
    assert {name: len(dataset[name]) for name in dataset} == {"train": 20, "val": 3, "test": 9}
    for name in dataset:
        block = mmgen.render(small_config, len(dataset[name]), split=name, seed=5)
        for place, stored in enumerate(dataset[name]):
            for field in fields(Sequence):
                if field.name == "mask":
                    assert stored.mask is None
                    continue
                rendered, found = getattr(block, field.name)[place], getattr(stored, field.name)
                assert np.asarray(found, rendered.dtype).tobytes() == rendered.tobytes()
                assert isinstance(found, int) or found.dtype == rendered.dtype


def test_frames_are_read_in_any_order(small_dataset):
    split = mmgen.open(small_dataset)["train"]
    order = [19, 3, 3, -1, 0]
    out = np.empty((5, *split.sequence_shape), np.uint8)
    num_frames = split.read(order, out)
    for place, index in enumerate(order):
        assert num_frames[place] == split[index % 20].num_frames
        assert np.array_equal(out[place], split[index % 20].frames)
    assert split[-1].index == 19


@pytest.mark.parametrize("index", [20, -21])
def test_a_place_outside_the_split_is_an_index_error(small_dataset, index):
    split = mmgen.open(small_dataset)["train"]
    out = np.empty((1, *split.sequence_shape), np.uint8)
    for read in (lambda: split[index], lambda: split.read([index], out)):
        with pytest.raises(IndexError, match=f"sequence {index} of train, which has 20"):
            read()


def test_plain_h5py_reads_every_dataset_of_the_format(small_dataset, small_config):
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \(([^)]*)\) \|", FORMAT, re.MULTILINE)
    sizes = {"N": 7, "T": 5, "H": 32, "W": 40, "K": 2, "2": 2, "4": 4}
    block = mmgen.render(small_config, 7, split="train", seed=5)
    with h5py.File(small_dataset / SHARD) as file:
        assert sorted(name for name, _, _ in rows) == sorted([*file, "mask"])
        for name, dtype, letters in rows:
            if name == "mask":
                continue  # stored only where asked for: below
            stored, values = file[name], file[name][()]
            assert values.dtype == dtype, name
            assert values.shape == tuple(sizes[part] for part in re.findall(r"\w+", letters)), name
            assert name == "checksum" or values.tobytes() == getattr(block, name).tobytes(), name
            guards = (stored.compression, stored.shuffle, stored.fletcher32)
            assert guards == ("gzip", name != "frames", name != "frames")
        named = FORMAT.split("Root attributes:")[1].split(".\n")[0]
        assert set(file.attrs) == set(re.findall(r"`(\w+)`", named))
        assert (file.attrs["seed"], file.attrs["split"]) == (5, b"train")
        stored = [file["frames"].id.read_direct_chunk((n, 0, 0, 0))[1] for n in range(7)]
        assert file["checksum"][()].tolist() == [zlib.crc32(chunk) for chunk in stored]


def test_a_shard_that_is_open_in_plain_h5py_reads_the_same(small_dataset):
    with h5py.File(small_dataset / SHARD) as file:
        split = mmgen.open(small_dataset)["train"]
        for n, frames in enumerate(file["frames"]):
            assert np.array_equal(frames, split[n].frames)


def test_large_sequences_are_cut_along_time(tmp_path):
    config = load_config(assignments=["canvas=512", "frames=6"])
    generate_dataset(tmp_path / "large", config, {"test": 2}, seed=1)
    with h5py.File(tmp_path / "large/test/test-000000.h5") as file:
        frames = file["frames"]
        assert frames.chunks == (1, 4, 512, 512)
        stored = [frames.id.read_direct_chunk((1, t, 0, 0))[1] for t in (0, 4)]
        assert file["checksum"][1] == zlib.crc32(b"".join(stored))
        by_h5py = frames[()]
    rendered = mmgen.render(config, 2, split="test", seed=1).frames
    by_us = [sequence.frames for sequence in mmgen.open(tmp_path / "large")["test"]]
    assert np.array_equal(by_h5py, rendered)
    assert np.array_equal(by_us, rendered)


# Shards that hold more or less than a generated one.


@pytest.fixture
def store(tmp_path):
    """Write one shard of a split test, and its manifest, as an import or a generator would."""

    def write(frames, annotations, folder="stored", block=2):
        root = tmp_path / folder
        (root / "test").mkdir(parents=True)
        attributes = schema.attributes("null", 0, "test", "unknown", "1")
        path, count = root / "test/test-000000.h5", len(frames)
        arguments = path, count, frames.shape[1:], 1, attributes, list(annotations)
        with ShardWriter(*arguments) as writer:
            for first in range(0, count, block):
                part = slice(first, first + block)
                writer.write(frames[part], {k: v[part] for k, v in annotations.items()})
            entry = writer.commit()
        splits = {"test": SplitEntry(count, (entry,))}
        manifest = Manifest("1", None, 0, {"name": "unknown"}, "gzip", count, splits)
        (root / "manifest.json").write_text(manifest.to_json())
        return root

    return write


def frames_of(*shape):
    """Return the same noise in every run, and the annotations that no shard may lack."""
    noise = np.random.default_rng(shape).integers(0, 256, shape, np.uint8)
    lengths = np.full(len(noise), shape[1], np.int32)
    return noise, {"num_frames": lengths, "index": np.arange(len(noise))}


def test_a_shard_may_hold_frames_alone(store):
    frames, mandatory = frames_of(3, 4, 6, 5)
    root = store(frames, mandatory)
    with h5py.File(root / "test/test-000000.h5") as file:
        assert sorted(file) == sorted(schema.MANDATORY)
    split = mmgen.open(root)["test"]
    for n, sequence in enumerate(split):
        assert np.array_equal(sequence.frames, frames[n])
        assert (sequence.index, sequence.num_frames) == (n, 4)
        there = {name for name, value in vars(sequence).items() if value is not None}
        assert there == {"frames", "index", "num_frames"}
    assert sorted(split.shard(0).annotations()) == ["index", "num_frames"]


@pytest.mark.parametrize("names", [["num_frames"], ["index", "num_frames", "colour"]])
def test_a_writer_takes_no_other_annotations(tmp_path, names):
    with pytest.raises(ValueError, match=r"a shard cannot hold just these annotations: .*'num_f"):
        ShardWriter(tmp_path / "a.h5", 1, (1, 2, 2), 1, {}, names)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(3, 4, 6, 5, 3), (2, 5, 300, 400, 3)])
def test_colour_frames_are_stored_whole_or_cut_along_time(store, shape):
    frames, mandatory = frames_of(*shape)
    root = store(frames, mandatory)
    with h5py.File(root / "test/test-000000.h5") as file:
        assert np.array_equal(file["frames"][()], frames)
        cut = 4 if shape[1] == 4 else 2  # 360 kB a frame: two in 1 MiB
        assert file["frames"].chunks == (1, cut, *shape[2:])
        places = [(1, t, 0, 0, 0) for t in range(0, shape[1], cut)]
        chunks = [file["frames"].id.read_direct_chunk(place)[1] for place in places]
        assert file["checksum"][1] == zlib.crc32(b"".join(chunks))
    split = mmgen.open(root)["test"]
    assert split.sequence_shape == shape[1:]
    out = np.empty(shape, np.uint8)
    split.read(range(len(split)), out)
    assert np.array_equal(out, frames)


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (2, 5, 512, 512), (2, 2, 6, 5, 3)])
def test_masks_are_stored_where_asked_for(store, shape):
    frames, annotations = frames_of(*shape)
    mask = frames_of(*shape[:4])[0] % 3
    root = store(frames, annotations | {"mask": mask})
    assert re.search(r"^\| `mask` \| uint8 \(N, T, H, W\) \|", FORMAT, re.MULTILINE)
    with h5py.File(root / "test/test-000000.h5") as file:
        stored = file["mask"]
        assert (stored.dtype, stored.shape) == (np.uint8, shape[:4])
        assert stored.chunks == (1, min(4, shape[1]), *shape[2:4])
        assert (stored.compression, stored.shuffle, stored.fletcher32) == ("gzip", True, True)
        assert np.array_equal(stored[()], mask)
        assert np.array_equal(file["frames"][()], frames)
    for n, sequence in enumerate(mmgen.open(root)["test"]):
        assert sequence.mask.dtype == np.uint8
        assert np.array_equal(sequence.mask, mask[n])
        assert np.array_equal(sequence.frames, frames[n])


def test_equal_masks_are_equal_bytes_however_they_arrive(store):
    frames, annotations = frames_of(7, 5, 512, 300)
    annotations["mask"] = (frames % 3).astype(np.uint8)
    backwards = dict(reversed(annotations.items()))
    one, other = store(frames, annotations, "one"), store(frames, backwards, "other", block=7)
    name = "test/test-000000.h5"
    assert (one / name).read_bytes() == (other / name).read_bytes()


def test_masks_are_not_held_until_the_commit(tmp_path):
    noise, annotations = frames_of(1, 4, 500, 500)
    path, attributes = tmp_path / "a.h5", schema.attributes("null", 0, "test", "unknown", "1")
    with ShardWriter(path, 40, noise.shape[1:], 1, attributes, [*annotations, "mask"]) as writer:
        for _ in range(20):
            writer.write(np.zeros_like(noise), annotations | {"mask": noise})
        written = writer.partial.stat().st_size
    assert written > 20 * noise.nbytes - (9 << 20)  # HDF5 keeps some chunks back: up to 8 MiB


def test_a_split_survives_pickling_when_it_has_open_files(small_dataset):
    split = mmgen.open(small_dataset)["test"]
    before = split[8].frames
    assert np.array_equal(pickle.loads(pickle.dumps(split))[8].frames, before)


def test_few_shards_stay_open(tmp_path):
    config = load_config(assignments=["canvas=28", "frames=1", "digits=1"])
    generate_dataset(tmp_path / "many", config, {"train": 70}, shard_size=1)
    split = mmgen.open(tmp_path / "many")["train"]
    descriptors = Path("/proc/self/fd")
    open_before = len(list(descriptors.iterdir()))
    assert [sequence.index for sequence in split] == list(range(70))
    assert len(list(descriptors.iterdir())) - open_before <= 64


# Damage.


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
            problem = "is damaged or gone"
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


def test_a_missing_shard_is_named(copied_dataset):
    split = mmgen.open(copied_dataset)["train"]
    assert split[0].index == 0
    (copied_dataset / SHARD).unlink()
    with pytest.raises(ShardError, match=r"train-000000\.h5: is damaged or gone"):
        split[0]
    again = mmgen.open(copied_dataset)["train"]
    assert again[7].index == 7
    with pytest.raises(ShardError, match=r"train-000000\.h5: cannot be opened \(No such file or d"):
        again[0]


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


def test_a_folder_without_manifest_is_no_data_set(tmp_path, copied_dataset):
    with pytest.raises(InputError, match=r"is no data set \(no manifest\.json\); make one with"):
        mmgen.open(tmp_path)
    (copied_dataset / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"is not finished; run the same `mmgen generate` or `m"):
        mmgen.open(copied_dataset)
