"""Data sets put on a real S3 server: the bytes of a local run, whatever stops the writers."""

import json
import re
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from shard_data import files

from mmgen.errors import InputError, MmgenError, ShardError
from mmgen.parts import claimed
from mmgen.pipeline import generate_dataset, prepare
from mmgen.request import read_manifest
from mmgen.shard.places import find_place
from mmgen.uploads import RemoteFolder

pytest_plugins = ["object_store"]

# The small data set once more: 6 shards, train 0..2, val 3, test 4..5.
SMALL = [
    *("--set", "canvas=32x40", "--set", "frames=3..5", "--set", "digits=1..2"),
    *("--set", "speed=2..5", "--train", 20, "--val", 3, "--test", 9),
    *("--seed", 5, "--shard-size", 7),
]
COUNTS = {"train": 20, "val": 3, "test": 9}
ADDRESS = "s3://bucket/sets/small"
PATH = "/bucket/sets/small"  # of its objects in requests
SHARD = "train/train-000001.h5"


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Where shards are made; nothing is left there by any test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield folder
    assert not list(folder.glob("mmgen-*"))


@pytest.fixture
def generate(object_store, run_mmgen):
    """Put the small data set or parts of it by the command."""

    def run(*options, code=0, out=ADDRESS):
        return run_mmgen("generate", out, *SMALL, *options, code=code)

    return run


@pytest.fixture
def stored(object_store, small_dataset):
    """Put the files of the small data set, which are what `generate` puts: the first test below."""
    fsspec.filesystem("s3").put(f"{small_dataset}/", f"{ADDRESS}/", recursive=True)


@pytest.fixture
def run(object_store, small_config):
    return prepare(small_config, COUNTS, seed=5, shard_size=7)


def objects(address=ADDRESS):
    """Return every object at an address: name -> bytes."""
    root = address.partition("://")[2] + "/"
    driver = fsspec.filesystem("s3")
    driver.invalidate_cache()
    found = driver.cat(driver.find(address) or [address], on_error="omit")
    return {name.removeprefix(root): content for name, content in found.items()}


def put(name, content):
    fsspec.filesystem("s3").pipe_file(f"{ADDRESS}/{name}", content)


def remove(name):
    fsspec.filesystem("s3").rm_file(f"{ADDRESS}/{name}")


def ignore(*_):
    pass


# What is there in the end.


def test_the_objects_are_the_files_of_a_local_set(generate, small_dataset):
    told = json.loads(generate("--json").stdout)
    expected = files(small_dataset)
    assert objects() == expected
    size = sum(len(content) for name, content in expected.items() if name.endswith(".h5"))
    assert (told["path"], told["shards"], told["bytes"]) == (ADDRESS, 6, size)
    again = generate(out=f"{ADDRESS}/").stdout
    assert again.startswith(f"{ADDRESS}: mm-")
    assert again.endswith(", all there already\n")
    assert objects() == expected


def test_what_was_put_is_read_back(stored, small_dataset, run_mmgen):
    trainer = pytest.importorskip("trainer")
    run_mmgen("verify", ADDRESS, "--regrow", "all")
    assert "20 sequences     3 shards" in run_mmgen("info", ADDRESS).output
    streams = (trainer.SequenceStream(data, 4, seed=3) for data in (ADDRESS, small_dataset))
    for _, one, other in zip(range(6), *streams, strict=False):
        assert (one.frames == other.frames).all()


def test_a_set_is_made_again_from_its_address(stored, run_mmgen, tmp_path, small_dataset):
    for number, origin in enumerate((ADDRESS, f"{ADDRESS}/", f"{ADDRESS}/manifest.json")):
        run_mmgen("generate", tmp_path / str(number), "--from", origin)
        assert files(tmp_path / str(number)) == files(small_dataset)
    line = run_mmgen("generate", tmp_path / "none", "--from", f"{ADDRESS}/no", code=2).stderr
    assert line == f"Error: {ADDRESS}/no/manifest.json: is not there\n"


def test_an_import_goes_to_an_address_too(object_store, run_mmgen, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 10, 16, 16), np.uint8)
    np.save(tmp_path / "a.npy", frames)
    for out in (ADDRESS, tmp_path / "here"):
        told = run_mmgen("import", tmp_path / "a.npy", out, "--shard-size", 4).stdout
        assert told.startswith(f"{out}: 10 sequences in 3 shards")
    assert objects() == files(tmp_path / "here")


def test_progress_tells_the_bytes_that_were_put(object_store, small_config, small_dataset):
    def total():
        told = []
        generate_dataset(
            ADDRESS, small_config, COUNTS, seed=5, shard_size=7, progress=lambda *t: told.append(t)
        )
        return tuple(map(sum, zip(*told, strict=True)))

    sizes = {name: len(content) for name, content in files(small_dataset).items()}
    assert total() == (32, sum(size for name, size in sizes.items() if name.endswith(".h5")))
    remove(SHARD)
    assert total() == (32, sizes[SHARD])
    assert total() == (32, 0)


# What is made again, and what is not.


def test_finished_shards_are_not_made_again(generate, object_store, small_dataset):
    def num_puts():
        names = (name for name in files(small_dataset) if name.endswith(".h5"))
        paths = {name: f"{PATH}/{name}" for name in names}
        return {name: object_store.requests("PUT", path) for name, path in paths.items()}

    start = num_puts()
    generate("--shards", "0:3")
    put("train/train-000000.h5", b"half of it")  # not the size that its side file says
    remove("train/train-000002.h5.json")
    before = num_puts()
    generate()
    made = {name for name, number in num_puts().items() if number > before[name]}
    assert made == start.keys() - {SHARD}
    assert objects() == files(small_dataset)


@pytest.mark.parametrize(
    ("lost", "options"),
    [
        ([SHARD], ()),
        ([SHARD], ("--shards", "1:2")),
        (["manifest.json"], ()),
        (["manifest.json"], ("--shards", "0:6")),
        (["manifest.json", "val/val-000000.h5"], ("--shards", "0:6")),
    ],
)
def test_what_was_lost_is_made_again(stored, generate, small_dataset, lost, options):
    for name in lost:
        remove(name)
    generate(*options)
    assert objects() == files(small_dataset)


@pytest.mark.parametrize("parts", [["4:6", "0:2", "2:4"], ["0:4", "2:6"], ["0:3", None]])
def test_parts_in_any_order_make_the_set(generate, small_dataset, parts):
    for number, part in enumerate(parts):
        told = generate(*(("--shards", part) if part else ())).stdout
        if number < len(parts) - 1:
            first, last = map(int, part.split(":"))
            waiting = f"shards {first}..{last - 1} of 6 done, waiting for the others"
            assert told == f"{ADDRESS}: {waiting}\n"
    assert "32 sequences in 6 shards" in told
    assert objects() == files(small_dataset)


def test_the_tasks_of_a_slurm_array_make_the_set(generate, monkeypatch, small_dataset):
    for task in (1, 0):
        values = {"ID": task, "MIN": 0, "MAX": 1, "COUNT": 2, "STEP": 1}
        for name, value in values.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        generate()
    assert objects() == files(small_dataset)


def test_a_side_file_that_says_nothing_is_put_anew(generate, small_dataset):
    generate("--shards", "0:3")
    for content in (b"", b'{"bytes": "x"}', b"\xff"):
        put(f"{SHARD}.json", content)
        assert "waiting" in generate("--shards", "3:6").stdout
    generate("--shards", "1:2")
    assert objects() == files(small_dataset)


def test_nothing_is_put_that_a_manifest_contradicts(stored, generate):
    manifest = json.loads(objects()["manifest.json"])
    manifest["splits"]["train"]["shards"][1]["sha256"] = "0" * 64  # as of other libraries
    put("manifest.json", json.dumps(manifest).encode())
    remove(SHARD)
    before = objects()
    for options in ((), ("--shards", "1:2")):
        line = generate(*options, code=1).stderr
        assert line.startswith(f"Error: {ADDRESS}/{SHARD}: comes out otherwise than the manifest")
        assert line.endswith("; name another folder, or delete this one first\n")
    assert objects() == before


# Several writers, and dead ones.


@pytest.mark.parametrize("parts", [[None, None], [None, range(2, 6), range(6)]])
def test_writers_at_the_same_time_make_one_set(run, small_dataset, parts):
    def write(part):
        if part is None:
            return run.finish(ADDRESS, ignore)
        return run.finish_part(ADDRESS, part, ignore)

    with ThreadPoolExecutor(len(parts)) as pool:
        made = list(pool.map(write, parts))
    assert read_manifest(small_dataset) in made
    sides = {name for name in objects() if name.endswith(".h5.json")}
    if sides:  # left by one that was not done when another committed
        run.finish(ADDRESS, ignore)
    assert objects() == files(small_dataset)


def test_of_two_requests_at_once_one_commits(run, small_config, small_dataset):
    other = prepare(small_config, COUNTS, seed=6, shard_size=7)
    with claimed(ADDRESS, other.request) as claim:
        remove("request.json")  # both have looked, and then both have put theirs
        run.finish(ADDRESS, ignore)
        with pytest.raises(InputError, match="holds a data set of another request"):
            claim.commit(read_manifest(small_dataset))
    assert objects() == files(small_dataset)


def test_killed_in_the_middle_it_is_finished_by_the_same_command(
    object_store, start_python, run_mmgen, scratch, tmp_path
):
    options = [*SMALL, "--train", 84, "--workers", 1]  # 15 shards
    run_mmgen("generate", tmp_path / "larger", *options)
    expected = files(tmp_path / "larger")
    third = f"{PATH}/train/train-000002.h5.json"
    before = object_store.requests("PUT", third)
    writer = start_python("-m", "mmgen", "generate", ADDRESS, *options)
    until = time.monotonic() + 30
    while object_store.requests("PUT", third) == before:
        assert time.monotonic() < until
        time.sleep(0.02)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    there = objects()
    finished = {name for name in there if f"{name}.json" in there}
    assert 3 <= len(finished) < 15
    dead = scratch / "mmgen-scratch-dead/train"  # one more, surely half-way
    dead.mkdir(parents=True)
    (dead / "train-000009.h5.0f.partial").write_bytes(b"half")

    def num_puts():
        return {name: object_store.requests("PUT", f"{PATH}/{name}") for name in finished}

    before = num_puts()
    run_mmgen("generate", ADDRESS, *options)
    assert num_puts() == before
    assert objects() == expected


def test_interrupted_it_leaves_nothing_here(run, small_dataset, scratch):
    def interrupt(*_):
        if list(scratch.rglob("train-000001.h5*")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.finish(ADDRESS, interrupt)
    assert not list(scratch.iterdir())
    assert "manifest.json" not in objects()
    run.finish(ADDRESS, ignore)
    assert objects() == files(small_dataset)


def test_the_scratch_of_a_living_writer_stays(run, scratch):
    folder = RemoteFolder(find_place(ADDRESS))

    def make_beside(_):
        assert len(list(scratch.iterdir())) == 2
        raise ShardError("stopped")

    with pytest.raises(ShardError, match="stopped"):
        folder.add(run.shards[0], None, lambda _: folder.add(run.shards[1], None, make_beside))


@pytest.mark.slow
def test_the_workers_of_a_cluster_put_what_they_make(
    generate, start_python, small_dataset, tmp_path
):
    distributed = pytest.importorskip("distributed")
    where = tmp_path / "scheduler.json"
    quiet = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical"}
    common = ("--no-dashboard", "--scheduler-file", where)
    start_python(
        *("-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", 0, *common),
        **quiet,
    )
    worker = ("--nthreads", 2, "--no-nanny", "--local-directory", tmp_path)
    start_python("-m", "distributed.cli.dask_worker", *worker, *common, **quiet)
    until = time.monotonic() + 30
    while not where.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    address = json.loads(where.read_text())["address"]
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=30)
    assert "32 sequences in 6 shards" in generate("--cluster", address).stdout
    assert objects() == files(small_dataset)
    remove(SHARD)
    generate("--cluster", address)
    assert objects() == files(small_dataset)


# What goes wrong ends in one line.


def test_foreign_folders_and_other_requests_are_left_alone(generate):
    put("notes.txt", b"mine")
    line = generate(code=2).stderr
    assert line == f"Error: {ADDRESS}: holds something else; name an empty or a new folder\n"
    assert objects() == {"notes.txt": b"mine"}
    remove("notes.txt")
    generate("--shards", "0:1")
    before = objects()
    for options in (("--masks",), ("--shards", "0:1", "--masks")):
        line = generate(*options, code=2).stderr
        reason = "masks is False, asked for is True"
        end = "name another folder, or delete it first"
        assert line == f"Error: {ADDRESS}: holds a data set of another request ({reason}); {end}\n"
    assert objects() == before


def test_overwriting_is_refused_with_the_reason(generate):
    for _ in range(2):
        before = objects()
        line = generate("--overwrite", code=2).stderr
        assert re.fullmatch(
            f"Error: {ADDRESS}: cannot be overwritten, .*; name another folder, or delete it "
            "first\n",
            line,
        )
        assert objects() == before
        generate("--shards", "0:1")


def test_a_missing_bucket_is_named(generate):
    line = generate(out="s3://nowhere/a", code=2).stderr
    problem = "the bucket does not exist; make it, or mend the address"
    assert line == f"Error: s3://nowhere/a/manifest.json: {problem}\n"


def test_a_dead_endpoint_is_named(generate, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    line = generate(code=2).stderr
    assert re.match(rf"Error: {ADDRESS}\S*: cannot be reached \(.*127\.0\.0\.1:9", line)
    assert line.count("\n") == 1


def test_missing_credentials_are_named(generate, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    line = generate(code=2).stderr
    assert re.match(rf"Error: {ADDRESS}\S*: .*; set AWS_ACCESS_KEY_ID", line)
    assert line.count("\n") == 1


def test_a_store_that_refuses_to_be_written_is_named(run, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("Access Denied")

    run.finish_part(ADDRESS, range(2), ignore)
    monkeypatch.setattr("s3fs.S3FileSystem.put_file", refuse)
    with pytest.raises(MmgenError, match=r"test-000001.h5: access is refused \(Access Denied\)"):
        run.finish_part(ADDRESS, range(5, 6), ignore)
    monkeypatch.undo()


def test_a_full_scratch_disk_is_named(scratch, generate, small_dataset):
    generate("--shards", "0:1")  # compiles what would not fit either
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))
    try:
        said = generate(code=1).stderr
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert re.fullmatch(
        rf"Error: {scratch}/mmgen-scratch-\w+/\w+/\S+\.h5: could not be written \(File too large\)"
        r"; the same command goes on with what is there; TMPDIR says on which disk shards are "
        r"made\n",
        said,
    )
    generate()
    assert objects() == files(small_dataset)
