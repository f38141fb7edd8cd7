"""Fixtures: a real S3 server (moto's, on loopback) and a store in memory that fails as it is told.

A test module names this file in `pytest_plugins`; then all of them share one server.
"""

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from faulty_store import FaultyFileSystem


@dataclass
class ObjectStore:
    """The server's address and its log, which has a line for every request."""

    endpoint: str
    log: Path

    def environment(self):
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def requests(self, method, path):
        """Count the requests for one path so far."""
        return len(re.findall(f"{method} {re.escape(path)} HTTP", self.log.read_text()))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    log = tmp_path_factory.mktemp("s3") / "server.log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield ObjectStore(_wait_for_address(server, log), log)
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait_for_address(server, log):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"the S3 server did not start: {log.read_text()}")


@pytest.fixture(scope="session")
def parse_models_once():
    """Each new driver would parse what botocore knows of S3 again, for a quarter of a second."""
    import botocore.session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", cache(botocore.session.create_loader))
        yield


@pytest.fixture
def object_store(s3_server, parse_models_once, monkeypatch):
    """The server, with an empty bucket `bucket`, as s3fs finds it in this test."""
    import s3fs

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    driver = s3fs.S3FileSystem(skip_instance_cache=True)
    driver.mkdir("bucket")
    yield s3_server
    driver.rm("bucket", recursive=True)


@pytest.fixture
def faulty_store(monkeypatch):
    """The class behind `faulty://`, empty and without faults."""
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    fresh = {"store": {}, "pseudo_dirs": [""], "faults": [], "num_reads": 0, "waits": []}
    for name, value in fresh.items():
        monkeypatch.setattr(FaultyFileSystem, name, value)
    clock = SimpleNamespace(sleep=FaultyFileSystem.waits.append, monotonic=time.monotonic)
    monkeypatch.setattr("mmgen.shard.places.time", clock)
    return FaultyFileSystem
