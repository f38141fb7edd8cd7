"""The manifest is untrusted: what is wrong with it is said in one line, and no name escapes."""

import re
import threading

import pytest
from strategies import table

import mmgen
from mmgen.errors import InputError
from mmgen.shard import manifest
from mmgen.shard.manifest import Manifest, partial_of, write_atomic


def test_a_manifest_comes_back_equal(small_dataset):
    text = (small_dataset / "manifest.json").read_text()
    manifest = Manifest.from_json(text, "here")
    assert manifest.to_json() == text
    assert manifest == mmgen.open(small_dataset).manifest
    shards = manifest.splits["train"].shards
    assert [(shard.first, shard.count) for shard in shards] == [(0, 7), (7, 7), (14, 6)]


# What is done to the manifest `m`, its split `train` and that one's first shard => what is said.
WRONG_ENTRIES = table("""
m["format"] = 2 => has format 2, this version reads 1; update mmgen
m["format"] = "1" => format is missing or has the wrong type
m["format"] = True => format is missing or has the wrong type
del m["seed"] => seed is missing or has the wrong type
m["seed"] = -1 => seed is -1, allowed are 0..9223372036854775807
m["seed"] = 2**63 => seed is 9223372036854775808, allowed are 0..9223372036854775807
m["seed"] = 1e300 => seed is missing or has the wrong type
m["version"] = None => version is missing or has the wrong type
m["config"] = [] => config is missing or has the wrong type
m["codec"] = 7 => codec is missing or has the wrong type
m["shard_size"] = 10**30 => shard_size is 1000000000000000000000000000000, allowed are 0..
m["glyphs"] = "mnist" => glyphs is missing or has the wrong type
m["glyphs"]["train"] = 5 => glyphs: train is missing or has the wrong type
m["glyphs"]["val"] = ["a", 2] => glyphs: val is ['a', 2], expected is [first, last]
m["splits"] = {} => lists no split; is this a data set?
m["splits"] = [] => splits is missing or has the wrong type
m["splits"]["dev"] = {} => splits ['dev'] do not exist
m["splits"]["train"] = None => splits.train: is no JSON object
train["count"] = 19 => splits.train: count is 19, its shards hold 20
train["count"] = 20.0 => splits.train: count is missing or has the wrong type
train["shards"] = {} => splits.train: shards is missing or has the wrong type
train["shards"][0] = 7 => splits.train.shards[0]: is no JSON object
train["shards"].reverse() => splits.train.shards[0]: holds 6 from 14, expected 0
shard["count"] = 6 => splits.train.shards[1]: holds 7 from 7, expected 6
shard["count"] = 0 => splits.train.shards[0]: holds 0 from 0, expected 0
shard["count"] = -7 => splits.train.shards[0]: count is -7, allowed are 0..
shard["first"] = 1 => splits.train.shards[0]: holds 7 from 1, expected 0
shard["bytes"] = 2**60 => splits.train.shards[0]: bytes is 1152921504606846976, allowed are 0..
shard["sha256"] = None => splits.train.shards[0]: sha256 is missing or has the wrong type
""")
NAMES = [".", "..", "", "/etc/passwd", "../train/train-000000.h5", "train-000000.h5/../../x"]
NAMES += ["val-000000.h5", "train-000000.h5\n", "train-000000.h5.partial", "train-0.h5"]
WRONG_ENTRIES += [
    (f'shard["name"] = {name!r}', f"splits.train.shards[0]: {name!r} is no name of a shard of this")
    for name in NAMES
]


@pytest.mark.parametrize(("change", "problem"), WRONG_ENTRIES)
def test_a_wrong_entry_is_named(copied_dataset, edit_manifest, change, problem):
    def apply(m):
        train = m["splits"]["train"]
        exec(change, {"m": m, "train": train, "shard": train["shards"][0]})

    edit_manifest(copied_dataset, apply)
    where = f"{copied_dataset}/manifest.json: {problem}"
    with pytest.raises(InputError, match=rf"\A{re.escape(where)}.*\Z"):
        mmgen.open(copied_dataset)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\x89HDF\r\n", b"\xff", b"[" * 200_000, b"[]", b"7", b"1" * 5000]
)
def test_what_is_no_manifest_is_refused_in_one_line(copied_dataset, content):
    path = copied_dataset / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"\A{path}: (is no JSON|cannot be read).*\Z"):
        mmgen.open(copied_dataset)


def test_an_absurdly_large_manifest_is_not_read(copied_dataset):
    path = copied_dataset / "manifest.json"
    with path.open("r+b") as file:
        file.truncate(2**40)  # sparse: a terabyte that takes no room
    with pytest.raises(InputError, match=r"manifest\.json: is larger than \d+ bytes; not one of o"):
        mmgen.open(copied_dataset)


def test_a_file_that_could_not_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    (tmp_path / "a.json").write_text("before")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "a.json", "after")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "before"


def test_two_writers_of_a_file_take_turns(tmp_path):
    path = tmp_path / "a.json"
    other = threading.Thread(target=write_atomic, args=(path, "the last one's"))
    with partial_of(path) as partial:
        other.start()
        other.join(0.2)
        assert other.is_alive()
        partial.write_text("mine, which is longer")
    assert path.read_text() == "mine, which is longer"
    other.join()
    assert path.read_text() == "the last one's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_does_not_come_to_an_end_is_named_and_let_be(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_LOCK_ATTEMPTS", 2)
    path = tmp_path / "a.json"
    with partial_of(path) as partial:
        partial.write_text("mine")
        with pytest.raises(InputError, match=r"a.json: another process is writing it; wait for"):
            write_atomic(path, "another's")
    assert path.read_text() == "mine"


def test_what_a_killed_writer_has_left_is_not_in_the_way(tmp_path):
    (tmp_path / "a.json.partial").write_text("half of something longer")
    write_atomic(tmp_path / "a.json", "whole")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]
