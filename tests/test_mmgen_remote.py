"""A data set on a real S3 server is read as if it lay here: same sequences, same errors."""

import fsspec
import numpy as np
import pytest

import mmgen
from mmgen.errors import ShardError
from mmgen.shard.cache import ShardCache
from mmgen.shard.reader import open_dataset

pytest_plugins = ["object_store"]

ADDRESS = "s3://bucket/sets/small"


@pytest.fixture
def fetched(object_store, small_dataset, tmp_path, monkeypatch):
    """Put the small data set into the bucket; count how often each shard of train was fetched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    driver = fsspec.filesystem("s3", skip_instance_cache=True)
    driver.put(str(small_dataset), ADDRESS, recursive=True)

    def count():
        names = (f"/bucket/sets/small/train/train-{number:06d}.h5" for number in range(3))
        return np.array([object_store.requests("GET", name) for name in names])

    before = count()
    return lambda: (count() - before).tolist()


def test_sequences_are_those_of_the_folder(fetched, small_dataset):
    here, there = mmgen.open(small_dataset), mmgen.open(ADDRESS)
    assert repr(there) == f"<DataSet {ADDRESS}: train 20, val 3, test 9>"
    for split in here:
        for one, other in zip(here[split], there[split], strict=True):
            for name, value in vars(one).items():
                np.testing.assert_array_equal(value, vars(other)[name], strict=True)


def test_the_commands_take_an_address(fetched, small_dataset, run_mmgen, tmp_path):
    assert f"{ADDRESS}: made by mmgen" in run_mmgen("info", ADDRESS).output
    run_mmgen("verify", ADDRESS, "--regrow", "all")
    for data in (ADDRESS, small_dataset):
        run_mmgen("export", data, tmp_path / f"{len(str(data))}.npy", "--to", "npy")
    one, other = (np.load(tmp_path / f"{len(str(d))}.npy") for d in (ADDRESS, small_dataset))
    np.testing.assert_array_equal(one, other, strict=True)
    assert run_mmgen("info", "s3://bucket/sets/none", code=2).stderr.startswith(
        "Error: s3://bucket/sets/none: is no data set"
    )


def test_each_shard_is_fetched_once(fetched, tmp_path):
    for _ in range(2):  # the second time by another reader, from the cache
        train = open_dataset(ADDRESS)["train"]
        out = np.empty((20, *train.sequence_shape), np.uint8)
        train.fetch_ahead([2, 0])
        train.read(np.random.default_rng(0).permutation(20), out)
        train.read(range(20), out)
    assert fetched() == [1, 1, 1]
    cached = list((tmp_path / "cache").rglob("*.h5"))
    assert {path.stem for path in cached} == {entry.sha256 for entry in train.entries}


def test_a_small_cache_changes_nothing_but_the_fetches(fetched, small_dataset, tmp_path):
    entries = mmgen.open(small_dataset)["train"].entries
    cache = ShardCache(tmp_path / "tiny", max(entry.bytes for entry in entries) + 1)
    train, here = open_dataset(ADDRESS, cache)["train"], mmgen.open(small_dataset)["train"]
    out, expected = (np.empty((20, *here.sequence_shape), np.uint8) for _ in range(2))
    order = np.random.default_rng(1).permutation(20)
    train.read(order, out)
    here.read(order, expected)
    np.testing.assert_array_equal(out, expected)


def test_a_damaged_shard_is_fetched_again_once_then_named_and_refused(fetched):
    driver = fsspec.filesystem("s3", skip_instance_cache=True)
    name = f"{ADDRESS}/train/train-000001.h5"
    content = bytearray(driver.cat_file(name))
    content[len(content) // 2] ^= 1
    driver.pipe_file(name, bytes(content))
    before = fetched()[1]
    train = open_dataset(ADDRESS)["train"]
    assert train[0].index == 0
    with pytest.raises(ShardError, match=f"^{name}: has another SHA-256"):
        train[7]
    assert fetched()[1] - before == 2


def test_a_stream_of_remote_shards_is_that_of_local_ones(fetched, small_dataset):
    trainer = pytest.importorskip("trainer")
    streams = (trainer.SequenceStream(data, 4, seed=3) for data in (ADDRESS, small_dataset))
    for _, one, other in zip(range(12), *streams, strict=False):
        assert (one.index == other.index).all()
        assert (one.frames == other.frames).all()
    assert fetched() == [1, 1, 1]
