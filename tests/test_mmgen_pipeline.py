"""Data sets on disk: equal requests give equal bytes, whatever stops them on the way."""

import fcntl
import json
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest

import mmgen
from mmgen.errors import InputError, ShardError
from mmgen.pipeline import generate_dataset
from mmgen.verify import find_damage

COUNTS = {"train": 20, "val": 3, "test": 9}  # as `small_dataset`, seed 5, shards of 7
SHARD = "train/train-000001.h5"


def files(root):
    """Return the whole content of a folder: name -> bytes."""
    paths = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def generate(small_config):
    """Generate the small data set, or what is asked for in its place."""

    def run(out, **changes):
        arguments = {"counts": COUNTS, "seed": 5, "shard_size": 7} | changes
        return generate_dataset(out, small_config, **arguments)

    return run


def test_workers_and_shard_size_change_nothing_but_the_files(small_dataset, generate, tmp_path):
    def content(root):
        dataset = mmgen.open(root)
        sequences = (sequence for split in dataset for sequence in dataset[split])
        return [
            [np.asarray(v).tobytes() for v in vars(sequence).values()] for sequence in sequences
        ]

    for workers, shard_size in product((1, 2), (7, 4096)):
        out = tmp_path / f"{workers}-{shard_size}"
        generate(out, workers=workers, shard_size=shard_size)
        assert content(out) == content(small_dataset)
    generate(tmp_path / "other", seed=6)
    assert content(tmp_path / "other") != content(small_dataset)


def test_equal_requests_give_equal_bytes(small_dataset, generate, tmp_path):
    generate(tmp_path / "again", workers=2)
    assert files(tmp_path / "again") == files(small_dataset)


def test_the_folder_holds_what_the_format_says(small_dataset, generate, tmp_path):
    shards = [f"train/train-00000{n}.h5" for n in range(3)] + ["val/val-000000.h5"]
    shards += ["test/test-000000.h5", "test/test-000001.h5"]
    assert sorted(files(small_dataset)) == sorted([*shards, "manifest.json", "request.json"])
    manifest = mmgen.open(small_dataset).manifest
    assert json.loads((small_dataset / "request.json").read_text()) == {
        **{"format": 1, "config": manifest.config, "seed": 5, "counts": COUNTS, "shard_size": 7},
        **{"codec": "gzip", "masks": False, "glyphs_sha256": manifest.glyphs["sha256"]},
    }
    generate(tmp_path / "a/b", counts={"test": 2})
    assert names(tmp_path / "a/b") == ["manifest.json", "request.json", "test"]


@pytest.mark.parametrize(
    "lost",
    [
        [],
        ["manifest.json"],
        [SHARD],
        ["manifest.json", SHARD, "val"],
        ["manifest.json", "train", "val", "test"],
        ["manifest.json", "train", "val", "test", "request.json"],
    ],
)
def test_a_rerun_makes_what_is_missing_and_nothing_else(
    copied_dataset, small_dataset, generate, lost
):
    for name in lost:
        path = copied_dataset / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    leftovers = ["request.json"] if "request.json" in lost else ["manifest.json", SHARD]
    for name in leftovers:  # what a killed writer leaves
        partial = copied_dataset / f"{name}.partial"
        partial.parent.mkdir(exist_ok=True)
        partial.write_text("{")
    kept = {path: path.stat().st_ino for path in copied_dataset.rglob("*.h5")}
    told = []
    manifest = generate(copied_dataset, progress=told.append)
    assert sum(told) == sum(COUNTS.values())
    assert manifest == mmgen.open(copied_dataset).manifest
    assert files(copied_dataset) == files(small_dataset)
    assert all(path.stat().st_ino == inode for path, inode in kept.items())


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("damage", ["truncated", "other seed"])
def test_a_rerun_refuses_a_shard_that_is_not_of_the_request(
    copied_dataset, generate, tmp_path, is_listed, damage
):
    problem = "is damaged"
    if damage == "truncated":
        os.truncate(copied_dataset / SHARD, 5000)
    else:
        generate(tmp_path / "other", seed=6)
        (tmp_path / "other" / SHARD).replace(copied_dataset / SHARD)
        problem = problem if is_listed else r"is a shard of another request .seed is 6, not 5."
    if not is_listed:
        (copied_dataset / "manifest.json").unlink()
    with pytest.raises(ShardError, match=f"{SHARD}: {problem}; delete it, or overwrite the data s"):
        generate(copied_dataset)
    (copied_dataset / SHARD).unlink()
    generate(copied_dataset)
    assert mmgen.open(copied_dataset)["train"][7].index == 7


def test_a_failure_leaves_complete_shards_only(generate, tmp_path, small_dataset):
    calls = []

    def fail(amount):
        calls.append(amount)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        generate(tmp_path / "a", workers=1, progress=fail)
    found, expected = files(tmp_path / "a"), files(small_dataset)
    assert "manifest.json" not in found
    assert found.items() <= expected.items()
    generate(tmp_path / "a")
    assert files(tmp_path / "a") == expected


# Whose folder it is.


FOREIGN = {
    "other-files": {"notes.txt": "mine"},
    "web-app": {"manifest.json": '{"name": "my app"}', "app.js": ""},
    "http-log": {"request.json": '{"url": "x"}', "train-000000.h5": ""},
    "no-json": {"request.json": "[" * 100_000, "manifest.json": "hello"},
    "hidden": {".gitignore": ""},
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_folder_is_left_alone(tmp_path, generate, overwrite, kind):
    root = tmp_path / kind
    root.mkdir()
    for name, content in FOREIGN[kind].items():
        (root / name).write_text(content)
    before = files(root)
    with pytest.raises(InputError, match=f"^{root}: (holds|is no data set of ours)"):
        generate(root, overwrite=overwrite)
    assert files(root) == before
    assert names(tmp_path) == [kind]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_is_free_and_a_file_is_not(generate, tmp_path, overwrite):
    (tmp_path / "empty").mkdir()
    generate(tmp_path / "empty", counts={"val": 1}, overwrite=overwrite)
    assert len(mmgen.open(tmp_path / "empty")["val"]) == 1
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=f"^{tmp_path}/file: is"):
        generate(tmp_path / "file", overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"seed": 6}, "seed is 5, asked for is 6"),
        ({"counts": COUNTS | {"val": 4}}, "val is 3, asked for is 4"),
        ({"shard_size": 8}, "shard_size is 7, asked for is 8"),
    ],
)
def test_a_set_of_another_request_is_left_alone(
    copied_dataset, small_dataset, generate, changes, difference
):
    problem = rf"holds a data set of another request \({difference}\); name another folder, or over"
    with pytest.raises(InputError, match=problem):
        generate(copied_dataset, **changes)
    assert files(copied_dataset) == files(small_dataset)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_writer_is_told(copied_dataset, small_dataset, generate, overwrite):
    with (copied_dataset / "request.json").open() as first:
        fcntl.flock(first, fcntl.LOCK_SH)  # the weakest there is
        with pytest.raises(
            InputError, match=r"copy: another writer is at work there; wait for it$"
        ):
            generate(copied_dataset, overwrite=overwrite)
    assert files(copied_dataset) == files(small_dataset)


# Overwriting.


def test_overwriting_keeps_the_old_set_until_the_new_one_is_complete(
    copied_dataset, small_dataset, generate, tmp_path
):
    seen = []

    def look(_):
        seen.append(files(copied_dataset) == files(small_dataset))

    generate(copied_dataset, seed=6, overwrite=True, progress=look)
    assert set(seen) == {True}
    generate(tmp_path / "new", seed=6)
    assert files(copied_dataset) == files(tmp_path / "new")
    assert names(tmp_path) == ["copy", "new"]


def test_an_interrupted_overwriting_harms_nothing_and_any_other_may_follow(
    copied_dataset, small_dataset, generate, tmp_path
):
    def interrupt(_):
        raise KeyboardInterrupt

    for seed in (6, 7):
        with pytest.raises(KeyboardInterrupt):
            generate(copied_dataset, seed=seed, overwrite=True, progress=interrupt)
        assert files(copied_dataset) == files(small_dataset)
    generate(copied_dataset, seed=8, overwrite=True)
    assert mmgen.open(copied_dataset).manifest.seed == 8
    assert names(tmp_path) == ["copy"]


def test_overwriting_killed_between_its_two_renames_is_finished(copied_dataset, generate, tmp_path):
    generate(tmp_path / "copy.new.partial", seed=6)
    expected = files(tmp_path / "copy.new.partial")
    copied_dataset.replace(tmp_path / "copy.old.partial")
    generate(copied_dataset, seed=6, overwrite=True)
    assert files(copied_dataset) == expected
    assert names(tmp_path) == ["copy"]


def test_overwriting_works_through_a_link_and_from_inside(
    copied_dataset, generate, tmp_path, monkeypatch
):
    (tmp_path / "link").symlink_to(copied_dataset)
    generate(tmp_path / "link", seed=6, overwrite=True)
    assert mmgen.open(copied_dataset).manifest.seed == 6
    monkeypatch.chdir(copied_dataset)
    generate(Path(), seed=7, overwrite=True)
    assert mmgen.open(copied_dataset).manifest.seed == 7


# Stopped from outside.


def wait_until(condition, process):
    """Poll closely: the moment must be hit while the process is at work."""
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.001)


def test_killed_at_any_moment_the_same_command_finishes_the_set(start_python, run_mmgen, tmp_path):
    out, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    request = ["--set", "canvas=28", "--set", "frames=2", "--train", 4800, "--shard-size", 40]
    for num_shards in (0, 10, 60):
        process = start_python("-m", "mmgen", "generate", out, *request, "--workers", 2)
        wait_until(
            lambda n=num_shards: len(list(out.glob("train/*.h5"))) >= n and out.exists(), process
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "manifest.json").exists(), "it was too fast to be killed"
        for path in out.glob("*/*.h5"):
            with h5py.File(path) as file:
                assert len(file["checksum"]) == len(file["frames"]) > 0
    run_mmgen("generate", out, *request)
    run_mmgen("generate", undisturbed, *request)
    assert files(out) == files(undisturbed)


def test_interrupted_it_says_what_is_safe_and_leaves_no_partial(start_python, tmp_path):
    out = tmp_path / "a"
    process = start_python("-m", "mmgen", "generate", out, "--train", 10**6, "--shard-size", 50)
    wait_until(lambda: len(list(out.glob("train/*.h5"))) >= 3, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    line = "interrupted: what has its final name is complete; the same command goes on"
    assert err.splitlines()[-1] == f"Error: {line}"
    assert "Traceback" not in err
    assert not list(out.rglob("*.partial"))


def test_a_full_disk_ends_in_one_line(start_python, tmp_path):
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
from mmgen.cli import main
main(["generate", sys.argv[1]])
"""
    process = start_python("-c", code, tmp_path / "a")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.count("\n") == 1
    assert err.startswith(f"Error: {tmp_path}/a/")
    assert "File too large" in err
    assert not list(tmp_path.rglob("*.h5*"))


def test_of_two_first_writers_one_wins(tmp_path, generate):
    """Both may see an empty folder; then request, shards and manifest are of one of them."""
    for trial in range(8):
        out = tmp_path / str(trial)
        start = threading.Barrier(2)

        def write(seed, out=out, start=start):
            start.wait()
            try:
                generate(out, seed=seed)
            except InputError as error:
                return str(error)

        with ThreadPoolExecutor(2) as pool:
            refused = list(pool.map(write, (1, 2)))
        winner = mmgen.open(out).manifest.seed
        assert refused[winner - 1] is None
        assert str(out) in refused[2 - winner]
        assert json.loads((out / "request.json").read_text())["seed"] == winner
        assert not list(find_damage(mmgen.open(out), lambda _: None))
        assert not list(out.rglob("*.partial"))


def test_an_equal_request_may_be_written_otherwise(copied_dataset, generate):
    request = copied_dataset / "request.json"
    request.write_text(json.dumps(json.loads(request.read_text())))
    generate(copied_dataset)
