"""Shards made by the workers of a real Dask cluster on this machine."""

import json
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from shard_data import files

import mmgen

distributed = pytest.importorskip("distributed")

SMALL = ["--set", "canvas=28", "--set", "frames=2", "--train", 4000, "--val", 40, "--test", 0]
SMALL += ["--shard-size", 40]
NUM_SHARDS = 101


@pytest.fixture
def cluster(start_python, tmp_path_factory):
    """Start a scheduler; return its address and what starts a worker beside it."""
    folder = tmp_path_factory.mktemp("cluster")
    where = folder / "scheduler.json"
    quiet = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical"}
    start_python(
        *("-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", 0),
        *("--no-dashboard", "--scheduler-file", where),
        **quiet,
    )

    def start_worker(**environment):
        return start_python(
            *("-m", "distributed.cli.dask_worker", "--scheduler-file", where, "--nthreads", 1),
            *("--no-nanny", "--no-dashboard", "--local-directory", folder),
            **quiet | environment,
        )

    def find_address():
        until = time.monotonic() + 60
        while not where.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        return json.loads(where.read_text())["address"]

    return find_address, start_worker


def wait_until(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.slow
def test_a_worker_that_dies_in_the_middle_changes_nothing(
    cluster, start_python, run_mmgen, tmp_path
):
    find_address, start_worker = cluster
    workers = [start_worker(), start_worker()]
    serial, out = tmp_path / "serial", tmp_path / "a"
    run_mmgen("generate", serial, *SMALL, "--workers", 1)
    address = find_address()
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    made = start_python("-m", "mmgen", "generate", out, *SMALL, "--cluster", address)
    wait_until(lambda: len(list(out.glob("train/*.h5"))) >= 20)
    workers[0].send_signal(signal.SIGKILL)
    said, err = made.communicate(timeout=60)
    assert made.returncode == 0
    assert all(re.match(r"sequences \d+/4040, ", line) for line in err.splitlines()), err
    assert len(mmgen.open(out)["train"]) == 4000
    again = run_mmgen("generate", out, *SMALL).stdout  # clears away what the dead one had begun
    assert again.endswith(", all there already\n")
    assert files(out) == files(serial)
    size = sum(path.stat().st_size for path in out.rglob("*.h5"))
    assert said.endswith(f"4040 sequences in {NUM_SHARDS} shards, {size / 1e6:.1f} MB\n")


@pytest.mark.slow
def test_what_goes_wrong_on_a_cluster_ends_in_one_line_and_is_finished_later(
    cluster, start_python, run_mmgen, tmp_path
):
    find_address, start_worker = cluster
    out = tmp_path / "a"
    address = find_address()

    def run(code):
        command = "generate", out, *SMALL, "--cluster", address
        return run_mmgen(*command, code=code).stderr.splitlines()[-1]

    assert run(1).startswith(f"Error: cluster {address}: has no workers; start some with `dask wo")
    start_worker()
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
        interrupted = start_python("-m", "mmgen", "generate", out, *SMALL, "--cluster", address)
        wait_until(lambda: len(list(out.glob("train/*.h5"))) >= 3)
        interrupted.send_signal(signal.SIGINT)
        _, err = interrupted.communicate(timeout=20)
        assert interrupted.returncode == 130
        line = "interrupted: what has its final name is complete; the same command goes on"
        assert err.splitlines()[-1] == f"Error: {line}"
        assert not client.processing()[next(iter(client.processing()))], "nothing waits any more"
        assert not (out / "manifest.json").exists()

        shard = out / "train/train-000001.h5"
        content = shard.read_bytes()
        shard.unlink()
        shard.mkdir()
        assert run(1) == f"Error: {shard}: is no file; delete it, or overwrite the data set"
        shard.rmdir()
        shard.write_bytes(content[:-1])  # damaged, it is made again below

        other = tmp_path / "other"
        shutil.copytree(Path(mmgen.__file__).parent, other / "mmgen")
        version = other / "mmgen/__init__.py"
        version.write_text(version.read_text().replace(mmgen.__version__, "0.0.7"))
        start_worker(PYTHONPATH=str(other), PYTHONSAFEPATH="1")
        client.wait_for_workers(2, timeout=60)
        refused = r"Error: worker tcp://\S+: has mmgen 0\.0\.7, here it is \S+; install the same .*"
        assert re.fullmatch(refused, run(2))
    run_mmgen("generate", out, *SMALL)
    run_mmgen("generate", tmp_path / "serial", *SMALL)
    assert files(out) == files(tmp_path / "serial")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tcp://127.0.0.1:9", "Timed out trying to connect to tcp://127.0.0.1:9 after 5 s"),
        ("tcp://localhost", "missing port number in address 'localhost'"),
        ("", "missing port number in address ''"),
    ],
)
def test_where_no_scheduler_answers_one_line_says_so(run_mmgen, tmp_path, address, reason):
    line = run_mmgen("generate", tmp_path / "a", *SMALL, "--cluster", address, code=2).stderr
    hint = "start one with `dask scheduler`"
    assert line == f"Error: cluster {address}: no scheduler answers ({reason}); {hint}\n"
    assert not (tmp_path / "a").exists()


def test_without_the_extra_one_line_names_it(run_mmgen, tmp_path, monkeypatch):
    for name in ("distributed", "distributed.comm"):
        monkeypatch.setitem(sys.modules, name, None)
    line = run_mmgen("generate", tmp_path / "a", "--cluster", "tcp://a:1", code=2).stderr
    package = "pip install 'moving-mnist[cluster]'"
    assert line == f"Error: a cluster needs the package distributed: {package}\n"
