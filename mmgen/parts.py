"""A folder and its writers: one for the whole set, or several at once for parts of it.

All that writers do to a folder is here, but for the shards themselves: the lock, what the dead have
left, the commit. A writer holds a lock on `request.json`, alone for a whole set, shared for a part;
the system lets go of a dead one's. A part leaves a side file beside each of its shards, what the
manifest will say of it; whoever finds all of them commits the set.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from mmgen.card import CARD_NAME, data_card
from mmgen.errors import InputError, MmgenError, ShardError
from mmgen.request import AnyRequest, first_difference, read_manifest
from mmgen.shard import schema
from mmgen.shard.manifest import (
    Manifest,
    ShardEntry,
    SplitEntry,
    canonical_json,
    read_json_file,
    replace_durably,
)
from mmgen.shard.writer import PlannedShard, gather_splits, known_shards

# Of how many shards a set has -> which of them a writer makes.
Part = Callable[[int], range]

_LOCK_ATTEMPTS = 10
_LOCK_PAUSE_S = 0.05
_SIDE_SUFFIX = ".json"


def part_of_range(text: str, num_shards: int) -> range:
    """Read `A:B`, half open; InputError names what is allowed."""
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text, re.ASCII)
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not first < last <= num_shards:
        raise InputError(
            f"shards {text!r}: no such range; allowed are A:B with 0 <= A < B <= {num_shards}"
        )
    return range(first, last)


def part_of_task(index: int, count: int, num_shards: int) -> range:
    """Return the index-th of so many nearly equal parts; empty where there are too few shards."""
    return range(index * num_shards // count, (index + 1) * num_shards // count)


def parse_task(text: str) -> tuple[int, int]:
    """Read `I/N`: index and count; InputError names what is allowed."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not index < count:
        raise InputError(f"task {text!r}: no such task; allowed are I/N with 0 <= I < N")
    return index, count


def slurm_task(environment: Mapping[str, str]) -> tuple[int, int]:
    """Tell from Slurm's variables which task of an array this is: index and count.

    returns  0, 1 outside an array
    raises  InputError where the ids of the array's tasks are no even steps, such as 1,2,7: then
            they do not say which of them this one is
    """
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return 0, 1
    try:
        task, low, high, step, count = (
            int(environment[f"SLURM_ARRAY_TASK_{name}"])
            for name in ("ID", "MIN", "MAX", "STEP", "COUNT")
        )
        index, beside = divmod(task - low, step)
        is_even = beside == 0 and 0 <= index < count and high - low == (count - 1) * step
    except (KeyError, ValueError, ZeroDivisionError):
        is_even = False
    if not is_even:
        raise InputError(
            "the variables SLURM_ARRAY_TASK_* do not say which task of an array with even steps "
            "this is; say which part it makes, or task 0/1 for the whole set"
        )
    return index, count


@dataclass(frozen=True)
class Claim:
    """A folder that this writer may fill; `committed` is the manifest of an earlier commit."""

    out: Path
    committed: Manifest | None

    @cached_property
    def _listed(self) -> dict[str, ShardEntry]:
        return known_shards(self.committed)

    def known(self, shard: PlannedShard) -> ShardEntry | None:
        """Return what an earlier writer vouches for of a shard, if any does."""
        return self._listed.get(shard.path(self.out).name) or left_entry(self.out, shard)

    def leave(self, shard: PlannedShard, entry: ShardEntry) -> None:
        """Leave for others what the manifest will say of a shard, unless it says so already.

        raises  ShardError if it says something else
        """
        path = shard.path(self.out)
        if self.committed is None:
            if left_entry(self.out, shard) != entry:
                leave_entry(self.out, shard, entry)
        elif self._listed[path.name] != entry:
            path.unlink(missing_ok=True)
            raise ShardError(
                f"{path}: comes out otherwise than the manifest says (other versions of libraries);"
                " make the whole set, not a part"
            )

    def merge(
        self,
        shards: Iterable[PlannedShard],
        describe: Callable[[dict[str, SplitEntry]], Manifest],
        *,
        masks: bool,
    ) -> Manifest | None:
        """Commit what the parts have left; None while some shards are still to come.

        Of several that finish at once each may do so: they write the same bytes.
        """
        made = []
        for shard in shards:
            entry = left_entry(self.out, shard)
            if entry is None:
                # Removed by one who has committed, or never written.
                if not (self.out / schema.MANIFEST_NAME).is_file():
                    return None
                _remove_sides(self.out)
                return read_manifest(self.out)
            made.append((shard, entry))
        return self.commit(describe(gather_splits(made)), masks=masks)

    def commit(self, manifest: Manifest, *, masks: bool = False) -> Manifest:
        """Describe a complete set by its card and commit it by its manifest; return what is there.

        An earlier manifest stays if it says the same: it still says who made the set.
        """
        if self.committed and replace(self.committed, version=manifest.version) == manifest:
            manifest = self.committed
        else:
            _write(self.out / CARD_NAME, data_card(manifest, masks=masks))
            _write(self.out / schema.MANIFEST_NAME, manifest.to_json())
        _remove_sides(self.out)
        return manifest


def leave_entry(out: Path, shard: PlannedShard, entry: ShardEntry) -> None:
    """Write beside a shard what the manifest will say of it."""
    _write(_side(shard.path(out)), canonical_json(asdict(entry)))


def left_entry(out: Path, shard: PlannedShard) -> ShardEntry | None:
    """Read what was left beside a shard; None if it is not there, or not of the shard there."""
    path = shard.path(out)
    try:
        entry = ShardEntry(**json.loads(read_json_file(_side(path))))
        is_of_it = (entry.name, entry.first, entry.count, entry.bytes) == (
            *(path.name, shard.first, shard.count),
            path.stat().st_size,
        )
    except (InputError, OSError, ValueError, TypeError, RecursionError):
        return None
    return entry if is_of_it and isinstance(entry.sha256, str) else None


def _side(path: Path) -> Path:
    return path.with_name(path.name + _SIDE_SUFFIX)


@contextmanager
def claimed(
    out: Path, request: AnyRequest, part: Sequence[PlannedShard] | None = None
) -> Iterator[Claim]:
    """Make a folder that of a request, or go on with it, and keep other writers away meanwhile.

    part    the shards that this writer makes; others may then write others at the same time
    raises  InputError if it holds something else, or another writer is at work there
    """
    check_folder(out, request)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out}: lies behind a file; name a folder") from error
    except OSError as error:
        raise _unwritable(out, error) from error
    if not (out / schema.REQUEST_NAME).exists():
        _write(out / schema.REQUEST_NAME, request.to_json(), is_first=True)
    with locked(out, shared=part is not None):
        check_folder(out, request)  # again, now that nobody else can change it
        _remove_leftovers(out, part)
        has_manifest = (out / schema.MANIFEST_NAME).is_file()
        committed = read_manifest(out) if has_manifest else None
        if committed:
            _remove_sides(out)
        yield Claim(out, committed)


def check_folder(out: Path, request: AnyRequest) -> None:
    """Leave alone whatever is not empty and not of this request."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder")
    # Looked at before the request: what another writer makes comes after its request.
    is_used = out.is_dir() and any(foreign_entries(out))
    existing = out / schema.REQUEST_NAME
    if existing.is_file():
        if difference := first_difference(read_json_file(existing), request):
            raise InputError(
                f"{out}: holds a data set of another request ({difference}); name another folder, "
                "or overwrite it"
            )
    elif is_used:
        raise InputError(f"{out}: holds something else; name an empty or a new folder")


def foreign_entries(out: Path) -> Iterator[Path]:
    """Yield what no writer of ours has left in a folder without a request."""
    # A run killed before its request had its name leaves the partial request and nothing else.
    return (
        path
        for path in out.iterdir()
        if not (path.name.startswith(schema.REQUEST_NAME) and path.suffix == schema.PARTIAL_SUFFIX)
    )


def is_ours(out: Path) -> bool:
    """Tell our request or manifest from somebody else's file of that name."""
    for name in (schema.REQUEST_NAME, schema.MANIFEST_NAME):
        try:
            data = json.loads(read_json_file(out / name))
        except (InputError, ValueError, RecursionError):
            continue
        if isinstance(data, dict) and {"format", "codec", "seed", "shard_size"} <= data.keys():
            return True
    return False


@contextmanager
def locked(out: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a folder; InputError if a writer is there that this one cannot join."""
    path = out / schema.REQUEST_NAME
    if not path.exists():  # deleted: nobody can be at work there
        yield
        return
    with path.open("r+b") as file:  # NFS locks alone only what is open for writing
        # Whoever only looks, to find that the folder is another's, lets go at once.
        for attempt in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == _LOCK_ATTEMPTS - 1:
                    problem = f"{out}: another writer is at work there; wait for it"
                    raise InputError(problem) from None
                time.sleep(_LOCK_PAUSE_S)
        if not _is_still(file, path):
            raise InputError(f"{out}: another writer has just replaced it; try again")
        yield


def _remove_leftovers(out: Path, part: Sequence[PlannedShard] | None) -> None:
    """Remove what dead writers left unfinished, of other parts' shards nothing.

    What nobody holds a lock on is dead, unless it was made this moment and is about to be locked.
    """
    left = [path for folder in ("", "*/") for path in out.glob(f"{folder}*{schema.PARTIAL_SUFFIX}")]
    if part is not None:
        paths = [shard.path(out) for shard in part]
        mine = {path.name for one in paths for path in (one, _side(one))}
        left = [path for path in left if path.parent == out or path.name.rsplit(".", 2)[0] in mine]
    left = [path for path in left if path.is_file() and _is_unlocked(path)]
    if left:
        time.sleep(_LOCK_PAUSE_S)
    for path in left:
        if _is_unlocked(path):
            path.unlink(missing_ok=True)


def _is_unlocked(path: Path) -> bool:
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (FileNotFoundError, BlockingIOError):
        return False


def _remove_sides(out: Path) -> None:
    for split in schema.SPLITS:
        for side in out.glob(f"{split}/{split}-*.h5{_SIDE_SUFFIX}"):
            side.unlink(missing_ok=True)


def _write(path: Path, content: str, *, is_first: bool = False) -> None:
    """Write a small file whole or not at all, whoever else writes it at the same moment.

    is_first  leave what is there by then: others may have locked it
    """
    try:
        with _partial_of(path) as (partial, file):
            file.write(content.encode())
            file.flush()
            os.fsync(file.fileno())
            if is_first:
                _link(partial, path)
            else:
                replace_durably(partial, path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> MmgenError:
    return MmgenError(
        f"{path}: could not be written ({error.strerror or error}); the same command goes on with "
        "what is there"
    )


@contextmanager
def _partial_of(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a file of this writer's own; the lock on it tells others that its writer lives."""
    while True:
        partial = path.with_name(f"{path.name}.{uuid4().hex[:8]}{schema.PARTIAL_SUFFIX}")
        with partial.open("xb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not _is_still(file, partial):
                    continue  # cleared away before it was locked
                yield partial, file
                return
            finally:
                partial.unlink(missing_ok=True)


def _link(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)
    except FileExistsError:
        pass  # another writer was first: the check behind the lock decides
    except OSError:  # a file system without hard links
        partial.replace(path)


def _is_still(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
