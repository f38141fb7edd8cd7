"""Config -> shards on disk: workers, resume, commit.

A shard is a pure function of the request and its number, so a run is: write the request, make the
shards that are missing, write the manifest. Killed anywhere, the same call finishes it. Threads of
this process make the shards, or the workers of a cluster, or writers that know nothing of each
other but the folder.
"""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import mmgen
from mmgen.cluster import call_on_cluster, check_that_it_answers
from mmgen.config import GeneratorConfig
from mmgen.errors import InputError, MmgenError
from mmgen.folder import foreign_entries, is_ours, locked
from mmgen.generate import TRUTH, block_length, check_config, render
from mmgen.glyphs import GlyphSet, is_path, load_glyphs
from mmgen.parts import Claim, Folder, claimed, leave_entry, left_entry
from mmgen.request import Request, first_difference, make_request
from mmgen.shard import schema
from mmgen.shard.codecs import DEFAULT, find_codec
from mmgen.shard.manifest import Manifest, ShardEntry, SplitEntry, canonical_json, read_json_file
from mmgen.shard.places import find_place
from mmgen.shard.writer import PlannedShard, ShardWriter, gather_splits, plan_shards

# Told of the sequences and of the bytes that a finished piece of work adds.
Progress = Callable[[int, int], None]

# A folder of this machine, or an address such as s3://bucket/folder.
Address = str | os.PathLike[str]

# What a worker of a cluster is sent: a shard, and what an earlier writer vouches for.
_Job = tuple[PlannedShard, ShardEntry | None]

AUTO = "auto"
_SEEN_WITHIN_S = 60
_LOOK_EVERY_S = 0.5
_NUM_SAMPLES = 64
_WORTH_PACKING = 1.5  # times smaller


def generate_dataset(
    out: Address,
    config: GeneratorConfig,
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    shard_size: int | None = None,
    workers: int | None = None,
    masks: bool = False,
    codec: str = DEFAULT,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> Manifest:
    """Render sequences into shards, or finish a folder that an equal call began.

    counts, seed, shard_size, workers, masks, codec  as `prepare` takes them
    overwrite   replace a data set of another request; it stays until the new one is complete
    progress    called with the sequences and the bytes that a finished piece of work adds
    raises      InputError for bad arguments or a folder that holds something else; ShardError for
                shards under our names that are not of this request
    """
    run = prepare(
        config,
        counts,
        seed=seed,
        shard_size=shard_size,
        workers=workers,
        masks=masks,
        codec=codec,
    )
    return run.replace(out, progress) if overwrite else run.finish(out, progress)


def prepare(
    config: GeneratorConfig,
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    shard_size: int | None = None,
    workers: int | None = None,
    masks: bool = False,
    codec: str = DEFAULT,
    cluster: str | None = None,
) -> "Run":
    """Check what is asked for; InputError names what cannot be.

    counts      split -> sequences; splits of 0 get no folder
    shard_size  sequences a shard, default 8192 or 512 MiB of raw frames
    workers     threads, default one a core
    masks       whether to store which digit is seen at each pixel
    codec       how frames are packed; `auto` looks at some of them
    cluster     address of a Dask scheduler whose workers make the shards, in place of threads here
    """
    glyphs = load_glyphs(config.glyphs)
    check_config(config, glyphs)
    request = make_request(
        config,
        counts,
        glyphs,
        seed=seed,
        shard_size=shard_size,
        masks=masks,
        codec=DEFAULT if codec == AUTO else codec,
    )
    if codec == AUTO:
        request = replace(request, codec=_choose_codec(request, glyphs))
    if cluster is not None:
        check_that_it_answers(cluster)
    return Run(request, glyphs, workers or len(os.sched_getaffinity(0)), cluster)


def _choose_codec(request: Request, glyphs: GlyphSet) -> str:
    """Return gzip unless it hardly shrinks the first sequences, noise for example."""
    config = request.config
    split = next(split for split, count in request.counts.items() if count)
    num_samples, block = min(_NUM_SAMPLES, request.counts[split]), block_length(config)
    pack = find_codec(DEFAULT).pack
    raw = packed = 0
    for first in range(0, num_samples, block):
        indices = range(first, min(first + block, num_samples))
        block_of = render(config, indices, split=split, seed=request.seed, glyphs=glyphs, truth=())
        raw += block_of.frames.nbytes
        packed += sum(len(pack(frames)) for frames in block_of.frames)
    return DEFAULT if raw >= _WORTH_PACKING * packed else "none"


@dataclass(frozen=True)
class Run:
    """What to make, and who makes it."""

    request: Request
    glyphs: GlyphSet
    workers: int
    cluster: str | None = None

    @property
    def shards(self) -> list[PlannedShard]:
        """All shards of the set, in their order: train, val, test."""
        return plan_shards(self.request.counts, self.request.shard_size)

    def finish(self, out: Address, progress: Progress) -> Manifest:
        """Make what is missing, then commit."""
        with claimed(out, self.request) as claim:
            made = self._make(claim, self.shards, progress)
            splits = gather_splits((shard, made[shard]) for shard in self.shards)
            return claim.commit(self._describe(splits), masks=self.request.masks)

    def finish_part(self, out: Address, part: range, progress: Progress) -> Manifest | None:
        """Make what is missing of some shards, beside other writers.

        returns  the manifest if all shards of the set are there now, None if others are to come
        """
        shards = self.shards[part.start : part.stop]
        with claimed(out, self.request, shards) as claim:
            self._make(claim, shards, progress)
            return claim.merge(self.shards, self._describe, masks=self.request.masks)

    def replace(self, out: Address, progress: Progress) -> Manifest:
        """Build beside the old data set, then swap by renaming: no moment leaves half a set."""
        place = find_place(out)
        if place.is_remote:
            raise InputError(
                f"{place.name}: cannot be overwritten, for nothing can be renamed there and half a "
                "set would be left behind; name another folder, or delete it first"
            )
        out = Path(os.path.realpath(place.root))  # `.` and links cannot be renamed
        beside = out.with_name(f"{out.name}.new{schema.PARTIAL_SUFFIX}")
        old = out.with_name(f"{out.name}.old{schema.PARTIAL_SUFFIX}")
        if old.is_dir() and not out.exists():  # killed between the two renames below
            os.replace(old, out)
        if not out.exists() or (out.is_dir() and not any(foreign_entries(out))):
            return self.finish(out, progress)
        if not is_ours(out):
            raise InputError(f"{out}: is no data set of ours and is not overwritten")
        with locked(out):
            if is_ours(beside) and first_difference(
                read_json_file(beside / schema.REQUEST_NAME), self.request
            ):
                with locked(beside):  # left by a run for another request that was killed
                    shutil.rmtree(beside)
            manifest = self.finish(beside, progress)
            shutil.rmtree(old, ignore_errors=True)
            os.replace(out, old)
            os.replace(beside, out)
            shutil.rmtree(old)
        return manifest

    def _make(
        self,
        claim: Claim,
        shards: Sequence[PlannedShard],
        progress: Progress,
    ) -> dict[PlannedShard, ShardEntry]:
        """Find or make shards, in any order."""
        make = self._make_in_threads if self.cluster is None else self._make_on_cluster
        return make(claim, shards, progress)

    def _make_in_threads(
        self,
        claim: Claim,
        shards: Sequence[PlannedShard],
        progress: Progress,
    ) -> dict[PlannedShard, ShardEntry]:
        """Use a pool of threads: rendering and compressing release the GIL."""
        stopped = threading.Event()

        def make(shard: PlannedShard) -> ShardEntry:
            known = claim.known(shard)
            entry = _find_or_make(
                claim.folder, shard, known, self.request, self.glyphs, progress, stopped
            )
            if entry != known:
                claim.leave(shard, entry)
            return entry

        with ThreadPoolExecutor(self.workers) as pool:
            try:
                with _uninterrupted():  # a thread whose start breaks off is waited for by nobody
                    waiting = {pool.submit(make, shard): shard for shard in shards}
                return {waiting[future]: future.result() for future in as_completed(waiting)}
            except BaseException:
                stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _make_on_cluster(
        self,
        claim: Claim,
        shards: Sequence[PlannedShard],
        progress: Progress,
    ) -> dict[PlannedShard, ShardEntry]:
        assert self.cluster is not None
        folder = claim.folder
        there = {name for split in schema.SPLITS for name in folder.names(split)}
        made: dict[PlannedShard, ShardEntry] = {}

        def tell(job: _Job) -> None:
            shard, known = job
            entry = made[shard] = _await_entry(folder, shard)
            is_old = entry.name in there and known in (None, entry)
            progress(shard.count, 0 if is_old else entry.bytes)

        make = partial(_make_on_worker, folder.for_workers(), _placeable(self.request))
        jobs = ((shard, claim.known(shard)) for shard in shards)
        call_on_cluster(self.cluster, make, jobs, tell)
        return made

    def _describe(self, splits: dict[str, SplitEntry]) -> Manifest:
        """Put together the manifest of a complete set."""
        pools = {split: list(self.glyphs.splits[split]) for split in schema.SPLITS}
        return Manifest(
            version=mmgen.__version__,
            config=self.request.config.model_dump(),
            seed=self.request.seed,
            glyphs={"name": self.glyphs.name, "sha256": self.glyphs.sha256} | pools,
            codec=self.request.codec,
            shard_size=self.request.shard_size,
            splits=splits,
        )


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for a moment."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _placeable(request: Request) -> Request:
    """Say where glyphs lie so that a process in another folder finds them."""
    config = request.config
    if not is_path(config.glyphs):
        return request
    glyphs = str(Path(config.glyphs).resolve())
    return replace(request, config=config.model_copy(update={"glyphs": glyphs}))


def _make_on_worker(folder: Folder, request: Request, job: _Job) -> None:
    """Find or make one shard in a worker of a cluster, and leave what is to be said of it."""
    if not folder.place.exists(schema.REQUEST_NAME):
        raise InputError(
            f"{folder.place.name}: is not there for the workers; they have to share this folder"
        )
    glyphs = load_glyphs(request.config.glyphs)
    if glyphs.sha256 != request.glyphs_sha256:
        raise InputError(f"{request.config.glyphs}: the workers have other glyphs of this name")
    shard, known = job
    entry = _find_or_make(folder, shard, known, request, glyphs, lambda *_: None, threading.Event())
    leave_entry(folder, shard, entry)


def _await_entry(folder: Folder, shard: PlannedShard) -> ShardEntry:
    """Read what a worker has left; network file systems show a new file late."""
    until = time.monotonic() + _SEEN_WITHIN_S
    while (entry := left_entry(folder, shard)) is None:
        if time.monotonic() > until:
            raise MmgenError(
                f"{folder.place.where(shard.relative)}: a worker has made it, but it is not "
                "here; workers have to share this folder"
            )
        time.sleep(_LOOK_EVERY_S)
    return entry


def _find_or_make(
    folder: Folder,
    shard: PlannedShard,
    known: ShardEntry | None,
    request: Request,
    glyphs: GlyphSet,
    progress: Progress,
    stopped: threading.Event,
) -> ShardEntry:
    """Check the shard that is there, or make it; `known` is what a writer vouched for."""
    attributes = schema.attributes(
        canonical_json(request.portable_config),
        request.seed,
        shard.split,
        request.glyphs_sha256,
        mmgen.__version__,
    )
    if found := folder.find(shard, attributes, known):
        progress(shard.count, 0)
        return found
    make = partial(_make, shard, attributes, request, glyphs, progress, stopped)
    entry = folder.add(shard, known, make)
    progress(0, entry.bytes)
    return entry


def _make(
    shard: PlannedShard,
    attributes: Mapping[str, Any],
    request: Request,
    glyphs: GlyphSet,
    progress: Progress,
    stopped: threading.Event,
    path: Path,
) -> ShardEntry:
    config = request.config
    shape = (config.frames.high, *config.frame_shape)
    annotations = [*schema.ANNOTATIONS, *([schema.MASK] if request.masks else [])]
    truth = [name for name in TRUTH if name in annotations]
    block = block_length(config)
    frames = np.empty((min(block, shard.count), *shape), np.uint8)
    last = shard.first + shard.count
    digits, codec = config.digits.high, request.codec
    with ShardWriter(path, shard.count, shape, digits, attributes, annotations, codec) as writer:
        for first in range(shard.first, last, block):
            if stopped.is_set():
                raise InterruptedError("another shard failed")
            indices = range(first, min(first + block, last))
            rendered = render(
                config,
                indices,
                split=shard.split,
                seed=request.seed,
                glyphs=glyphs,
                out=frames[: len(indices)],
                truth=truth,
            )
            writer.write(rendered.frames, vars(rendered))
            progress(len(indices), 0)
        return writer.commit()
