"""A process whose threads read shards may fork at any moment: parent and child read on.

Each runs in a process of its own, which an alarm ends where it waits for ever.
"""

import pytest
from shard_data import SHARD, frames_of, store

# What a thread is at when the process forks; `at_it` says that it has begun.
INSIDE_HDF5 = """
from mmgen.shard.checks import opened
forking = threading.Event()
os.register_at_fork(before=forking.set)  # registered last, it is told first

def work():
    path = f"{sys.argv[1]}/{sys.argv[2]}"
    with opened(path, os.open(path, os.O_RDONLY)) as file:
        at_it.set()
        forking.wait()
        for _ in range(2000):  # takes and leaves h5py's own lock, while the fork wants it
            file["index"][0]
"""
INSIDE_A_SLOT = """
def work():
    at_it.set()
    split[0]  # hashes 25 MB while it holds the shard's slot
"""
FORK = """
import os, signal, sys, threading
import mmgen
split = mmgen.open(sys.argv[1])["train"]
at_it = threading.Event()
{work}
threading.Thread(target=work).start()
at_it.wait()
signal.alarm(30)
child = os.fork()
if not child:
    signal.alarm(30)  # the child does not inherit it
assert split[0].index == 0
if not child:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """24 sequences of noise, not packed: 25 MB in one shard."""
    frames, annotations = frames_of(24, 10, 320, 320)
    return store(tmp_path_factory.mktemp("fork") / "raw", frames, annotations, codec="none")


@pytest.mark.parametrize("work", [INSIDE_HDF5, INSIDE_A_SLOT], ids=["hdf5", "slot"])
def test_a_child_forked_beside_a_reading_thread_reads_too(raw, start_python, work):
    process = start_python("-c", FORK.format(work=work), raw, SHARD)
    _, said = process.communicate()
    assert process.returncode == 0, said
