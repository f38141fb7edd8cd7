"""Writers stopped from outside, at any moment: what has its final name is complete, and equal."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import shard_data

import mmgen
from mmgen.errors import InputError
from mmgen.verify import find_damage

SMALL = [
    *("--set", "canvas=28", "--set", "frames=2", "--train", "440", "--val", "40", "--test", "0"),
    *("--shard-size", "40", "--workers", "2"),
]

# One process with everything imported and compiled forks a writer for each line it reads.
FORKER = """
import json, os, resource, signal, sys, traceback
from mmgen.cli import main

def write(args, err, limit):
    os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(60)  # it waits for something that never comes
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        main(args)
    except SystemExit as error:
        sys.stdout.flush()
        return error.code or 0
    except BaseException:
        traceback.print_exc()
    return 99

main(json.loads(sys.argv[1]), standalone_mode=False)
sys.stdout.flush()
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitpid(order["wait"], 0)[1], flush=True)
        continue
    child = os.fork()
    if child == 0:
        os._exit(write(**order))
    print(child, flush=True)
"""


class Writer:
    """One `mmgen generate` in a process of its own."""

    def __init__(self, forker, err, args, limit=0):
        self.forker, self.err = forker, err
        err.touch()  # it may be killed before it opens that
        self.pid = self._order(
            {"args": [str(arg) for arg in args], "err": str(err), "limit": limit}
        )

    def _order(self, order):
        self.forker.stdin.write(json.dumps(order) + "\n")
        self.forker.stdin.flush()
        return int(self.forker.stdout.readline())

    def send(self, number):
        os.kill(self.pid, number)  # it is there until `wait`, if only as a zombie

    def wait(self):
        """Return the exit code, negative for a signal, and all it said."""
        return os.waitstatus_to_exitcode(self._order({"wait": self.pid})), self.err.read_text()

    def stop(self, after_s, number=signal.SIGKILL):
        time.sleep(after_s)
        self.send(number)
        return self.wait()


@pytest.fixture(scope="module")
def forker(tmp_path_factory):
    path = tmp_path_factory.mktemp("forker") / "warm"
    process = subprocess.Popen(
        [sys.executable, "-c", FORKER, json.dumps(["generate", str(path), *SMALL])],
        env=os.environ | {"PYTHONPATH": str(Path(mmgen.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert "480 sequences" in process.stdout.readline()
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.close()


@pytest.fixture
def start(forker, tmp_path_factory):
    """Start `mmgen generate` with the small request, or with more options."""

    def run(out, *options, limit=0):
        err = tmp_path_factory.mktemp("said") / "err"
        return Writer(forker, err, ["generate", out, *SMALL, *options], limit)

    return run


@pytest.fixture(scope="module")
def undisturbed(forker, tmp_path_factory):
    """Return the set that nobody disturbed, and how long it took."""
    path = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    Writer(forker, path / "err", ["generate", path / "data", *SMALL]).wait()
    duration_s = time.monotonic() - started
    assert not list(find_damage(mmgen.open(path / "data"), lambda _: None))
    return files(path / "data"), duration_s


def files(root):
    """Return all that has its final name: name -> bytes."""
    found = shard_data.files(root)
    return {name: content for name, content in found.items() if not name.endswith(".partial")}


def partials(root):
    return [str(path) for path in root.rglob("*.partial")]


def check(out, expected):
    """Whatever has its final name is complete, and the manifest comes last."""
    found = files(out)
    sides = {name: found.pop(name) for name in list(found) if name.endswith(".h5.json")}
    assert found.items() <= expected.items()
    if "manifest.json" in found:
        assert found == expected
    listed = json.loads(expected["manifest.json"])["splits"]
    entries = {shard["name"]: shard for split in listed.values() for shard in split["shards"]}
    for name, content in sides.items():
        shard = name.removesuffix(".json")
        assert shard in found
        assert json.loads(content) == entries[Path(shard).name]


def test_killed_at_any_moment_the_same_command_finishes_the_set(start, undisturbed, tmp_path):
    expected, duration_s = undisturbed
    moments = random.Random(1)
    out = tmp_path / "0"
    kills = 0
    while kills < 24:
        code, _ = start(out).stop(moments.uniform(0, duration_s))
        if code == 0:
            assert files(out) == expected
            assert not partials(out)
            out = tmp_path / str(kills)
        else:
            assert code == -signal.SIGKILL
            check(out, expected)
            kills += 1
    assert start(out).wait()[0] == 0
    assert files(out) == expected
    assert not partials(out)


def test_parts_killed_at_any_moment_are_finished_by_the_same_commands(start, undisturbed, tmp_path):
    expected, duration_s = undisturbed
    moments = random.Random(2)
    out = tmp_path / "0"
    kills = 0
    while kills < 8:
        both = [start(out, "--task", f"{index}/2") for index in range(2)]
        codes = [writer.stop(moments.uniform(0, duration_s / 2))[0] for writer in both]
        assert {*codes} <= {0, -signal.SIGKILL}
        check(out, expected)
        kills += codes.count(-signal.SIGKILL)
        if codes == [0, 0]:
            assert files(out) == expected
            out = tmp_path / str(kills)
    for index in range(2):
        assert start(out, "--task", f"{index}/2").wait()[0] == 0
    assert files(out) == expected
    assert not partials(out)


def test_an_overwriting_killed_at_any_moment_leaves_the_old_or_the_new_set(
    start, undisturbed, tmp_path
):
    expected, duration_s = undisturbed
    moments = random.Random(3)
    out, old = tmp_path / "data", tmp_path / "old"
    start(old, "--seed", 1).wait()
    before = files(old)
    kills = 0
    while kills < 5:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(old, out)
        code, _ = start(out, "--overwrite").stop(moments.uniform(0, 1.2 * duration_s))
        kills += code != 0
        # Between its two renames there is no folder of that name, and the old one is beside.
        kept = out if out.exists() else tmp_path / "data.old.partial"
        assert files(kept) in (before, expected)
        assert start(out, "--overwrite").wait()[0] == 0
        assert files(out) == expected
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "old"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_what_is_safe_and_leaves_no_partial(
    start, undisturbed, tmp_path, number
):
    expected, duration_s = undisturbed
    moments = random.Random(4)
    interrupted = 0
    for trial in range(20):
        out = tmp_path / str(trial)
        writer = start(out)
        while not out.exists():
            time.sleep(0.001)
        code, said = writer.stop(moments.uniform(0, duration_s / 2), number)
        assert not partials(out)
        check(out, expected)
        if code == 0:
            continue
        line = "interrupted: what has its final name is complete; the same command goes on"
        assert (code, said) == (130, f"Error: {line}\n")
        interrupted += 1
        assert start(out).wait()[0] == 0
        assert files(out) == expected
        if interrupted == 2:
            break
    assert interrupted == 2, "it was too fast to be interrupted"


def test_a_pipe_where_a_shard_belongs_is_named_and_not_waited_for(start, tmp_path):
    out = tmp_path / "a"
    assert start(out).wait()[0] == 0
    shard = out / "train/train-000000.h5"
    shard.unlink()
    os.mkfifo(shard)
    line = f"Error: {shard}: is no file; delete it, or overwrite the data set\n"
    assert start(out).wait() == (1, line)


def test_a_damaged_shard_is_named_and_made_again(start, undisturbed, tmp_path):
    expected, _ = undisturbed
    out = tmp_path / "a"
    assert start(out).wait()[0] == 0
    shard = out / "train/train-000000.h5"
    os.truncate(shard, 5000)
    code, said = start(out).wait()
    assert (code, files(out)) == (0, expected)
    warned, told = said.splitlines()
    assert warned == f"{shard}: is damaged and is made again"
    assert "all there already" not in told


def check_full(out, code, said, reason):
    assert code == 1
    assert said.startswith(f"Error: {out}")
    end = f": could not be written ({reason}); the same command goes on with what is there\n"
    assert said.endswith(end)
    assert said.count("\n") == 1
    assert not partials(out)


@pytest.mark.parametrize("limit", [500, 1000, 4096, 6000, 12_000])
def test_where_files_may_not_grow_one_line_says_so(start, undisturbed, tmp_path, limit):
    expected, _ = undisturbed
    assert limit < max(map(len, expected.values()))
    code, said = start(tmp_path / "a", limit=limit).wait()
    check_full(tmp_path / "a", code, said, "File too large")
    check(tmp_path / "a", expected)
    assert start(tmp_path / "a").wait()[0] == 0
    assert files(tmp_path / "a") == expected


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of so many KiB, or make it larger."""
    path = tmp_path / "disk"
    path.mkdir()

    def mount(size_kib, *options):
        how = ",".join((f"size={size_kib}k", *options))
        command = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(path)]
        if shutil.which("mount") is None or subprocess.run(command, stderr=-3).returncode:
            pytest.skip("no tmpfs may be mounted here")
        return path

    yield mount
    subprocess.run(["umount", str(path)], stderr=subprocess.DEVNULL, check=False)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8, 0.97])
def test_a_full_disk_ends_in_one_line_and_the_same_command_goes_on(
    start, undisturbed, small_disk, share
):
    expected, _ = undisturbed
    pages = sum(-(-len(content) // 4096) for content in expected.values())
    disk = small_disk(int(4 * pages * share))
    code, said = start(disk / "a").wait()
    check_full(disk / "a", code, said, "No space left on device")
    check(disk / "a", expected)
    small_disk(1024, "remount")
    assert start(disk / "a").wait()[0] == 0
    assert files(disk / "a") == expected


def test_a_second_writer_is_told_and_stops(start, run_mmgen, undisturbed, tmp_path):
    expected, _ = undisturbed
    out = tmp_path / "a"
    writer = start(out)
    while not list(out.glob("train/*.h5")):
        time.sleep(0.001)
    writer.send(signal.SIGSTOP)
    for options in ([], ["--shards", "0:1"], ["--overwrite"]):
        line = run_mmgen("generate", out, *SMALL, *options, code=2).stderr
        assert line == f"Error: {out}: another writer is at work there; wait for it\n"
    writer.send(signal.SIGCONT)
    assert writer.wait()[0] == 0
    assert files(out) == expected
    assert not partials(out)


@pytest.mark.parametrize("num_parts", [1, 3])
def test_a_reader_beside_a_writer_sees_no_set_or_a_whole_one(
    start, undisturbed, tmp_path, num_parts
):
    expected, _ = undisturbed
    for trial in range(3):
        out = tmp_path / str(trial)
        writers = [start(out, "--task", f"{index}/{num_parts}") for index in range(num_parts)]
        seen = set()
        while not (out / "manifest.json").exists() or "whole" not in seen:
            try:
                dataset = mmgen.open(out)
            except InputError as error:
                seen.add(str(error).partition("; ")[0].removeprefix(f"{out}: "))
            else:
                assert not list(find_damage(dataset, lambda _: None))
                seen.add("whole")
        assert seen <= {
            *("is no data set (no manifest.json)", "is not finished", "whole"),
        }
        assert "is not finished" in seen
        assert {writer.wait()[0] for writer in writers} == {0}
        assert files(out) == expected
