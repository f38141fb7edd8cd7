"""Check a stored data set: file hashes, chunk checksums, and sequences rendered again."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmgen.errors import ShardError
from mmgen.generate import TRUTH, Block, block_length, render
from mmgen.glyphs import is_path
from mmgen.request import find_origin
from mmgen.shard import schema
from mmgen.shard.checks import REMEDY, OtherHash
from mmgen.shard.manifest import Manifest
from mmgen.shard.reader import DataSet, Sequence, Shard, Split


def find_damage(dataset: DataSet, progress: Callable[[int], None]) -> Iterator[str]:
    """Read every byte; yield one line for each shard that is not what the manifest says."""
    stored: dict[str, frozenset[str]] = {}
    for split in dataset.splits.values():
        for number in range(len(split.entries)):
            try:
                shard = split.shard(number)
                _read_all(shard, progress)
                stored[shard.where] = shard.stored
                if contradicted := _contradicted(shard, dataset.manifest):
                    yield (
                        f"{shard.where}: was written with another {contradicted} than "
                        f"{schema.MANIFEST_NAME} says; get the manifest that belongs to it"
                    )
            except OtherHash as error:
                yield f"{error}{split.damage(error.entry)}"
            except ShardError as error:
                yield str(error)
    # A reader copes without some datasets, so that nothing but this misses one that was taken out.
    expected = set(schema.ANNOTATIONS) if dataset.manifest.config is not None else set()
    expected.update(*stored.values())
    for where, names in stored.items():
        if missing := ", ".join(sorted(expected - names)):
            yield f"{where}: {missing} missing, which other shards or the config have; {REMEDY}"


def _contradicted(shard: Shard, manifest: Manifest) -> str | None:
    """Name what a shard says of itself, and its manifest otherwise; None if they agree."""
    origin = shard.origin()
    try:
        config = json.loads(origin["config"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return "config"
    listed = manifest.config
    if config and listed and is_path(str(listed.get("glyphs"))):
        listed = listed | {"glyphs": config.get("glyphs")}  # a shard does not say where they lay
    if config != listed:
        return "config"
    if origin.get("glyphs_sha256") != manifest.glyphs.get("sha256", "unknown"):
        return "glyph set"
    return "codec" if shard.codec not in (None, manifest.codec) else None


def _read_all(shard: Shard, progress: Callable[[int], None]) -> None:
    frames = np.empty(shard.sequence_shape, np.uint8)
    for row in range(shard.entry.count):
        shard.read_frames(row, frames)
        if schema.MASK in shard.stored:
            shard.masks(row, row + 1)
        progress(1)
    shard.annotations()


def find_difference(
    dataset: DataSet,
    num_sequences: int | None,
    progress: Callable[[int], None],
    glyphs_at: str | None = None,
) -> Iterator[str]:
    """Render sequences again from the manifest alone; yield a line for each that differs.

    num_sequences  how many of each split, spread evenly; None means all
    glyphs_at      where its glyphs lie here, in place of what its config says
    raises         InputError if it was imported, or needs glyphs or versions that are not here
    """
    config, glyphs = find_origin(dataset.manifest, dataset.address, glyphs_at)
    render_again = partial(render, config, seed=dataset.manifest.seed, glyphs=glyphs)
    for split in dataset.splits.values():
        count = min(num_sequences or len(split), len(split))
        chosen = [place * len(split) // count for place in range(count)]
        block = block_length(config)
        for first in range(0, count, block):
            indices = chosen[first : first + block]
            yield from _compare(split, indices, render_again)
            progress(len(indices))


def _compare(split: Split, indices: list[int], render_again: Callable[..., Block]) -> Iterator[str]:
    stored: dict[int, Sequence] = {}
    for index in indices:
        try:
            stored[index] = split[index]
        except ShardError as error:
            yield str(error)
    if not stored:
        return
    truth = [name for name in TRUTH if any(vars(s)[name] is not None for s in stored.values())]
    block = render_again(list(stored), split=split.name, truth=truth)
    for place, (index, sequence) in enumerate(stored.items()):
        for name, there in vars(sequence).items():
            if there is None:  # not every set stores every annotation
                continue
            again = getattr(block, name)[place]
            if not _is_same(np.asarray(there), np.asarray(again)):
                yield (
                    f"{split.address}: {split.name} sequence {index}: {name} differs from what its "
                    "config renders"
                )
                break


def _is_same(there: NDArray[Any], again: NDArray[Any]) -> bool:
    """Compare bytes, so that NaN equals NaN and 0 is not -0."""
    return there.shape == again.shape and there.astype(again.dtype).tobytes() == again.tobytes()
