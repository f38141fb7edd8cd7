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

import numpy as np

import mmgen
from mmgen.config import GeneratorConfig
from mmgen.errors import InputError
from mmgen.generate import TRUTH, block_length, check_config, render
from mmgen.glyphs import GlyphSet, load_glyphs
from mmgen.request import (
    Request,
    claimed,
    commit,
    first_difference,
    foreign_entries,
    is_ours,
    make_request,
    only_writer,
)
from mmgen.shard import schema
from mmgen.shard.manifest import Manifest, ShardEntry, SplitEntry, canonical_json, read_json_file
from mmgen.shard.writer import (
    PlannedShard,
    ShardWriter,
    check_shard,
    gather_splits,
    known_shards,
    plan_shards,
)


def generate_dataset(
    out: Path,
    config: GeneratorConfig,
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    shard_size: int | None = None,
    workers: int | None = None,
    masks: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Render sequences into shards, or finish a folder that an equal call began.

    counts      split -> sequences; splits of 0 get no folder
    shard_size  sequences a shard, default 8192 or 512 MiB of raw frames
    workers     threads, default one a core
    masks       whether to store which digit is seen at each pixel
    overwrite   replace a data set of another request; it stays until the new one is complete
    progress    called with the number of sequences a finished piece of work adds
    raises      InputError for bad arguments or a folder that holds something else; ShardError for
                shards under our names that are not of this request
    """
    glyphs = load_glyphs(config.glyphs)
    check_config(config, glyphs)
    request = make_request(config, counts, glyphs, seed=seed, shard_size=shard_size, masks=masks)
    out = Path(out)
    if overwrite:
        return _replace(out.resolve(), request, glyphs, workers, progress)
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
    """Make what is missing, then commit."""
    with claimed(out, request) as committed:
        job = _Job(out, request, glyphs, known_shards(committed), progress, threading.Event())
        splits = job.make_all(workers or len(os.sched_getaffinity(0)))
        return commit(out, _describe(request, glyphs, splits), committed, masks=request.masks)


def _describe(request: Request, glyphs: GlyphSet, splits: dict[str, SplitEntry]) -> Manifest:
    """Put together the manifest of a complete set."""
    return Manifest(
        version=mmgen.__version__,
        config=request.config.model_dump(),
        seed=request.seed,
        glyphs={"name": glyphs.name, "sha256": glyphs.sha256}
        | {split: list(glyphs.splits[split]) for split in schema.SPLITS},
        codec=schema.CODEC,
        shard_size=request.shard_size,
        splits=splits,
    )


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

    def make_all(self, workers: int) -> dict[str, SplitEntry]:
        """Make every shard in a pool of threads: rendering and compressing release the GIL."""
        shards = plan_shards(self.request.counts, self.request.shard_size)
        made: dict[PlannedShard, ShardEntry] = {}
        with ThreadPoolExecutor(workers) as pool:
            try:
                waiting = {pool.submit(self.make, shard): shard for shard in shards}
                for done in as_completed(waiting):
                    made[waiting[done]] = done.result()
            except BaseException:
                self.stopped.set()
                pool.shutdown(cancel_futures=True)
                raise
        return gather_splits((shard, made[shard]) for shard in shards)

    def make(self, shard: PlannedShard) -> ShardEntry:
        """Make one shard, or check the one that is there."""
        path, config, seed = shard.path(self.out), self.request.config, self.request.seed
        attributes = schema.attributes(
            canonical_json(self.request.portable_config),
            seed,
            shard.split,
            self.request.glyphs_sha256,
            mmgen.__version__,
        )
        if path.exists():
            found = check_shard(path, shard, attributes, self.known)
            self.progress(shard.count)
            return found
        shape = (config.frames.high, *config.frame_shape)
        annotations = [*schema.ANNOTATIONS, *([schema.MASK] if self.request.masks else [])]
        truth = [name for name in TRUTH if name in annotations]
        block = block_length(config)
        frames = np.empty((min(block, shard.count), *shape), np.uint8)
        last = shard.first + shard.count
        digits = config.digits.high
        with ShardWriter(path, shard.count, shape, digits, attributes, annotations) as writer:
            for first in range(shard.first, last, block):
                if self.stopped.is_set():
                    raise InterruptedError("another shard failed")
                indices = range(first, min(first + block, last))
                rendered = render(
                    config,
                    indices,
                    split=shard.split,
                    seed=seed,
                    glyphs=self.glyphs,
                    out=frames[: len(indices)],
                    truth=truth,
                )
                writer.write(rendered.frames, vars(rendered))
                self.progress(len(indices))
            return writer.commit()
