"""Shards: what is stored is what was rendered, as FORMAT.md says, and damage is never returned."""

import pickle
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
from shard_data import ATTRIBUTES, SHARD, frames_of, store

import mmgen
from mmgen.errors import InputError
from mmgen.pipeline import generate_dataset
from mmgen.presets import load_config
from mmgen.shard import schema
from mmgen.shard.reader import Sequence
from mmgen.shard.writer import ShardWriter

FORMAT = (Path(mmgen.__file__).parent / "shard" / "FORMAT.md").read_text()


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


def test_a_shard_may_hold_frames_alone(tmp_path):
    frames, mandatory = frames_of(3, 4, 6, 5)
    root = store(tmp_path / "set", frames, mandatory)
    with h5py.File(root / SHARD) as file:
        assert sorted(file) == sorted(schema.MANDATORY)
    split = mmgen.open(root)["train"]
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
def test_colour_frames_are_stored_whole_or_cut_along_time(tmp_path, shape):
    frames, mandatory = frames_of(*shape)
    root = store(tmp_path / "set", frames, mandatory)
    with h5py.File(root / SHARD) as file:
        assert np.array_equal(file["frames"][()], frames)
        cut = 4 if shape[1] == 4 else 2  # 360 kB a frame: two in 1 MiB
        assert file["frames"].chunks == (1, cut, *shape[2:])
        places = [(1, t, 0, 0, 0) for t in range(0, shape[1], cut)]
        chunks = [file["frames"].id.read_direct_chunk(place)[1] for place in places]
        assert file["checksum"][1] == zlib.crc32(b"".join(chunks))
    split = mmgen.open(root)["train"]
    assert split.sequence_shape == shape[1:]
    out = np.empty(shape, np.uint8)
    split.read(range(len(split)), out)
    assert np.array_equal(out, frames)


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (2, 5, 512, 512), (2, 2, 6, 5, 3)])
def test_masks_are_stored_where_asked_for(tmp_path, shape):
    frames, annotations = frames_of(*shape)
    mask = frames_of(*shape[:4])[0] % 3
    root = store(tmp_path / "set", frames, annotations | {"mask": mask})
    assert re.search(r"^\| `mask` \| uint8 \(N, T, H, W\) \|", FORMAT, re.MULTILINE)
    with h5py.File(root / SHARD) as file:
        stored = file["mask"]
        assert (stored.dtype, stored.shape) == (np.uint8, shape[:4])
        assert stored.chunks == (1, min(4, shape[1]), *shape[2:4])
        assert (stored.compression, stored.shuffle, stored.fletcher32) == ("gzip", True, True)
        assert np.array_equal(stored[()], mask)
        assert np.array_equal(file["frames"][()], frames)
    for n, sequence in enumerate(mmgen.open(root)["train"]):
        assert sequence.mask.dtype == np.uint8
        assert np.array_equal(sequence.mask, mask[n])
        assert np.array_equal(sequence.frames, frames[n])


def test_equal_masks_are_equal_bytes_however_they_arrive(tmp_path):
    frames, annotations = frames_of(7, 5, 512, 300)
    annotations["mask"] = (frames % 3).astype(np.uint8)
    backwards = dict(reversed(annotations.items()))
    one = store(tmp_path / "one", frames, annotations)
    other = store(tmp_path / "other", frames, backwards, block=7)
    assert (one / SHARD).read_bytes() == (other / SHARD).read_bytes()


def test_masks_are_not_held_until_the_commit(tmp_path):
    noise, annotations = frames_of(1, 4, 500, 500)
    path, attributes = tmp_path / "a.h5", ATTRIBUTES
    with ShardWriter(path, 40, noise.shape[1:], 1, attributes, [*annotations, "mask"]) as writer:
        for _ in range(20):
            writer.write(np.zeros_like(noise), annotations | {"mask": noise})
        written = writer.partial.stat().st_size
    assert written > 20 * noise.nbytes - (9 << 20)  # HDF5 keeps some chunks back: up to 8 MiB


def test_a_split_survives_pickling_when_it_has_open_files(small_dataset):
    split = mmgen.open(small_dataset)["test"]
    before = split[8].frames
    assert np.array_equal(pickle.loads(pickle.dumps(split))[8].frames, before)


def test_threads_read_the_same_while_shards_open_and_close(tmp_path, monkeypatch):
    monkeypatch.setattr("mmgen.shard.reader._MAX_OPEN_SHARDS", 2)
    config = load_config(assignments=["canvas=28", "frames=2", "digits=1"])
    generate_dataset(tmp_path / "many", config, {"train": 30}, shard_size=3)
    split = mmgen.open(tmp_path / "many")["train"]
    expected = mmgen.render(config, 30, split="train").frames

    def read(seed):
        places = np.random.default_rng(seed).integers(-30, 30, 40)
        out = np.empty((40, *split.sequence_shape), np.uint8)
        split.read(places, out)
        return np.array_equal(out, expected[places])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(24)))


@pytest.mark.parametrize(
    "buffer",
    [
        np.empty((2, 5, 32, 40), np.float32),
        np.empty((3, 5, 32, 40), np.uint8),
        np.empty((2, 5, 40, 32), np.uint8),
        np.empty((2, 5, 32, 80), np.uint8)[..., ::2],
    ],
)
def test_frames_are_not_read_into_another_buffer(small_dataset, buffer):
    split = mmgen.open(small_dataset)["train"]
    with pytest.raises(ValueError, match=r"the buffer is .*, needed is uint8 \(2, 5, 32, 40\)"):
        split.read([0, 1], buffer)


def test_few_shards_stay_open(tmp_path):
    config = load_config(assignments=["canvas=28", "frames=1", "digits=1"])
    generate_dataset(tmp_path / "many", config, {"train": 70}, shard_size=1)
    split = mmgen.open(tmp_path / "many")["train"]
    descriptors = Path("/proc/self/fd")
    open_before = len(list(descriptors.iterdir()))
    assert [sequence.index for sequence in split] == list(range(70))
    assert len(list(descriptors.iterdir())) - open_before <= 64


def test_a_folder_without_manifest_is_no_data_set(tmp_path, copied_dataset):
    with pytest.raises(InputError, match=r"is no data set \(no manifest\.json\); make one with"):
        mmgen.open(tmp_path)
    (copied_dataset / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"is not finished; run the same `mmgen generate` or `m"):
        mmgen.open(copied_dataset)
