"""What a data set was asked to be, the claim of one writer on its folder, and the commit.

`request.json` is written first and says what the folder is for: an equal request finishes it, any
other is refused. The writer at work holds a lock on that file. The manifest is written last; it
says what draws a finished set again, if this machine and version can.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from mmgen.card import CARD_NAME, data_card, stored_config
from mmgen.config import GeneratorConfig, parse_config
from mmgen.draws import check_seed
from mmgen.errors import InputError
from mmgen.glyphs import GlyphSet, is_path, load_glyphs
from mmgen.shard import schema
from mmgen.shard.manifest import Manifest, canonical_json, read_json_file, write_atomic

_MAX_SEQUENCES = 10**12
_LOCK_ATTEMPTS = 10
_LOCK_PAUSE_S = 0.05
_MAX_SHARDS = 10**6
_MAX_SHARD_SIZE = 10**6  # a shard's annotations are held in memory until it is full


class AnyRequest(Protocol):
    """What a folder was made for: equal requests are equal JSON and give equal bytes."""

    def to_json(self) -> str:
        """Write the request in canonical form."""
        ...


@dataclass(frozen=True)
class Request:
    """What a generator was asked for; `counts` is sequences by split."""

    config: GeneratorConfig
    seed: int
    counts: Mapping[str, int]
    shard_size: int
    glyphs_sha256: str
    masks: bool = False

    @property
    def portable_config(self) -> dict[str, Any]:
        """Every field of the config; of glyphs at a path only their hash says which they are."""
        placeless = {"glyphs": "PATH"} if is_path(self.config.glyphs) else {}
        return self.config.model_dump() | placeless

    def to_json(self) -> str:
        """Write the request in canonical form, the same wherever the glyphs lie."""
        fields = {
            "format": schema.FORMAT,
            "config": self.portable_config,
            "seed": self.seed,
            "counts": dict(self.counts),
            "shard_size": self.shard_size,
            "codec": schema.CODEC,
            "masks": self.masks,
            "glyphs_sha256": self.glyphs_sha256,
        }
        return canonical_json(fields)


def make_request(
    config: GeneratorConfig,
    counts: Mapping[str, int],
    glyphs: GlyphSet,
    *,
    seed: int,
    shard_size: int | None,
    masks: bool = False,
) -> Request:
    """Check counts, seed and shard size; InputError names the first that is out of range."""
    size = find_shard_size(shard_size, (config.frames.high, *config.frame_shape))
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
    return Request(config, seed, wanted, size, glyphs.sha256, masks)


def find_shard_size(asked: int | None, sequence_shape: tuple[int, ...]) -> int:
    """Return how many sequences a shard holds; InputError if what was asked is out of range."""
    size = schema.default_shard_size(sequence_shape) if asked is None else asked
    if not 1 <= size <= _MAX_SHARD_SIZE:
        raise InputError(f"shard size: {size} is out of range, allowed are 1..{_MAX_SHARD_SIZE}")
    return size


def read_manifest(path: Path) -> Manifest:
    """Read a manifest by its name, or by the data set folder that holds it."""
    path = path / schema.MANIFEST_NAME if path.is_dir() else path
    return Manifest.from_json(read_json_file(path), str(path))


def find_origin(
    manifest: Manifest, where: str, glyphs_at: str | None = None
) -> tuple[GeneratorConfig, GlyphSet]:
    """Return the config and the glyphs that draw the sequences of a data set again.

    where      names the data set in errors
    glyphs_at  where the glyphs lie here, in place of what the config says
    raises     InputError that says what differs here: no config, fields or versions unknown to this
               version, other glyphs or another split of them
    """
    try:
        config = stored_config(manifest)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if glyphs_at is not None:
        config = parse_config(config.model_dump() | {"glyphs": glyphs_at})
    try:
        glyphs = load_glyphs(config.glyphs)
    except InputError as error:
        if glyphs_at is not None or not is_path(config.glyphs):
            raise
        raise InputError(
            f"{where}: its glyphs are not here ({error}); say with --glyphs where they lie"
        ) from error
    if glyphs.sha256 != manifest.glyphs.get("sha256"):
        raise InputError(
            f"{where}: was made from other glyphs (SHA-256 {manifest.glyphs.get('sha256')}, here "
            f"{glyphs.sha256}); say with --glyphs where those lie"
        )
    for split in manifest.splits:
        here = list(glyphs.splits[split])
        if (there := manifest.glyphs.get(split, here)) != here:
            raise InputError(
                f"{where}: {split} was made from the glyphs {there[0]}..{there[1] - 1}, here it "
                f"has {here[0]}..{here[1] - 1}; use the version that made it, {manifest.version}"
            )
    return config, glyphs


@contextmanager
def claimed(out: Path, request: AnyRequest) -> Iterator[Manifest | None]:
    """Make a folder that of a request, or go on with it, and keep other writers away meanwhile.

    yields  the manifest of an earlier commit, which vouches for its shards
    raises  InputError if it holds something else, or another writer is at work there
    """
    check_folder(out, request)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out}: lies behind a file; name a folder") from error
    _write_request(out, request)
    with only_writer(out):
        check_folder(out, request)  # again, now that nobody else can change it
        for folder in ("", "*/"):
            for leftover in out.glob(f"{folder}*{schema.PARTIAL_SUFFIX}"):
                leftover.unlink(missing_ok=True)
        has_manifest = (out / schema.MANIFEST_NAME).is_file()
        yield read_manifest(out) if has_manifest else None


def commit(
    out: Path, manifest: Manifest, committed: Manifest | None, *, masks: bool = False
) -> Manifest:
    """Describe a complete set by its card and commit it by its manifest; return what is there.

    committed  the manifest of an earlier commit: it stays if it says the same
    """
    if committed and replace(committed, version=manifest.version) == manifest:
        return committed  # nothing was made, so it still says who made it
    write_atomic(out / CARD_NAME, data_card(manifest, masks=masks))
    write_atomic(out / schema.MANIFEST_NAME, manifest.to_json())
    return manifest


def check_folder(out: Path, request: AnyRequest) -> None:
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


def first_difference(text: str, request: AnyRequest) -> str | None:
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


def _write_request(out: Path, request: AnyRequest) -> None:
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
        # Whoever only looks, to find that the folder is another's, lets go at once.
        for attempt in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == _LOCK_ATTEMPTS - 1:
                    problem = f"{out}: another writer is at work there; wait for it"
                    raise InputError(problem) from None
                time.sleep(_LOCK_PAUSE_S)
        if os.fstat(file.fileno()).st_ino != path.stat().st_ino:
            raise InputError(f"{out}: another writer has just replaced it; try again")
        yield
