"""Parts of a data set, made by writers that know of each other through the folder alone."""

import fcntl
import json
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_data import files

import mmgen
from mmgen.errors import InputError, ShardError
from mmgen.parts import part_of_range, part_of_task, slurm_task
from mmgen.pipeline import prepare
from mmgen.request import read_manifest
from mmgen.shard.manifest import canonical_json
from mmgen.verify import find_damage

# The small data set once more: 6 shards, train 0..2, val 3, test 4..5.
SMALL = [
    *("--set", "canvas=32x40", "--set", "frames=3..5", "--set", "digits=1..2"),
    *("--set", "speed=2..5", "--train", 20, "--val", 3, "--test", 9),
    *("--seed", 5, "--shard-size", 7),
]
SHARD = "train/train-000001.h5"


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch):
    for name in ("ID", "MIN", "MAX", "COUNT", "STEP"):
        monkeypatch.delenv(f"SLURM_ARRAY_TASK_{name}", raising=False)


@pytest.fixture
def generate(run_mmgen):
    """Generate the small data set or parts of it by the command."""

    def run(out, *options, code=0):
        return run_mmgen("generate", out, *SMALL, *options, code=code)

    return run


@pytest.fixture
def run(small_config):
    return prepare(small_config, {"train": 20, "val": 3, "test": 9}, seed=5, shard_size=7)


def ignore(*_):
    pass


# What a part is.


@given(st.integers(0, 10**6), st.integers(1, 2000))
def test_tasks_cut_the_shards_into_equal_parts_in_order(num_shards, count):
    parts = [part_of_task(index, count, num_shards) for index in range(count)]
    assert (parts[0].start, parts[-1].stop) == (0, num_shards)
    assert all(one.stop == following.start for one, following in pairwise(parts))
    assert {len(part) for part in parts} <= {num_shards // count, -(-num_shards // count)}


@pytest.mark.parametrize(
    "text", ["5:2", "3:7", "3:1000000", "x:y", "-1:2", "2", "2:2", "1:2:3", ""]
)
def test_a_bad_range_names_what_is_allowed(generate, tmp_path, text):
    with pytest.raises(InputError, match=r"0 <= A < B <= 6$"):
        part_of_range(text, 6)
    last = generate(tmp_path / "a", "--shards", text, code=2).stderr.splitlines()[-1]
    allowed = "allowed are A:B with 0 <= A < B <= 6"
    assert last == f"Error: shards {text!r}: no such range; {allowed}"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("text", ["3/2", "2/2", "1/0", "0/0", "-1/2", "a/b", "1", ""])
def test_a_bad_task_names_what_is_allowed(generate, tmp_path, text):
    line = generate(tmp_path / "a", "--task", text, code=2).stderr
    assert line == f"Error: task {text!r}: no such task; allowed are I/N with 0 <= I < N\n"
    assert not (tmp_path / "a").exists()


CONTRADICTIONS = {
    ("--shards", "0:1", "--task", "0/2"): "--shards and --task both name a part; leave one out",
    ("--shards", "0:1", "--overwrite"): "--overwrite replaces a whole set when all of it is ready,"
    " which a part never is; make the parts in a new folder",
    ("--cluster", "tcp://a:1", "--workers", 2): "--cluster makes all shards with the cluster's own "
    "workers; leave out --shards, --task and --workers",
}


@pytest.mark.parametrize("options", CONTRADICTIONS)
def test_options_that_cannot_both_be_are_refused_with_the_reason(generate, small_dataset, options):
    before = files(small_dataset)
    last = generate(small_dataset, *options, code=2).stderr.splitlines()[-1]
    assert last == f"Error: {CONTRADICTIONS[options]}"
    assert files(small_dataset) == before


# Slurm's arrays.


def slurm(task, low, high, count, step=1):
    values = {"ID": task, "MIN": low, "MAX": high, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def test_slurms_variables_say_which_task_this_is():
    assert slurm_task({}) == (0, 1)
    assert slurm_task(slurm(3, 0, 7, 8)) == (3, 8)
    assert slurm_task(slurm(9, 1, 17, 5, 4)) == (2, 5)
    assert slurm_task(slurm(6, 6, 6, 1)) == (0, 1)  # one task alone makes all


@pytest.mark.parametrize(
    "variables",
    [
        slurm(7, 1, 7, 3),  # --array=1,2,7
        slurm(2, 1, 7, 3, 3),
        slurm(1, 2, 7, 6),
        slurm("a", 0, 7, 8),
        slurm(0, 0, 7, 8, 0),
        {"SLURM_ARRAY_TASK_ID": "1"},
    ],
)
def test_an_array_that_does_not_say_is_refused(monkeypatch, generate, tmp_path, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    line = generate(tmp_path / "a", code=2).stderr
    assert line.startswith("Error: the variables SLURM_ARRAY_TASK_* do not say which task")
    assert not (tmp_path / "a").exists()
    generate(tmp_path / "a", "--task", "0/2")


def test_the_tasks_of_an_array_make_the_set(monkeypatch, generate, small_dataset, tmp_path):
    out = tmp_path / "a"
    told = []
    for task in (5, 3, 1):
        for name, value in slurm(task, 1, 5, 3, 2).items():
            monkeypatch.setenv(name, value)
        told.append(generate(out))
    assert [result.stderr for result in told] == [
        f"this is task {index} of the 3 of a Slurm array and makes that part; --task 0/1 makes "
        "all\n"
        for index in (2, 1, 0)
    ]
    waiting = f"{out}: shards %s of 6 done, waiting for the others\n"
    assert [result.stdout for result in told[:2]] == [waiting % "4..5", waiting % "2..3"]
    assert "32 sequences in 6 shards" in told[2].stdout
    assert files(out) == files(small_dataset)


@pytest.mark.parametrize("part", [("--task", "0/1"), ("--shards", "0:6")])
def test_inside_an_array_an_option_says_otherwise(monkeypatch, generate, tmp_path, part):
    for name, value in slurm(1, 0, 3, 4).items():
        monkeypatch.setenv(name, value)
    result = generate(tmp_path / "a", *part)
    assert result.stderr == ""
    assert "32 sequences in 6 shards" in result.stdout


# Parts become a set.


def test_a_part_leaves_its_shards_and_what_the_manifest_will_say(generate, small_dataset, tmp_path):
    out = tmp_path / "a"
    told = generate(out, "--shards", "2:4").stdout
    assert told == f"{out}: shards 2..3 of 6 done, waiting for the others\n"
    told = json.loads(generate(out, "--shards", "2:4", "--json").stdout)
    assert told == {"path": str(out), "part": [2, 4], "of": 6, "waits": True}
    manifest = read_manifest(small_dataset)
    entries = manifest.splits["train"].shards[2], manifest.splits["val"].shards[0]
    sides = {f"{e.name[:-10]}/{e.name}.json": canonical_json(asdict(e)).encode() for e in entries}
    found, expected = files(out), files(small_dataset)
    assert {name: found[name] for name in sides} == sides
    rest = {name: found[name] for name in found.keys() - sides.keys()}
    assert rest.keys() == {"request.json", "train/train-000002.h5", "val/val-000000.h5"}
    assert rest.items() <= expected.items()
    with pytest.raises(InputError, match="is not finished"):
        mmgen.open(out)


@pytest.mark.parametrize(
    "parts",
    [
        ["4:6", "0:2", "2:4"],
        ["0:4", "2:5", "2:5", "1:6"],
        ["0:6"],
        ["0:6", "3:4", "0:6"],
        ["0:3", None],
        [None, "1:2"],
    ],
)
def test_parts_in_any_order_again_or_overlapping_make_the_set(
    generate, small_dataset, tmp_path, parts
):
    for part in parts:
        result = generate(tmp_path / "a", *(("--shards", part) if part else ()))
    assert "32 sequences in 6 shards" in result.stdout
    assert files(tmp_path / "a") == files(small_dataset)


def test_more_tasks_than_shards_are_harmless(generate, small_dataset, tmp_path):
    out = tmp_path / "a"
    told = [generate(out, "--task", f"{index}/8").stdout for index in range(8)]
    assert told[0] == f"{out}: no shard of 6 done, waiting for the others\n"
    assert files(out) == files(small_dataset)


def test_parts_at_the_same_time_make_the_set(run, small_dataset, tmp_path):
    """All of them overlap, so that several find the set complete and commit it."""
    for trial in range(6):
        out = tmp_path / str(trial)
        start = threading.Barrier(4)

        def write(part, out=out, start=start):
            start.wait()
            return run.finish_part(out, part, ignore)

        parts = [range(6), range(3), range(2, 6), range(6)]
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(write, parts))
        assert read_manifest(small_dataset) in made
        assert files(out) == files(small_dataset)


def test_a_missing_shard_is_made_again_by_its_part(generate, copied_dataset, small_dataset):
    (copied_dataset / SHARD).unlink()
    generate(copied_dataset, "--shards", "1:2")
    assert files(copied_dataset) == files(small_dataset)


def test_a_part_does_not_change_what_a_manifest_says(
    generate, copied_dataset, edit_manifest, small_dataset
):
    shard = copied_dataset / SHARD
    edit_manifest(  # as if made with other versions of the libraries
        copied_dataset, lambda data: data["splits"]["train"]["shards"][1].update(sha256="0" * 64)
    )
    shard.unlink()
    line = generate(copied_dataset, "--shards", "0:2", code=1).stderr
    assert line.startswith(f"Error: {shard}: comes out otherwise than the manifest says")
    assert not shard.exists()
    generate(copied_dataset)
    assert files(copied_dataset) == files(small_dataset)


def test_what_a_part_has_left_vouches_for_its_shard(generate, tmp_path, small_dataset, caplog):
    out = tmp_path / "a"
    generate(out, "--shards", "0:3")
    content = (out / SHARD).read_bytes()
    for part in (("--shards", "0:3"), ("--shards", "1:4")):
        (out / SHARD).write_bytes(content[:-1] + b"x")
        assert "waiting" in generate(out, *part).stdout
        assert caplog.messages.pop() == f"{out / SHARD}: is damaged and is made again"
        assert (out / SHARD).read_bytes() == content
    (out / SHARD).unlink()
    assert "waiting" in generate(out, "--shards", "3:6").stdout, "one shard is not there"
    generate(out, "--shards", "1:2")
    assert files(out) == files(small_dataset)


@pytest.mark.parametrize(
    "content", ["", "[", "{}", "[1]", '{"name": 1}', "[" * 10**5, '{"bytes": "x"}']
)
def test_a_side_file_that_says_nothing_is_written_anew(generate, tmp_path, small_dataset, content):
    out = tmp_path / "a"
    generate(out, "--shards", "0:3")
    (out / f"{SHARD}.json").write_text(content)
    assert "waiting" in generate(out, "--shards", "3:6").stdout
    generate(out, "--shards", "1:2")
    assert files(out) == files(small_dataset)


# Who may be there at the same time.


def test_a_whole_writer_is_alone_and_parts_are_with_each_other(generate, tmp_path, small_dataset):
    out = tmp_path / "a"
    generate(out, "--shards", "0:2")
    told = f"Error: {out}: another writer is at work there; wait for it\n"
    with (out / "request.json").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as a part does
        assert generate(out, code=2).stderr == told
        generate(out, "--shards", "2:4")
        fcntl.flock(other, fcntl.LOCK_EX)  # as a whole one does
        assert generate(out, code=2).stderr == told
        assert generate(out, "--shards", "4:6", code=2).stderr == told
    generate(out, "--shards", "4:6")
    assert files(out) == files(small_dataset)


@pytest.mark.parametrize(("options", "others"), [((), 0), (("--shards", "4:6"), 1)])
def test_only_what_dead_writers_left_is_cleared_away(generate, tmp_path, options, others):
    out = tmp_path / "a"
    generate(out, "--shards", "0:2")
    theirs, *mine = (
        *("train/train-000000.h5.%s.partial", "test/test-000000.h5.%s.partial"),
        *("test/test-000001.h5.json.%s.partial", "manifest.json.%s.partial"),
    )
    (out / "test").mkdir()
    for name in (theirs, *mine):
        (out / (name % "dead")).touch()
    with (out / (mine[0] % "live")).open("x") as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        generate(out, *options)
        left = {str(path.relative_to(out)) for path in out.rglob("*.partial")}
    assert left == {mine[0] % "live", *[theirs % "dead"][:others]}


def test_another_request_gets_no_part(generate, copied_dataset):
    shutil.rmtree(copied_dataset / "val")
    before = files(copied_dataset)
    line = generate(copied_dataset, "--shards", "0:1", "--masks", code=2).stderr
    assert re.match(rf"Error: {copied_dataset}: holds a data set of another request", line)
    assert files(copied_dataset) == before


def test_a_failed_part_keeps_what_it_has(run, small_dataset, tmp_path):
    calls = []

    def fail(*_):
        calls.append(_)
        if len(calls) == 6:
            raise ShardError("stopped")

    with pytest.raises(ShardError):
        run.finish_part(tmp_path / "a", range(6), fail)
    found = files(tmp_path / "a")
    kept = {name for name in found if name.endswith(".h5")}
    assert kept
    assert {name: found[name] for name in kept}.items() <= files(small_dataset).items()
    assert not [name for name in found if name.endswith(".partial")]
    manifest = run.finish_part(tmp_path / "a", range(6), ignore)
    assert not list(find_damage(mmgen.open(tmp_path / "a"), ignore))
    assert manifest == read_manifest(small_dataset)
