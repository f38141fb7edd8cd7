"""A data set on a real S3 server is read as if it lay here: same sequences, same errors."""

import time
from contextlib import closing
from itertools import islice

import fsspec
import numpy as np
import pytest

import mmgen
from mmgen.errors import ShardError
from mmgen.pipeline import generate_dataset
from mmgen.shard.cache import ShardCache
from mmgen.shard.reader import open_dataset

pytest_plugins = ["object_store"]

ADDRESS = "s3://bucket/sets/small"
WIDE, NUM_SHARDS, SHARD_SIZE = "s3://bucket/sets/wide", 40, 64


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


@pytest.fixture(scope="module")
def wide_dataset(tmp_path_factory, small_config):
    """More shards than 8 lanes open at once, in windows of 4."""
    path = tmp_path_factory.mktemp("wide") / "data"
    counts = {"train": NUM_SHARDS * SHARD_SIZE}
    generate_dataset(path, small_config, counts, seed=6, shard_size=SHARD_SIZE, workers=1)
    return path


@pytest.fixture
def wide(object_store, wide_dataset):
    """Put the wide data set into the bucket; return its SHA-256s, and what counts its fetches."""
    driver = fsspec.filesystem("s3", skip_instance_cache=True)
    driver.put(str(wide_dataset), WIDE, recursive=True)
    entries = mmgen.open(wide_dataset)["train"].entries

    def count():
        paths = (f"/bucket/sets/wide/train/{entry.name}" for entry in entries)
        return np.array([object_store.requests("GET", path) for path in paths])

    before = count()
    return [entry.sha256 for entry in entries], lambda: (count() - before).tolist()


def wait_for(folder, sha256s):
    """Wait until these shards lie in the folder of a cache; return all that do."""
    wanted, fetched, deadline = set(sha256s), set(), time.monotonic() + 8
    while not wanted <= fetched:
        assert time.monotonic() < deadline, f"nobody asked for {len(wanted - fetched)} shards"
        time.sleep(0.01)
        fetched = {path.stem for path in folder.glob("*.h5")}
    return fetched


def test_each_rank_fetches_the_shards_of_its_part_alone_once_and_ahead(wide, tmp_path):
    trainer = pytest.importorskip("trainer")
    order = pytest.importorskip("trainer.order")
    sha256s, count = wide
    epoch = order.Order((SHARD_SIZE,) * NUM_SHARDS, 2, 3).batches(0, 1280)
    parts = [np.take(sha256s, order.rank_part(epoch, rank, 2) // SHARD_SIZE) for rank in (0, 1)]
    of_ranks = []
    for rank, needed in enumerate(parts):
        folder = tmp_path / str(rank)
        stream = trainer.SequenceStream(
            WIDE, 2, seed=3, rank=rank, num_ranks=2, cache=ShardCache(folder)
        )
        with closing(iter(stream)) as batches:
            for step, _ in enumerate(islice(batches, 1000)):
                if step % 111 == 0:  # 999 is planned with the last of the epoch, none of the next
                    fetched = wait_for(folder, needed[: step + 256].flat)
                    # The first shard was opened for the shape of a sequence.
                    assert fetched <= {sha256s[0], *needed[: step + 3 + 32 + 256].flat}
            of_ranks.append(wait_for(folder, needed.flat))
    assert count() == [sum(sha256 in fetched for fetched in of_ranks) for sha256 in sha256s]
    assert sum(count()) <= NUM_SHARDS + 1  # no lane ends inside a shard


def test_each_part_of_a_mixture_is_fetched_ahead_into_one_cache(fetched, wide, tmp_path):
    trainer = pytest.importorskip("trainer")
    order = pytest.importorskip("trainer.order")
    sha256s, count = wide
    counts = [(SHARD_SIZE,) * NUM_SHARDS, (7, 7, 6)]
    source, index = order.Mixture.of(counts, [1, 1], 2, 3).batches(0, 256)
    ahead = set(np.take(sha256s, index[source == 0] // SHARD_SIZE))
    small = {entry.sha256 for entry in open_dataset(ADDRESS)["train"].entries}
    cache = ShardCache(tmp_path / "both")
    stream = trainer.SequenceStream({WIDE: 1, ADDRESS: 1}, 2, seed=3, cache=cache)
    with closing(iter(stream)) as batches:
        next(batches)
        assert wait_for(tmp_path / "both", ahead | small) <= set(sha256s) | small
    assert fetched() == [1, 1, 1]
    assert max(count()) == 1


def test_workers_of_a_data_loader_share_what_they_fetch(wide, tmp_path):
    trainer = pytest.importorskip("trainer")
    data = pytest.importorskip("torch.utils.data")
    order = pytest.importorskip("trainer.order").Order((SHARD_SIZE,) * NUM_SHARDS, 4, 3)
    stream = trainer.SequenceStream(WIDE, 4, seed=3, cache=ShardCache(tmp_path / "cache"))
    loader = data.DataLoader(stream, batch_size=None, num_workers=2)
    found = [batch.index.tolist() for batch in islice(loader, 200)]
    assert found == order.batches(0, 200).tolist()
    assert max(wide[1]()) == 1
