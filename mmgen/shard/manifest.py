"""The manifest: the JSON file, written last, that makes a folder of shards a data set.

It is untrusted input like any other file: every field is checked, and a shard's name can only name
a file in the folder of its split.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from mmgen.errors import InputError
from mmgen.shard import schema

_MAX_COUNT = 2**53
MAX_JSON_BYTES = 1 << 28
_LOCK_ATTEMPTS = 100
_LOCK_PAUSE_S = 0.05

V = TypeVar("V")


@dataclass(frozen=True)
class ShardEntry:
    """One shard: its file name, the sequences first..first+count-1 it holds, size and SHA-256."""

    name: str
    first: int
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SplitEntry:
    """The shards of one split, in the order of their sequences."""

    count: int
    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True)
class Manifest:
    """What a data set holds and what it was made from; `config` is None where it was imported."""

    version: str
    config: dict[str, Any] | None
    seed: int
    glyphs: dict[str, Any]
    codec: str
    shard_size: int
    splits: dict[str, SplitEntry]

    def to_json(self) -> str:
        """Write the manifest; `from_json` reads it back equal."""
        return canonical_json({"format": schema.FORMAT} | asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str) -> "Manifest":
        """Check and read a manifest; InputError names the file and the first bad entry."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: is no JSON ({error}); is this a data set?") from error
        fields = _Fields(data, where)
        if (number := fields.take("format", int)) != schema.FORMAT:
            raise InputError(
                f"{where}: has format {number}, this version reads {schema.FORMAT}; update mmgen"
            )
        splits = fields.take("splits", dict)
        if unknown := set(splits) - set(schema.SPLITS):
            raise InputError(f"{where}: splits {sorted(unknown)} do not exist")
        if not splits:
            raise InputError(f"{where}: lists no split; is this a data set?")
        if not (version := fields.take("version", str)).isprintable():
            raise InputError(f"{where}: version is no text that can be shown")
        return cls(
            version=version,
            config=fields.take("config", (dict, type(None))),
            seed=fields.count("seed", limit=2**63),
            glyphs=_read_glyphs(_Fields(fields.take("glyphs", dict), f"{where}: glyphs")),
            codec=fields.take("codec", str),
            shard_size=fields.count("shard_size"),
            splits={
                name: _read_split(name, _Fields(splits[name], f"{where}: splits.{name}"))
                for name in schema.SPLITS
                if name in splits
            },
        )


class _Fields:
    """Take checked values out of a JSON object, or say which one is missing or of another kind."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise InputError(f"{where}: is no JSON object")
        self.data = data
        self.where = where

    def take(self, name: str, kind: type[V] | tuple[type, ...]) -> V:
        value = self.data.get(name, _Fields)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{self.where}: {name} is missing or has the wrong type")
        return value  # type: ignore[return-value]

    def count(self, name: str, limit: int = _MAX_COUNT) -> int:
        value = self.take(name, int)
        if not 0 <= value < limit:
            raise InputError(f"{self.where}: {name} is {value}, allowed are 0..{limit - 1}")
        return value


def _read_glyphs(fields: _Fields) -> dict[str, Any]:
    """Check what is read later: the range of glyphs of each split, where it is known."""
    for split in set(schema.SPLITS) & set(fields.data):
        pool = fields.take(split, list)
        if len(pool) != 2 or not all(type(bound) is int for bound in pool):
            raise InputError(f"{fields.where}: {split} is {pool}, expected is [first, last]")
    return fields.data


def _read_split(split: str, fields: _Fields) -> SplitEntry:
    shards: list[ShardEntry] = []
    next_first = 0
    for number, entry in enumerate(fields.take("shards", list)):
        shard = _Fields(entry, f"{fields.where}.shards[{number}]")
        name = shard.take("name", str)
        if not re.fullmatch(rf"{split}-\d{{6,12}}\.h5", name):
            raise InputError(f"{shard.where}: {name!r} is no name of a shard of this split")
        first, count = shard.count("first"), shard.count("count")
        if first != next_first or count == 0:
            raise InputError(f"{shard.where}: holds {count} from {first}, expected {next_first}")
        next_first += count
        shards.append(
            ShardEntry(name, first, count, shard.count("bytes"), shard.take("sha256", str))
        )
    if next_first == 0:
        raise InputError(f"{fields.where}: has no sequences; such a split is left out")
    if (count := fields.count("count")) != next_first:
        raise InputError(f"{fields.where}: count is {count}, its shards hold {next_first}")
    return SplitEntry(count, tuple(shards))


def canonical_json(data: Any) -> str:
    """Write JSON so that equal data are equal text."""
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def read_json_file(path: Path) -> str:
    """Read a small text file; InputError if it is missing, unreadable or absurdly large."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for without end
            raise InputError(f"{path}: is no file")
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"{path}: is larger than {MAX_JSON_BYTES} bytes; not one of ours")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a small file under a partial name, then rename: its final name means complete."""
    with partial_of(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def partial_of(path: Path) -> Iterator[Path]:
    """Lend the partial file of `path`, empty; it gets its name at the end, and goes on an error.

    Writers of one file take turns: each of them leaves a whole one, the last one's stays.

    raises  InputError where another writer does not come to an end
    """
    partial = path.with_name(path.name + schema.PARTIAL_SUFFIX)
    with _held(partial, path) as file:
        try:
            file.truncate(0)  # what a killed writer has left
            yield partial
            os.fsync(file.fileno())
            replace_durably(partial, path)
        except BaseException:  # a full disk, an interrupt: nobody else will clear it away
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def _held(partial: Path, path: Path) -> Iterator[BinaryIO]:
    """Open a file and hold the lock on it, which ends with the process, however that ends."""
    for attempt in range(_LOCK_ATTEMPTS):
        if attempt:
            time.sleep(_LOCK_PAUSE_S)
        with partial.open("ab") as file:
            if _is_locked(file, partial):
                yield file
                return
    raise InputError(f"{path}: another process is writing it; wait for it, or name another")


def _is_locked(file: BinaryIO, path: Path) -> bool:
    """Lock an open file, and tell whether it still has its name and nobody else has the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return is_still(file, path)


def is_still(file: BinaryIO, path: Path) -> bool:
    """Tell whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def replace_durably(partial: Path, path: Path) -> None:
    """Rename onto the final name and make the rename itself survive a power cut."""
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
