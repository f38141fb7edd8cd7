"""Remote shards as local files: verified, fetched once, bounded, and nobody ever hangs."""

import errno
import hashlib
import os
import pickle
import pwd
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager

import pytest
from faulty_store import (
    breaks_off,
    empties,
    flips_a_bit,
    lengthens,
    loses_connection,
    truncates,
)

from mmgen.errors import InputError, MmgenError, ShardError
from mmgen.shard.cache import RemoteShard, ShardCache, default_folder
from mmgen.shard.cache_folder import CacheFolder, Reservation
from mmgen.shard.places import find_place

pytest_plugins = ["object_store"]

SIZE = 1000

FETCH = """if True:
    import sys, time
    from mmgen.shard.cache import RemoteShard, ShardCache
    from mmgen.shard.cache_folder import Reservation
    from mmgen.shard.places import find_place

    folder, address, relative, size, sha256, must_stall = sys.argv[1:]
    place = find_place(address)
    if int(must_stall):  # in the middle of the download: half is written, then nothing more comes
        write = Reservation.write
        def stall(self, offset, block):
            write(self, offset, block[: len(block) // 2])
            print("stalled", flush=True)
            time.sleep(60)
        Reservation.write = stall
    else:
        place.exists(relative)  # imports and connects before the others may begin
        print("ready", flush=True)
        sys.stdin.readline()
    with ShardCache(folder).fetch(RemoteShard(place, relative, int(size), sha256)) as shard:
        print(len(shard.path.read_bytes()), flush=True)
    """


def content(number):
    return bytes([number]) * SIZE


def put(address, number, tmp_path):
    """Put a shard into a store; return it as its manifest has it."""
    local = tmp_path / f"{number}.finished"
    local.write_bytes(content(number))
    place = find_place(address)
    relative = f"train/train-{number:06}.h5"
    place.put_file(local, relative)
    return RemoteShard(place, relative, SIZE, hashlib.sha256(content(number)).hexdigest())


@pytest.fixture
def shards(faulty_store, tmp_path):
    made = [put("faulty://host/data", number, tmp_path) for number in range(6)]
    faulty_store.num_reads = 0
    return made


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def cached(folder, shards):
    """Return the numbers of the shards that the folder holds; nothing else may lie there."""
    numbers = {f"{shard.sha256}.h5": number for number, shard in enumerate(shards)}
    return sorted(numbers[name] for name in names(folder))


def fetch_and_let_go(cache, *wanted):
    for shard in wanted:
        cache.fetch(shard).close()
        time.sleep(0.012)  # file times move with the kernel's tick, of 10 ms at most


def refusal(kind, action):
    with pytest.raises(kind) as caught:
        action()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextmanager
def fetching(folder, shard, must_stall=False):
    """Fetch in another process, as far as to its first line."""
    command = [sys.executable, "-c", FETCH, folder, shard.place.name, shard.relative]
    command += [str(shard.size), shard.sha256, str(int(must_stall))]
    process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
    try:
        assert process.stdout.readline() == ("stalled\n" if must_stall else "ready\n")
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_shard_is_fetched_once_and_then_local(shards, folder, faulty_store):
    with ShardCache(folder).fetch(shards[1]) as shard:
        assert shard.path.read_bytes() == content(1)
        assert os.pread(shard.descriptor, SIZE, 0) == content(1)
    with pickle.loads(pickle.dumps(ShardCache(folder))).fetch(shards[1]) as shard:
        assert shard.path.read_bytes() == content(1)
    assert faulty_store.num_reads == 1
    assert cached(folder, shards) == [1]


@pytest.mark.parametrize(
    "fault", [truncates, lengthens, flips_a_bit, breaks_off, loses_connection, empties]
)
def test_what_fails_once_is_fetched_again(shards, folder, faulty_store, fault):
    faulty_store.faults += [fault]
    with ShardCache(folder).fetch(shards[2]) as shard:
        assert shard.path.read_bytes() == content(2)
    assert faulty_store.num_reads == 2
    assert cached(folder, shards) == [2]


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (truncates, "has 995 bytes, not 1000"),
        (lengthens, "has more than 1000 bytes"),
        (flips_a_bit, "has another SHA-256"),
    ],
)
def test_what_is_wrong_twice_is_refused_by_name(shards, folder, faulty_store, fault, what):
    faulty_store.faults += [fault, fault]
    message = refusal(ShardError, lambda: ShardCache(folder).fetch(shards[2]))
    assert message.startswith(f"faulty://host/data/train/train-000002.h5: {what}")
    assert faulty_store.num_reads == 2
    assert names(folder) == []
    ShardCache(folder).fetch(shards[2]).close()


def test_a_network_that_stays_away_is_one_line_after_few_tries(shards, folder, faulty_store):
    faulty_store.faults += [loses_connection, breaks_off] * 5
    message = refusal(MmgenError, lambda: ShardCache(folder).fetch(shards[0]))
    assert message.startswith("faulty://host/data/train/train-000000.h5: cannot be reached")
    assert faulty_store.num_reads == 4
    assert sum(faulty_store.waits) < 4
    assert names(folder) == []


def test_a_shard_that_is_missing_or_impossible_is_refused(shards, folder):
    cache = ShardCache(folder, max_bytes=SIZE)
    place, sha256 = shards[0].place, shards[0].sha256
    gone = RemoteShard(place, "train/train-000099.h5", SIZE, sha256)
    assert "is missing" in refusal(ShardError, lambda: cache.fetch(gone))
    assert names(folder) == []

    large = RemoteShard(place, shards[0].relative, SIZE + 1, sha256)
    assert "has 1001 bytes, the cache holds 1000" in refusal(InputError, lambda: cache.fetch(large))
    empty = RemoteShard(place, shards[0].relative, 0, sha256)
    assert "has 0 bytes" in refusal(InputError, lambda: cache.fetch(empty))
    for name in ("../train-000000.h5", "/etc/passwd", "train\\x", ""):
        hostile = RemoteShard(place, name, SIZE, sha256)
        assert "is no name of a file" in refusal(InputError, lambda h=hostile: cache.fetch(h))
    for wrong in ("", "../../x", sha256.upper(), sha256[:-1], sha256 + "\n"):
        hostile = RemoteShard(place, shards[0].relative, SIZE, wrong)
        assert "has no SHA-256" in refusal(InputError, lambda h=hostile: cache.fetch(h))
    assert names(folder) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
        lambda path: os.truncate(path, 10),
        lambda path: path.write_bytes(b""),
    ],
)
def test_a_file_damaged_on_disk_is_fetched_again(shards, folder, faulty_store, damage):
    with ShardCache(folder).fetch(shards[3]) as shard:
        damage(shard.path)
    with ShardCache(folder).fetch(shards[3]) as shard:
        assert shard.path.read_bytes() == content(3)
    assert faulty_store.num_reads == 2


def test_a_manifest_that_lies_about_a_size_harms_nobody(shards, folder):
    ShardCache(folder).fetch(shards[0]).close()
    liar = RemoteShard(shards[0].place, shards[0].relative, SIZE - 1, shards[0].sha256)
    assert "has more than 999 bytes" in refusal(ShardError, lambda: ShardCache(folder).fetch(liar))
    assert cached(folder, shards) == [0]


def test_the_least_recently_used_shard_goes_first(shards, folder):
    cache = ShardCache(folder, max_bytes=3 * SIZE)
    fetch_and_let_go(cache, shards[0], shards[1], shards[2], shards[0])
    fetch_and_let_go(cache, shards[3])
    assert cached(folder, shards) == [0, 2, 3]
    fetch_and_let_go(cache, shards[4])
    assert cached(folder, shards) == [0, 3, 4]


def test_a_shard_in_use_stays_and_the_bound_returns_afterwards(shards, folder):
    cache = ShardCache(folder, max_bytes=2 * SIZE)
    used = [cache.fetch(shard) for shard in shards[:4]]
    assert cached(folder, shards) == [0, 1, 2, 3]
    assert [shard.path.read_bytes() for shard in used] == [content(n) for n in range(4)]
    for shard in used[1:]:
        shard.close()
    fetch_and_let_go(ShardCache(folder, max_bytes=2 * SIZE), shards[4])
    assert cached(folder, shards) == [0, 4]
    used[0].close()


def test_files_of_others_are_neither_counted_nor_deleted(shards, folder):
    folder.mkdir()
    for name in ("thesis.h5", "a" * 64 + ".txt", "b" * 63 + ".h5"):
        (folder / name).write_bytes(b"x" * 5 * SIZE)
    (folder / ("c" * 64 + ".h5")).mkdir()
    before = names(folder)
    cache = ShardCache(folder, max_bytes=2 * SIZE)
    fetch_and_let_go(cache, *shards[:4])
    kept = [f"{shard.sha256}.h5" for shard in shards[2:4]]
    assert names(folder) == sorted(before + kept)


def test_threads_that_want_the_same_shard_share_one_download(shards, folder, faulty_store):
    begun, may_end = threading.Event(), threading.Event()

    class Slow(breaks_off):
        def read(self, size=-1):
            begun.set()
            may_end.wait(5)
            return super(breaks_off, self).read(size)

    faulty_store.faults += [Slow]
    caches = [ShardCache(folder) for _ in range(2)]
    contents = []

    def read(cache):
        with cache.fetch(shards[0]) as shard:
            contents.append(shard.path.read_bytes())

    threads = [threading.Thread(target=read, args=[caches[n % 2]]) for n in range(8)]
    for thread in threads:
        thread.start()
    assert begun.wait(5)
    may_end.set()
    for thread in threads:
        thread.join(5)
    assert contents == [content(0)] * 8
    assert faulty_store.num_reads == 1


def test_processes_that_want_the_same_shard_share_one_download(object_store, folder, tmp_path):
    shard = put("s3://bucket/data", 7, tmp_path)
    with fetching(folder, shard) as first, fetching(folder, shard) as second:
        for process in (first, second):
            process.stdin.write("\n")
            process.stdin.flush()
        assert [process.stdout.readline() for process in (first, second)] == [f"{SIZE}\n"] * 2
    assert object_store.requests("GET", f"/bucket/data/{shard.relative}") == 1


def test_a_killed_download_is_taken_over_by_who_waits_for_it(object_store, folder, tmp_path):
    shard = put("s3://bucket/data", 8, tmp_path)
    with fetching(folder, shard, must_stall=True) as killed:
        assert names(folder) == [f"{shard.sha256}.h5.partial"]
        contents = []
        waiting = threading.Thread(
            target=lambda: contents.append(ShardCache(folder).fetch(shard).path.read_bytes())
        )
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        os.kill(killed.pid, signal.SIGKILL)
        waiting.join(5)
    assert contents == [content(8)]
    assert names(folder) == [f"{shard.sha256}.h5"]


def test_what_a_killed_process_left_makes_room_first(shards, folder):
    cache = ShardCache(folder, max_bytes=2 * SIZE)
    fetch_and_let_go(cache, shards[0])
    (folder / f"{shards[5].sha256}.h5.partial").write_bytes(content(0))  # newer, and nobody's
    fetch_and_let_go(cache, shards[1])
    assert cached(folder, shards) == [0, 1]
    (folder / f"{shards[2].sha256}.h5.partial").write_bytes(content(0) * 5)
    with cache.fetch(shards[2]) as shard:
        assert shard.path.read_bytes() == content(2)


def test_a_child_does_not_keep_the_lock_of_a_parent_that_died(folder):
    code = """if True:
        import os, sys, time
        from pathlib import Path
        from mmgen.shard.cache_folder import CacheFolder
        reservation = CacheFolder(Path(sys.argv[1]), 1000).find_or_reserve("a" * 64, 10, False)
        child = os.fork()
        if child:
            print(child, flush=True)
            os._exit(0)
        time.sleep(60)
        """
    parent = subprocess.Popen([sys.executable, "-c", code, folder], stdout=-1, text=True)
    child = int(parent.stdout.readline())
    try:
        assert parent.wait(10) == 0
        deadline = time.monotonic() + 5  # the child may not have come out of the fork yet
        while CacheFolder(folder, 1000).is_being_filled("a" * 64):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(child, 0)  # it lives
        taken = CacheFolder(folder, 1000).find_or_reserve("a" * 64, 10, False)
        assert isinstance(taken, Reservation)
        taken.drop()
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()


def test_what_is_fetched_ahead_waits_for_who_asks(shards, folder, faulty_store):
    cache = ShardCache(folder, max_bytes=4 * SIZE)
    cache.fetch_ahead(shards[:4])
    wait_until(lambda: cached_complete(folder) == 4)
    assert faulty_store.num_reads == 4
    fetch_and_let_go(ShardCache(folder, max_bytes=4 * SIZE), shards[4])  # evicts none of them
    assert cached(folder, shards) == [0, 1, 2, 3, 4]
    for number in range(4):
        with cache.fetch(shards[number]) as shard:
            assert shard.path.read_bytes() == content(number)
    assert faulty_store.num_reads == 5
    cache.close()


def test_fetching_ahead_stays_within_the_bound(shards, folder):
    cache = ShardCache(folder, max_bytes=2 * SIZE)
    cache.fetch_ahead(shards)
    for number in range(4):
        with cache.fetch(shards[number]) as shard:
            assert shard.path.read_bytes() == content(number)
            assert cached_complete(folder) <= 3  # the one that was asked for may exceed it
    # Those that found no room may find it now.
    wait_until(
        lambda: (
            cache.fetch_ahead(shards[4:])
            or names(folder) == sorted(f"{shard.sha256}.h5" for shard in shards[4:])
        )
    )
    cache.close()


def test_what_a_fetch_ahead_met_is_raised_when_the_shard_is_asked_for(
    shards,
    folder,
    faulty_store,
):
    faulty_store.faults += [flips_a_bit, flips_a_bit]
    cache = ShardCache(folder)
    cache.fetch_ahead(shards[:1])
    wait_until(lambda: faulty_store.num_reads == 2)
    cache.fetch(shards[1]).close()
    assert "has another SHA-256" in refusal(ShardError, lambda: cache.fetch(shards[0]))
    with cache.fetch(shards[0]) as shard:
        assert shard.path.read_bytes() == content(0)
    cache.close()


def test_a_new_list_lets_go_of_what_is_no_longer_wanted(shards, folder):
    cache = ShardCache(folder, max_bytes=2 * SIZE)
    cache.fetch_ahead(shards[:2])
    wait_until(lambda: cached_complete(folder) == 2)
    cache.fetch_ahead(shards[2:4])
    wait_until(lambda: names(folder) == sorted(f"{shard.sha256}.h5" for shard in shards[2:4]))
    cache.close()
    fetch_and_let_go(ShardCache(folder, max_bytes=SIZE), shards[5])
    assert cached(folder, shards) == [5]


def test_close_stops_a_download_under_way_and_leaves_nothing(shards, folder, faulty_store):
    begun, may_end = threading.Event(), threading.Event()

    class Slow(breaks_off):
        def read(self, size=-1):
            begun.set()
            may_end.wait(5)
            return super(breaks_off, self).read(10)

    faulty_store.faults += [Slow] * 6
    cache = ShardCache(folder)
    cache.fetch_ahead(shards)
    assert begun.wait(5)
    threading.Timer(0.1, may_end.set).start()
    cache.close()
    assert not any(thread.is_alive() for thread in cache._threads)
    assert names(folder) == []
    assert faulty_store.num_reads <= 4


def test_a_full_disk_is_one_line(shards, folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, hard))
    try:
        message = refusal(MmgenError, lambda: ShardCache(folder).fetch(shards[0]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert message.startswith(f"{folder}: cannot keep shards (File too large); free space")
    assert names(folder) == []


def test_a_disk_without_room_takes_it_from_other_shards(shards, folder, monkeypatch):
    """The disk has room for two shards, though the bound allows more."""
    allocate = os.posix_fallocate

    def allocate_on_small_disk(descriptor, offset, size):
        if len(names(folder)) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(descriptor, offset, size)

    monkeypatch.setattr("os.posix_fallocate", allocate_on_small_disk)
    cache = ShardCache(folder)
    fetch_and_let_go(cache, shards[0], shards[1], shards[2])
    assert cached(folder, shards) == [1, 2]
    with cache.fetch(shards[1]), cache.fetch(shards[2]):
        message = refusal(MmgenError, lambda: cache.fetch(shards[3]))
    assert "cannot keep shards (No space left on device)" in message
    assert cached(folder, shards) == [1, 2]


def test_a_cache_folder_that_is_a_file_is_one_line(shards, folder):
    folder.write_text("")
    message = refusal(MmgenError, lambda: ShardCache(folder).fetch(shards[0]))
    assert message.startswith(f"{folder}: cannot keep shards (File exists)")


def test_the_default_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "moving-mnist" / "shards"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative: to be ignored")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home" / ".cache" / "moving-mnist" / "shards"


def test_a_user_without_a_home_has_a_cache_in_tmpdir(monkeypatch, tmp_path):
    def no_such_user(number):
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_such_user)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert default_folder() == tmp_path / f"cache-of-{os.getuid()}" / "moving-mnist" / "shards"


def cached_complete(folder):
    return sum(name.endswith(".h5") for name in names(folder)) if folder.is_dir() else 0


def wait_until(is_so):
    deadline = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)
