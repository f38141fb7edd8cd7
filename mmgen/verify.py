"""Check a stored data set: file hashes, chunk checksums, and sequences rendered again."""

from collections.abc import Callable, Iterator
from dataclasses import fields

import numpy as np

from mmgen.config import GeneratorConfig, parse_config
from mmgen.errors import InputError, ShardError
from mmgen.generate import block_length, render
from mmgen.glyphs import load_glyphs
from mmgen.shard.reader import DataSet, Sequence, Split


def find_damage(dataset: DataSet, progress: Callable[[int], None]) -> Iterator[str]:
    """Read every byte; yield one line for each shard that is not what the manifest says."""
    for split in dataset.splits.values():
        for number, entry in enumerate(split.entries):
            try:
                shard = split.shard(number)
                frames = np.empty(shard.sequence_shape, np.uint8)
                for row in range(entry.count):
                    shard.read_frames(row, frames)
                    progress(1)
                shard.annotations()
            except ShardError as error:
                yield str(error)


def find_difference(
    dataset: DataSet, num_sequences: int | None, progress: Callable[[int], None]
) -> Iterator[str]:
    """Render sequences again from the manifest alone; yield a line for each that differs.

    num_sequences  how many of each split, spread evenly; None means all
    raises         InputError if the manifest has no config, or other glyphs than are here
    """
    manifest = dataset.manifest
    if manifest.config is None:
        raise InputError(f"{dataset.root}: was imported; there is no config to render it from")
    config = parse_config(manifest.config)
    glyphs = load_glyphs(config.glyphs)
    if glyphs.sha256 != manifest.glyphs.get("sha256"):
        raise InputError(
            f"{dataset.root}: was made from other glyphs (SHA-256 {manifest.glyphs.get('sha256')}, "
            f"here {glyphs.sha256})"
        )
    for split in dataset.splits.values():
        count = min(num_sequences or len(split), len(split))
        chosen = [place * len(split) // count for place in range(count)]
        block = block_length(config)
        for first in range(0, count, block):
            indices = chosen[first : first + block]
            yield from _compare(split, config, manifest.seed, indices)
            progress(len(indices))


def _compare(split: Split, config: GeneratorConfig, seed: int, indices: list[int]) -> Iterator[str]:
    block = render(config, indices, split=split.name, seed=seed)
    for place, index in enumerate(indices):
        try:
            stored = split[index]
        except ShardError as error:
            yield str(error)
            continue
        for field in fields(Sequence):
            again = np.asarray(getattr(block, field.name)[place])
            there = np.asarray(getattr(stored, field.name))
            if again.shape != there.shape or again.tobytes() != there.astype(again.dtype).tobytes():
                yield (
                    f"{split.root}: {split.name} sequence {index}: {field.name} differs from what "
                    "its config renders"
                )
                break
