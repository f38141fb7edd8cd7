"""The runs of an experiment made by the workers of a real Dask cluster on this machine."""

import json
import time

import pytest
from experiment_data import TEXT, changed
from trainer_data import error_line, mmtrain

distributed = pytest.importorskip("distributed")


@pytest.fixture
def cluster(start_python, tmp_path_factory):
    """Start a scheduler and two workers in another folder; return the address."""
    folder = tmp_path_factory.mktemp("cluster")
    where = folder / "scheduler.json"
    quiet = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical"}
    start_python(
        *("-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", 0),
        *("--no-dashboard", "--scheduler-file", where),
        **quiet,
    )
    for _ in range(2):
        start_python(
            *("-m", "distributed.cli.dask_worker", "--scheduler-file", where, "--nthreads", 2),
            *("--no-nanny", "--no-dashboard", "--local-directory", folder),
            **quiet | {"OMP_NUM_THREADS": "1"},
        )
    until = time.monotonic() + 60
    while not where.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    address = json.loads(where.read_text())["address"]
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    return address


@pytest.mark.slow
def test_workers_make_the_runs_of_one_machine(cluster, tmp_path, monkeypatch):
    """Two threads of a worker take turns: else one would draw the other's first weights."""
    (tmp_path / "a.toml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    mmtrain("experiment", "a.toml", "-o", "here")
    done = mmtrain("experiment", "a.toml", "-o", "there", "--cluster", cluster)
    assert done.stderr.splitlines()[-1].startswith("run 8 of 8: ")
    tables = [(tmp_path / name / "results.csv").read_bytes() for name in ("here", "there")]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_run_that_fails_on_a_worker_is_named(cluster, tmp_path):
    path, out = tmp_path / "a.toml", tmp_path / "out"
    wild = changed("dropout = 0.0", "lr = 1e30\nmax_skipped = 1").replace("[0, 1]", "[5]")
    path.write_text(wild)
    line = error_line("experiment", path, "-o", out, "--cluster", cluster, code=1)
    assert line.startswith(f"{out}: 2 of 4 runs are not finished: both--endless--seed5: step ")


def test_where_no_scheduler_answers_nothing_begins(tmp_path):
    (tmp_path / "a.toml").write_text(TEXT)
    command = ("experiment", tmp_path / "a.toml", "-o", tmp_path / "out")
    line = error_line(*command, "--cluster", "tcp://127.0.0.1:9", code=2)
    assert line.startswith("cluster tcp://127.0.0.1:9: no scheduler answers (")
    assert not (tmp_path / "out").exists()
