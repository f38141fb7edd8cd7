"""Local folders and fsspec addresses answer alike, and every failure is one line."""

import pickle
import re
import subprocess
import sys

import fsspec
import pytest
from faulty_store import loses_connection, refuses

from mmgen.errors import InputError, MmgenError, ShardError
from mmgen.shard.places import find_place

pytest_plugins = ["object_store"]

REMOTE = ("memory", "s3")
KINDS = ("folder", "file", *REMOTE)


@pytest.fixture(params=KINDS)
def place(request, tmp_path):
    if request.param == "s3":
        request.getfixturevalue("object_store")
    memory = fsspec.filesystem("memory")
    yield find_place(
        {
            "folder": tmp_path / "data",
            "file": f"file://{tmp_path}/data",
            "memory": "memory://bucket/data",
            "s3": "s3://bucket/data/",
        }[request.param]
    )
    if memory.exists("/bucket"):
        memory.rm("/bucket", recursive=True)


def fill(place, relative, content, tmp_path):
    """Leave bytes in a place."""
    finished = tmp_path / "finished"
    finished.write_bytes(content)
    if place.is_remote:
        place.put_file(finished, relative)
    else:
        place.path(relative).parent.mkdir(parents=True, exist_ok=True)
        finished.rename(place.path(relative))


def refusal(kind, action):
    with pytest.raises(kind) as caught:
        action()
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_kind_of_place_answers_alike(place, tmp_path):
    assert place.size("manifest.json") is None
    assert not place.exists("manifest.json")

    fill(place, "manifest.json", "Zürich".encode(), tmp_path)
    fill(place, "train/train-000000.h5", b"shard" * 1000, tmp_path)

    assert place.read_text("manifest.json", 7) == "Zürich"
    assert place.size("train/train-000000.h5") == 5000
    assert place.exists("train/train-000000.h5")
    assert not place.exists("train")

    place.remove("train/train-000000.h5")
    place.remove("train/train-000000.h5")
    assert not place.exists("train/train-000000.h5")


@pytest.mark.parametrize("place", REMOTE, indirect=True)
def test_what_is_put_at_an_address_is_listed_there(place, tmp_path):
    shard = tmp_path / "finished.h5"
    shard.write_bytes(b"shard" * 1000)
    assert place.entries() == place.entries("train") == {}

    place.write_text("manifest.json", "old")
    place.write_text("manifest.json", "Zürich")
    place.put_file(shard, "train/train-000000.h5")
    place.put_file(shard, "train/train-000000.h5")

    assert place.read_text("manifest.json", 7) == "Zürich"
    assert place.entries() == {"manifest.json": 7, "train": None}
    assert place.entries("train") == {"train-000000.h5": 5000}
    assert place.entries("manifest.json") == {}
    place.remove("train/train-000000.h5")
    assert place.entries("train") == {}


def test_a_text_that_is_missing_too_large_or_no_text_is_bad_input(place, tmp_path):
    fill(place, "request.json", b"\xff\xfe", tmp_path)
    fill(place, "manifest.json", b"12345678", tmp_path)
    assert "is not there" in refusal(InputError, lambda: place.read_text("README.md", 9))
    assert "larger than 7" in refusal(InputError, lambda: place.read_text("manifest.json", 7))

    message = refusal(InputError, lambda: place.read_text("request.json", 9))
    assert message.startswith(f"{place.name}/request.json: cannot be read")


@pytest.mark.parametrize(
    "name",
    [
        *("", "..", "../x", "train/../../x", "train/./x", "/etc/passwd", "s3://other/x"),
        *("a//b", "a/", "a\\b", ".hidden", "~", "a?versionId=1", "a*", "a\n", "a\0"),
    ],
)
def test_names_never_leave_a_place(name, tmp_path):
    for place in (find_place(tmp_path), find_place("memory://bucket")):
        assert "is no name of a file" in refusal(InputError, lambda p=place: p.size(name))
        assert "is no name of a file" in refusal(InputError, lambda p=place: p.remove(name))
    assert "is no name of a file" in refusal(InputError, lambda: place.write_text(name, ""))
    if name:  # the place itself has entries
        assert "is no name of a file" in refusal(InputError, lambda: place.entries(name))


@pytest.mark.parametrize(
    "address", ["s3://", "s3:///", "simplecache::s3://bucket/x", "s3://bucket/x?versionId=1"]
)
def test_an_address_that_names_no_folder_is_refused(address):
    assert "is no address of a folder" in refusal(InputError, lambda: find_place(address))


def test_an_unknown_scheme_is_bad_input():
    assert "nothing here knows nope://" in refusal(InputError, lambda: find_place("nope://a/b"))


def test_a_missing_driver_is_named_with_its_extra():
    code = """if True:
        import sys
        sys.modules["s3fs"] = None  # importing it raises ImportError
        from mmgen.errors import InputError
        from mmgen.shard.places import find_place
        try:
            find_place("s3://bucket/x")
        except InputError as error:
            print(error)
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "s3://bucket/x: the driver of s3:// is not installed; pip install 'moving-mnist[s3]'\n"
    )


def test_a_folder_whose_name_only_looks_like_an_address_is_local(tmp_path):
    assert not find_place("./odd://name").is_remote
    assert find_place(f"file://{tmp_path}").root == tmp_path


def test_a_missing_bucket_is_bad_input_and_not_an_empty_folder(object_store):
    place = find_place("s3://other/data")
    for ask in (place.entries, lambda: place.exists("a"), lambda: place.read_text("a", 9)):
        assert "the bucket does not exist" in refusal(InputError, ask)
    message = refusal(InputError, lambda: place.write_text("manifest.json", "{}"))
    assert message.startswith("s3://other/data/manifest.json: the bucket does not exist")


def test_an_endpoint_that_nobody_serves_is_bad_input(object_store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    message = refusal(InputError, lambda: find_place("s3://bucket/data").exists("manifest.json"))
    assert message.startswith("s3://bucket/data/manifest.json: cannot be reached")
    assert "AWS_ENDPOINT_URL" in message


def test_a_web_server_that_is_not_there_is_not_one_that_lacks_the_file(object_store):
    assert not find_place(f"{object_store.endpoint}/bucket/data").exists("manifest.json")
    place = find_place("http://127.0.0.1:9/data")
    for ask in (lambda: place.exists("manifest.json"), lambda: place.read_text("a.json", 9)):
        assert re.search(r"/data/.*: cannot be reached \(.*:9", refusal(InputError, ask))


def test_missing_credentials_are_bad_input(object_store, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    message = refusal(InputError, lambda: find_place("s3://bucket/data").entries())
    assert message.endswith("; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")


def test_a_listing_shows_what_another_process_has_put_since(object_store):
    reader, writer = find_place("s3://bucket/data"), find_place("s3://bucket/data")
    writer.write_text("a.json", "")
    assert reader.entries() == {"a.json": 0}
    writer.write_text("b.json", "2")
    assert reader.entries() == {"a.json": 0, "b.json": 1}
    assert reader.read_text("b.json", 1) == "2"


def test_a_place_works_on_both_sides_of_a_fork(object_store):
    find_place("s3://bucket/data").write_text("a.json", "content")
    code = """if True:
        import os
        from mmgen.shard.places import find_place
        place = find_place("s3://bucket/data")
        assert place.read_text("a.json", 9) == "content"
        child = os.fork()
        assert place.read_text("a.json", 9) == "content"
        if not child:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print("both read")
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == "both read\n", done.stderr


def test_a_password_in_an_address_is_never_shown(faulty_store):
    def tells(content):
        raise ConnectionError("no route to ann:secret@host")

    place = find_place("faulty://ann:secret@host/data")
    place.write_text("a", "1")
    faulty_store.faults += [tells]
    place = pickle.loads(pickle.dumps(find_place("faulty://ann:secret@host/data")))
    message = refusal(InputError, lambda: place.read_text("a", 1))
    assert "cannot be reached" in message
    for text in (message, repr(place), place.name, place.where("a")):
        assert "host" in text
        assert "secret" not in text


def test_what_may_pass_is_tried_again_with_growing_waits(faulty_store):
    place = find_place("faulty://host/data")
    place.write_text("a", "1")
    faulty_store.faults += [loses_connection] * 3
    assert place.read_text("a", 1) == "1"
    assert len(faulty_store.waits) == 3
    assert all(0.25 * 2**k <= wait <= 0.5 * 2**k for k, wait in enumerate(faulty_store.waits))

    faulty_store.faults += [loses_connection] * 9
    message = refusal(MmgenError, lambda: place.read_text("a", 1))
    assert "cannot be reached (the connection was reset)" in message
    assert len(faulty_store.faults) == 5


def test_what_will_not_pass_is_not_tried_again(faulty_store):
    find_place("faulty://host/data").write_text("a", "1")
    new = find_place("faulty://host/data")
    faulty_store.faults += [loses_connection, loses_connection]
    assert "cannot be reached" in refusal(InputError, lambda: new.read_text("a", 1))
    assert len(faulty_store.faults) == 1

    faulty_store.faults[:] = [refuses, refuses]
    assert new.exists("a")
    assert "access is refused" in refusal(MmgenError, lambda: new.read_text("a", 1))
    assert len(faulty_store.faults) == 1
    assert faulty_store.waits == []


def test_a_put_that_arrives_otherwise_is_noticed(faulty_store, monkeypatch, tmp_path):
    place = find_place("faulty://host/data")
    shard = tmp_path / "finished.h5"
    shard.write_bytes(b"12345")
    pipe_file = faulty_store.pipe_file
    monkeypatch.setattr(faulty_store, "pipe_file", lambda self, path, _: pipe_file(self, path, b""))
    assert "reads back otherwise" in refusal(MmgenError, lambda: place.write_text("a", "1"))
    monkeypatch.setattr(
        faulty_store, "put_file", lambda self, local, path: pipe_file(self, path, b"1234")
    )
    message = refusal(MmgenError, lambda: place.put_file(shard, "train/b.h5"))
    assert message.endswith("train/b.h5: has 4 bytes, 5 were written")


def test_a_missing_shard_is_content_that_does_not_hold(faulty_store):
    place = find_place("faulty://host/data")
    message = refusal(ShardError, lambda: place.fetch("train/a.h5", 9, lambda *_: None))
    assert message == "faulty://host/data/train/a.h5: is missing, though the manifest lists it"


@pytest.mark.parametrize("module", ["places", "cache"])
def test_the_driver_is_imported_for_a_remote_place_only(module):
    code = f"""if True:
        import sys
        import mmgen.shard.{module}
        from mmgen.shard.places import find_place
        find_place(".").exists("manifest.json")
        assert "fsspec" not in sys.modules
        find_place("memory://bucket")
        assert "fsspec" in sys.modules
        """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
