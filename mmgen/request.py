"""What a data set was asked to be, and the claim of one writer on its folder.

`request.json` is written first and says what the folder is for: an equal request finishes it, any
other is refused. The writer at work holds a lock on that file.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from mmgen.config import GeneratorConfig
from mmgen.draws import check_seed
from mmgen.errors import InputError
from mmgen.glyphs import GlyphSet
from mmgen.shard import schema
from mmgen.shard.manifest import canonical_json, read_json_file

_MAX_SEQUENCES = 10**12
_MAX_SHARDS = 10**6
_MAX_SHARD_SIZE = 10**6  # a shard's annotations are held in memory until it is full


@dataclass(frozen=True)
class Request:
    """What was asked for: equal requests give equal bytes. `counts` is sequences by split."""

    config: GeneratorConfig
    seed: int
    counts: Mapping[str, int]
    shard_size: int
    glyphs_sha256: str

    def to_json(self) -> str:
        """Write the request in canonical form."""
        fields = {
            "format": schema.FORMAT,
            "config": self.config.model_dump(),
            "seed": self.seed,
            "counts": dict(self.counts),
            "shard_size": self.shard_size,
            "codec": schema.CODEC,
            "masks": False,
            "glyphs_sha256": self.glyphs_sha256,
        }
        return canonical_json(fields)


def make_request(
    config: GeneratorConfig,
    counts: Mapping[str, int],
    seed: int,
    shard_size: int | None,
    glyphs: GlyphSet,
) -> Request:
    """Check counts, seed and shard size; InputError names the first that is out of range."""
    shape = (config.frames.high, *config.canvas)
    size = schema.default_shard_size(shape) if shard_size is None else shard_size
    if not 1 <= size <= _MAX_SHARD_SIZE:
        raise InputError(f"shard size: {size} is out of range, allowed are 1..{_MAX_SHARD_SIZE}")
    check_seed(seed)
    if unknown := set(counts) - set(schema.SPLITS):
        raise InputError(f"splits {sorted(unknown)} do not exist")
    wanted = {split: counts.get(split, 0) for split in schema.SPLITS}
    for split, count in wanted.items():
        if not 0 <= count <= _MAX_SEQUENCES:
            raise InputError(f"{split}: {count} sequences; allowed are 0..{_MAX_SEQUENCES}")
    if sum(wanted.values()) > size * _MAX_SHARDS:
        raise InputError(f"that makes more than {_MAX_SHARDS} shards; enlarge the shard size")
    if not any(wanted.values()):
        raise InputError("no split has any sequence; ask for at least one")
    return Request(config, seed, wanted, size, glyphs.sha256)


def check_folder(out: Path, request: Request) -> None:
    """Leave alone whatever is not empty and not of this request."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder")
    existing = out / schema.REQUEST_NAME
    if existing.is_file():
        if difference := first_difference(read_json_file(existing), request):
            raise InputError(
                f"{out}: holds a data set of another request ({difference}); name another folder, "
                "or overwrite it"
            )
    elif out.is_dir() and any(foreign_entries(out)):
        raise InputError(f"{out}: holds something else; name an empty or a new folder")


def foreign_entries(out: Path) -> Iterator[Path]:
    """Yield what no writer of ours has left in a folder without a request."""
    # A run killed before its request had its name leaves the partial request and nothing else.
    return (
        path
        for path in out.iterdir()
        if not (path.name.startswith(schema.REQUEST_NAME) and path.suffix == schema.PARTIAL_SUFFIX)
    )


def first_difference(text: str, request: Request) -> str | None:
    """Say where a stored request is another one, None if it is this."""
    try:
        there = json.loads(text)
        wanted = json.loads(request.to_json())
        if there == wanted:
            return None
        for name in wanted:
            if there.get(name) == wanted[name]:
                continue
            if isinstance(wanted[name], dict) and isinstance(there.get(name), dict):
                for field, value in wanted[name].items():
                    if there[name].get(field) != value:
                        return f"{field} is {there[name].get(field)}, asked for is {value}"
            return f"{name} is {there.get(name)}, asked for is {wanted[name]}"
    except (ValueError, AttributeError, RecursionError):
        return f"{schema.REQUEST_NAME} does not parse"
    return "it has further entries"


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


def write_request(out: Path, request: Request) -> None:
    """Write the request where there is none; the file that others may have locked stays."""
    path = out / schema.REQUEST_NAME
    if path.exists():
        return
    mine = path.with_name(f"{path.name}.{uuid4().hex}{schema.PARTIAL_SUFFIX}")
    with mine.open("x", encoding="utf-8") as file:
        file.write(request.to_json())
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(mine, path)
    except (FileExistsError, FileNotFoundError):
        pass  # another writer was first, or cleared ours away: the check behind the lock decides
    except OSError:  # a file system without hard links
        mine.replace(path)
    mine.unlink(missing_ok=True)


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Hold the lock of a folder; a dead writer leaves none, the system lets go of it."""
    path = out / schema.REQUEST_NAME
    if not path.exists():  # deleted: nobody can be at work there
        yield
        return
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{out}: another writer is at work there; wait for it") from None
        if os.fstat(file.fileno()).st_ino != path.stat().st_ino:
            raise InputError(f"{out}: another writer has just replaced it; try again")
        yield
