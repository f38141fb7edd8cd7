"""Config -> shards on disk: workers, resume, commit. The only file that knows of workers.

A shard is a pure function of the request and its number, so a run is: write the request, make the
shards that are missing, write the manifest. Killed anywhere, the same call finishes it.
"""

import os
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mmgen
from mmgen.config import GeneratorConfig
from mmgen.errors import InputError, ShardError
from mmgen.generate import Block, block_length, render, travel_px
from mmgen.glyphs import GlyphSet, load_glyphs
from mmgen.request import (
    Request,
    check_folder,
    first_difference,
    foreign_entries,
    is_ours,
    make_request,
    only_writer,
    write_request,
)
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
    request = make_request(config, counts, seed, shard_size, glyphs)
    out = Path(out)
    if overwrite:
        return _replace(out.resolve(), request, glyphs, workers, progress)
    check_folder(out, request)
    return _finish(out, request, glyphs, workers, progress)


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
    if not out.exists() or (out.is_dir() and not any(foreign_entries(out))):
        return _finish(out, request, glyphs, workers, progress)
    if not is_ours(out):
        raise InputError(f"{out}: is no data set of ours and is not overwritten")
    with only_writer(out):
        if is_ours(beside) and first_difference(
            read_json_file(beside / schema.REQUEST_NAME), request
        ):
            with only_writer(beside):  # left by a run for another request that was killed
                shutil.rmtree(beside)
        check_folder(beside, request)
        manifest = _finish(beside, request, glyphs, workers, progress)
        shutil.rmtree(old, ignore_errors=True)
        os.replace(out, old)
        os.replace(beside, out)
        shutil.rmtree(old)
    return manifest


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
    write_request(out, request)
    with only_writer(out):
        check_folder(out, request)  # again, now that nobody else can change it
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
