"""Config -> shards on disk: workers, resume, commit. The only file that knows of workers.

A shard is a pure function of the request and its number, so a run is: write the request, make the
shards that are missing, write the manifest. Killed anywhere, the same call finishes it.
"""

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

import mmgen
from mmgen.config import GeneratorConfig
from mmgen.draws import check_seed
from mmgen.errors import InputError, ShardError
from mmgen.generate import Block, block_length, render, travel_px
from mmgen.glyphs import GlyphSet, load_glyphs
from mmgen.shard import schema
from mmgen.shard.manifest import (
    Manifest,
    ShardEntry,
    SplitEntry,
    canonical_json,
    read_json_file,
    write_atomic,
)
from mmgen.shard.writer import ShardWriter, describe_shard, origin_problem

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


@dataclass(frozen=True)
class _Task:
    """One shard to make or to find."""

    split: str
    number: int
    first: int
    count: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:06d}.h5"


def generate_dataset(
    out: Path,
    config: GeneratorConfig,
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    shard_size: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Render sequences into shards, or finish a folder that an equal call began.

    counts      split -> sequences; splits of 0 get no folder
    shard_size  sequences a shard, default 8192 or 512 MiB of raw frames
    workers     threads, default one a core
    overwrite   replace a data set of another request; it stays until the new one is complete
    progress    called with the number of sequences a finished piece of work adds
    raises      InputError for bad arguments or a folder that holds something else; ShardError for
                shards under our names that are not of this request
    """
    glyphs = load_glyphs(config.glyphs)
    travel_px(config, glyphs)
    request = _request(config, counts, seed, shard_size, glyphs)
    out = Path(out)
    if overwrite:
        return _replace(out.resolve(), request, glyphs, workers, progress)
    _check_folder(out, request)
    return _finish(out, request, glyphs, workers, progress)


def _request(
    config: GeneratorConfig,
    counts: Mapping[str, int],
    seed: int,
    shard_size: int | None,
    glyphs: GlyphSet,
) -> Request:
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


def _check_folder(out: Path, request: Request) -> None:
    """Leave alone whatever is not empty and not of this request."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder")
    existing = out / schema.REQUEST_NAME
    if existing.is_file():
        if difference := _first_difference(read_json_file(existing), request):
            raise InputError(
                f"{out}: holds a data set of another request ({difference}); name another folder, "
                "or overwrite it"
            )
    elif out.is_dir() and any(_foreign_entries(out)):
        raise InputError(f"{out}: holds something else; name an empty or a new folder")


def _foreign_entries(out: Path) -> Iterator[Path]:
    # A run killed before its request had its name leaves the partial request and nothing else.
    return (
        path
        for path in out.iterdir()
        if not (path.name.startswith(schema.REQUEST_NAME) and path.suffix == schema.PARTIAL_SUFFIX)
    )


def _first_difference(text: str, request: Request) -> str | None:
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


def _replace(
    out: Path,
    request: Request,
    glyphs: GlyphSet,
    workers: int | None,
    progress: Callable[[int], None],
) -> Manifest:
    """Build beside the old data set, then swap by renaming: no moment leaves half a set.

    `out` is absolute, because `.` and links cannot be renamed.
    """
    beside = out.with_name(f"{out.name}.new{schema.PARTIAL_SUFFIX}")
    old = out.with_name(f"{out.name}.old{schema.PARTIAL_SUFFIX}")
    if old.is_dir() and not out.exists():  # killed between the two renames below
        os.replace(old, out)
    if not out.exists() or (out.is_dir() and not any(_foreign_entries(out))):
        return _finish(out, request, glyphs, workers, progress)
    if not _is_ours(out):
        raise InputError(f"{out}: is no data set of ours and is not overwritten")
    with _only_writer(out):
        if _is_ours(beside) and _first_difference(
            read_json_file(beside / schema.REQUEST_NAME), request
        ):
            with _only_writer(beside):  # left by a run for another request that was killed
                shutil.rmtree(beside)
        _check_folder(beside, request)
        manifest = _finish(beside, request, glyphs, workers, progress)
        shutil.rmtree(old, ignore_errors=True)
        os.replace(out, old)
        os.replace(beside, out)
        shutil.rmtree(old)
    return manifest


def _is_ours(out: Path) -> bool:
    """Tell our request or manifest from somebody else's file of that name."""
    for name in (schema.REQUEST_NAME, schema.MANIFEST_NAME):
        try:
            data = json.loads(read_json_file(out / name))
        except (InputError, ValueError, RecursionError):
            continue
        if isinstance(data, dict) and {"format", "codec", "seed", "shard_size"} <= data.keys():
            return True
    return False


def _finish(
    out: Path,
    request: Request,
    glyphs: GlyphSet,
    workers: int | None,
    progress: Callable[[int], None],
) -> Manifest:
    """Make what is missing, then commit by the manifest."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out}: lies behind a file; name a folder") from error
    _write_request(out, request)
    with _only_writer(out):
        _check_folder(out, request)  # again, now that nobody else can change it
        for folder in ("", "*/"):
            for leftover in out.glob(f"{folder}*{schema.PARTIAL_SUFFIX}"):
                leftover.unlink(missing_ok=True)
        job = _Job(out, request, glyphs, _known_shards(out), progress, threading.Event())
        entries = job.make_all(workers or _num_cores())
        manifest = Manifest(
            version=mmgen.__version__,
            config=request.config.model_dump(),
            seed=request.seed,
            glyphs={"name": glyphs.name, "sha256": glyphs.sha256}
            | {split: list(glyphs.splits[split]) for split in schema.SPLITS},
            codec=schema.CODEC,
            shard_size=request.shard_size,
            splits={
                split: SplitEntry(
                    request.counts[split],
                    tuple(entries[task] for task in _tasks(request) if task.split == split),
                )
                for split in schema.SPLITS
                if request.counts[split]
            },
        )
        write_atomic(out / schema.MANIFEST_NAME, manifest.to_json())
    return manifest


def _known_shards(out: Path) -> dict[str, ShardEntry]:
    """Return what an earlier commit vouches for: shard name -> entry."""
    path = out / schema.MANIFEST_NAME
    if not path.is_file():
        return {}
    manifest = Manifest.from_json(read_json_file(path), str(path))
    return {entry.name: entry for split in manifest.splits.values() for entry in split.shards}


def _write_request(out: Path, request: Request) -> None:
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
def _only_writer(out: Path) -> Iterator[None]:
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


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))


def _tasks(request: Request) -> list[_Task]:
    size = request.shard_size
    return [
        _Task(split, number, first, min(size, request.counts[split] - first))
        for split in schema.SPLITS
        for number, first in enumerate(range(0, request.counts[split], size))
    ]


@dataclass(frozen=True)
class _Job:
    """The shards of one request, made where they are missing.

    known  what an earlier commit vouches for: shard name -> entry
    """

    out: Path
    request: Request
    glyphs: GlyphSet
    known: Mapping[str, ShardEntry]
    progress: Callable[[int], None]
    stopped: threading.Event

    def make_all(self, workers: int) -> dict[_Task, ShardEntry]:
        """Make every shard in a pool of threads: rendering and compressing release the GIL."""
        tasks = _tasks(self.request)
        for split in {task.split for task in tasks}:
            (self.out / split).mkdir(exist_ok=True)
        entries: dict[_Task, ShardEntry] = {}
        with ThreadPoolExecutor(workers) as pool:
            try:
                waiting = {pool.submit(self.make, task): task for task in tasks}
                for done in as_completed(waiting):
                    entries[waiting[done]] = done.result()
            except BaseException:
                self.stopped.set()
                pool.shutdown(cancel_futures=True)
                raise
        return entries

    def make(self, task: _Task) -> ShardEntry:
        """Make one shard, or check the one that is there."""
        path = self.out / task.split / task.name
        attributes = schema.attributes(
            canonical_json(self.request.config.model_dump()),
            self.request.seed,
            task.split,
            self.request.glyphs_sha256,
            mmgen.__version__,
        )
        if path.exists():
            return self._check(path, task, attributes)
        config = self.request.config
        shape = (config.frames.high, *config.canvas)
        block = block_length(config)
        frames = np.empty((min(block, task.count), *shape), np.uint8)
        last = task.first + task.count
        with ShardWriter(path, task.count, shape, config.digits.high, attributes) as writer:
            for first in range(task.first, last, block):
                if self.stopped.is_set():
                    raise InterruptedError("another shard failed")
                indices = range(first, min(first + block, last))
                rendered = render(
                    config,
                    indices,
                    split=task.split,
                    seed=self.request.seed,
                    glyphs=self.glyphs,
                    out=frames[: len(indices)],
                )
                writer.write(rendered.frames, _annotations(rendered))
                self.progress(len(indices))
            return writer.commit()

    def _check(self, path: Path, task: _Task, attributes: Mapping[str, Any]) -> ShardEntry:
        found = describe_shard(path, task.first, task.count)
        if task.name not in self.known:
            problem = origin_problem(path, attributes, task.first, task.count)
        else:
            problem = None if self.known[task.name] == found else "is damaged"
        if problem:
            raise ShardError(f"{path}: {problem}; delete it, or overwrite the data set")
        self.progress(task.count)
        return found


def _annotations(block: Block) -> dict[str, Any]:
    return {name: value for name, value in vars(block).items() if name in schema.ANNOTATIONS}
