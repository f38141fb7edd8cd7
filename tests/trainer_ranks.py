"""Ranks on this host for tests: forks of one process that has imported torch, which takes seconds.

No launcher ends the others when one has ended: a test does that where it counts.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import sys
from pathlib import Path

import torch

_FORKS = multiprocessing.get_context("forkserver")
# The last is what DistributedDataParallel imports when it is first made.
_FORKS.set_forkserver_preload(["trainer.loop", "trainer.cli", "torch._dynamo"])
_TIMEOUT_S = 120


class Rank:
    """A process that runs a Python file with arguments, as `python FILE ARGUMENTS` does."""

    def __init__(self, number, size, port, folder, words):
        self.said_path = Path(folder) / f"said-{number}-{port}"
        place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": size}
        meeting_point = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {name: str(value) for name, value in (place | meeting_point).items()}
        self._process = _FORKS.Process(target=_run, args=(environment, self.said_path, words))
        self._process.start()

    def send(self, number):
        """Send a signal; a number that has ended may be somebody else's."""
        assert self.is_running
        os.kill(self._process.pid, number)

    @property
    def is_running(self):
        return self._process.is_alive()

    def ended(self):
        """Return the exit code and the lines said."""
        self._process.join(_TIMEOUT_S)
        assert not self._process.is_alive(), self.said_path.read_text()
        return self._process.exitcode, self.said_path.read_text().splitlines()

    def kill(self):
        """Let nothing of it stay."""
        self._process.kill()
        self._process.join()


def start_ranks(folder, *words, ranks=(0, 1), size=2):
    """Start ranks that run a Python file, words[0]; what they say goes to files in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [Rank(number, size, port, folder, [str(word) for word in words]) for number in ranks]


def _run(environment, said_path, words):
    os.environ.update(environment)
    said = os.open(said_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
