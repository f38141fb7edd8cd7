"""Data sets of one shard, written as an import or a generator would write them."""

import numpy as np

from mmgen.shard import schema
from mmgen.shard.manifest import Manifest, SplitEntry
from mmgen.shard.writer import ShardWriter, describe_shard

SHARD = "train/train-000000.h5"
ATTRIBUTES = schema.attributes("null", 0, "train", "unknown", "1")


def store(root, frames, annotations, codec="gzip", block=2):
    """Write a split train and the manifest; return the folder."""
    arguments = root / SHARD, len(frames), frames.shape[1:], 1, ATTRIBUTES, list(annotations), codec
    (root / SHARD).parent.mkdir(parents=True)
    with ShardWriter(*arguments) as writer:
        for first in range(0, len(frames), block):
            part = slice(first, first + block)
            writer.write(frames[part], {k: v[part] for k, v in annotations.items()})
        writer.commit()
    return commit(root, len(frames))


def commit(root, count):
    """Write the manifest for the one shard that is there; return the folder."""
    splits = {"train": SplitEntry(count, (describe_shard(root / SHARD, 0, count),))}
    manifest = Manifest("1", None, 0, {"name": "unknown"}, "gzip", count, splits)
    (root / "manifest.json").write_text(manifest.to_json())
    return root


def frames_of(*shape):
    """Return the same noise in every run, and the annotations that no shard may lack."""
    noise = np.random.default_rng(shape).integers(0, 256, shape, np.uint8)
    lengths = np.full(len(noise), shape[1], np.int32)
    return noise, {"num_frames": lengths, "index": np.arange(len(noise))}


def files(root):
    """Return all that lies in a folder: name -> bytes."""
    paths = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}
