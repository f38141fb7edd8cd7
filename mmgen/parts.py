"""The writers of a data set: one for all of it, or several at once for parts of it.

What they have to agree on is here, wherever the set lies: which shards a part is, what is left
beside a finished shard (a side file, SHARD.h5.json: what the manifest will say of it), and the
commit by whoever finds all of them.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial

from mmgen.card import CARD_NAME, data_card
from mmgen.errors import InputError, ShardError
from mmgen.folder import SIDE_SUFFIX, LocalFolder
from mmgen.request import AnyRequest, read_manifest_in
from mmgen.shard import schema
from mmgen.shard.manifest import (
    MAX_JSON_BYTES,
    Manifest,
    ShardEntry,
    SplitEntry,
    canonical_json,
)
from mmgen.shard.places import find_place
from mmgen.shard.writer import PlannedShard, gather_splits
from mmgen.uploads import RemoteFolder

# Of how many shards a set has -> which of them a writer makes.
Part = Callable[[int], range]

Folder = LocalFolder | RemoteFolder

_SIDES_AT_ONCE = 16  # an object store takes its time for each, and does not mind many


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
    """A folder that this writer may fill.

    committed  the manifest of an earlier commit
    is_shared  others may make shards of the same set meanwhile
    """

    folder: Folder
    request: AnyRequest
    committed: Manifest | None
    is_shared: bool

    @cached_property
    def _listed(self) -> dict[str, ShardEntry]:
        splits = self.committed.splits.values() if self.committed else ()
        return {entry.name: entry for split in splits for entry in split.shards}

    def known(self, shard: PlannedShard) -> ShardEntry | None:
        """Return what an earlier writer vouches for of a shard, if any does."""
        return self._listed.get(shard.name) or left_entry(self.folder, shard)

    def leave(self, shard: PlannedShard, entry: ShardEntry) -> None:
        """Leave for others, if there may be any, what the manifest will say of a new shard.

        raises  ShardError if there is a manifest, and it says something else
        """
        if not self.is_shared:
            return
        if self.committed is None:
            leave_entry(self.folder, shard, entry)
        elif self._listed.get(shard.name) != entry:
            place, name = self.folder.place, shard.relative
            place.remove(name)
            raise ShardError(
                f"{place.where(name)}: comes out otherwise than the manifest says (other versions "
                "of libraries); make the whole set, not a part"
            )

    def merge(
        self,
        shards: Sequence[PlannedShard],
        describe: Callable[[dict[str, SplitEntry]], Manifest],
        *,
        masks: bool,
    ) -> Manifest | None:
        """Commit what the parts have left; None while some shards are still to come.

        Of several that finish at once each may do so: they write the same bytes.
        """
        entries = self._left_entries(shards)
        if entries is None:
            # Removed by one who has committed, or never written.
            if not self.folder.place.exists(schema.MANIFEST_NAME):
                return None
            self.remove_sides()
            return read_manifest_in(self.folder.place)
        made = zip(shards, entries, strict=True)
        return self.commit(describe(gather_splits(made)), masks=masks)

    def _left_entries(self, shards: Sequence[PlannedShard]) -> list[ShardEntry] | None:
        """Read what is left beside all shards, None if it is not beside each."""
        there = self._sides()
        if not there.issuperset(map(_side, shards)):
            return None
        with ThreadPoolExecutor(_SIDES_AT_ONCE) as pool:
            entries = list(pool.map(partial(left_entry, self.folder), shards))
        found = [entry for entry in entries if entry is not None]
        return found if len(found) == len(entries) else None

    def commit(self, manifest: Manifest, *, masks: bool = False) -> Manifest:
        """Describe a complete set by its card and commit it by its manifest; return what is there.

        An earlier manifest stays if it says the same: it still says who made the set.
        """
        if self.committed and replace(self.committed, version=manifest.version) == manifest:
            manifest = self.committed
        else:
            if self.folder.place.is_remote:  # nothing locks there: another may have come since
                self.folder.check(self.request)
            self.folder.write(CARD_NAME, data_card(manifest, masks=masks))
            self.folder.write(schema.MANIFEST_NAME, manifest.to_json())
        self.remove_sides()
        return manifest

    def remove_sides(self) -> None:
        """Remove what is left beside shards, which a manifest now says."""
        with ThreadPoolExecutor(_SIDES_AT_ONCE) as pool:
            list(pool.map(self.folder.place.remove, self._sides()))

    def _sides(self) -> set[str]:
        return {
            f"{split}/{name}"
            for split in schema.SPLITS
            for name in self.folder.names(split)
            if name.endswith(f".h5{SIDE_SUFFIX}")
        }


@contextmanager
def claimed(
    out: str | os.PathLike[str], request: AnyRequest, part: Sequence[PlannedShard] | None = None
) -> Iterator[Claim]:
    """Make a folder that of a request, or go on with it.

    out     its path, or its address
    part    the shards that this writer makes; others may then write others at the same time
    raises  InputError if it holds something else, or another writer is at work there
    """
    place = find_place(out)
    folder = RemoteFolder(place) if place.is_remote else LocalFolder(place)
    with folder.held(request, part):
        committed = read_manifest_in(place) if place.exists(schema.MANIFEST_NAME) else None
        claim = Claim(folder, request, committed, place.is_remote or part is not None)
        if committed:
            claim.remove_sides()
        yield claim


def leave_entry(folder: Folder, shard: PlannedShard, entry: ShardEntry) -> None:
    """Write beside a shard what the manifest will say of it."""
    folder.write(_side(shard), canonical_json(asdict(entry)))


def left_entry(folder: Folder, shard: PlannedShard) -> ShardEntry | None:
    """Read what was left beside a shard; None if it is not there, or not of the shard there."""
    try:
        entry = ShardEntry(**json.loads(folder.place.read_text(_side(shard), MAX_JSON_BYTES)))
    except (InputError, OSError, ValueError, TypeError, RecursionError):
        return None
    there = shard.name, shard.first, shard.count, folder.place.size(shard.relative)
    is_of_it = (entry.name, entry.first, entry.count, entry.bytes) == there
    return entry if is_of_it and isinstance(entry.sha256, str) else None


def _side(shard: PlannedShard) -> str:
    return shard.relative + SIDE_SUFFIX
