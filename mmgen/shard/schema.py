"""Names, dtypes and shapes inside a shard: format version 1, as FORMAT.md says it in prose."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from h5py._objects import phil
from numpy.typing import DTypeLike

FORMAT = 1
SPLITS = ("train", "val", "test")
MANIFEST_NAME = "manifest.json"
REQUEST_NAME = "request.json"
PARTIAL_SUFFIX = ".partial"

MAX_SEQUENCE_BYTES = 1 << 30
MAX_SHARD_BYTES = 512 << 20  # raw frames in a shard, unless its size is asked for
MAX_SHARD_SEQUENCES = 8192
_MAX_CHUNK_BYTES = 1 << 20

# h5py's own lock, which it holds for every call but, before 3.16, those for whole chunks. Another
# lock would not do: h5py frees its objects whenever Python does, and that is a call of HDF5 too.
HDF5_LOCK = phil


@dataclass(frozen=True)
class Annotation:
    """A dataset beside `frames`: its dtype and what follows the sequence axis."""

    dtype: DTypeLike
    dimensions: tuple[str | int, ...]

    def shape(self, num_frames: int, num_digits: int) -> tuple[int, ...]:
        """Return the shape for one sequence."""
        sizes = {"T": num_frames, "K": num_digits}
        return tuple(sizes[d] if isinstance(d, str) else d for d in self.dimensions)


# In the order they are written: equal content is then equal bytes.
ANNOTATIONS: dict[str, Annotation] = {
    "num_frames": Annotation(np.int32, ()),
    "label": Annotation(np.int16, ("K",)),
    "glyph_index": Annotation(np.int32, ("K",)),
    "position": Annotation(np.float32, ("T", "K", 2)),
    "velocity": Annotation(np.float32, ("T", "K", 2)),
    "angle": Annotation(np.float32, ("T", "K")),
    "scale": Annotation(np.float32, ("T", "K")),
    "box": Annotation(np.int16, ("T", "K", 4)),
    "visible": Annotation(np.float32, ("T", "K")),
    "bounced": Annotation(np.bool_, ("T", "K")),
    "index": Annotation(np.int64, ()),
}
MASK = "mask"  # stored only where asked for: as large as the frames
CHECKSUM = "checksum"
MANDATORY = ("frames", "num_frames", "index", CHECKSUM)


def chunk_frames(sequence_shape: tuple[int, ...]) -> int:
    """Return the frames of a chunk: all of a sequence, or as many as fit into 1 MiB."""
    frame_bytes = math.prod(sequence_shape[1:])
    return max(1, min(sequence_shape[0], _MAX_CHUNK_BYTES // frame_bytes))


def default_shard_size(sequence_shape: tuple[int, ...]) -> int:
    """Return how many sequences a shard holds: 8192, or fewer that make 512 MiB raw."""
    sequence_bytes = math.prod(sequence_shape)
    return max(1, min(MAX_SHARD_SEQUENCES, MAX_SHARD_BYTES // sequence_bytes))


def plain(value: Any) -> Any:
    """Return a root attribute as it was before it became fixed-length text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def attributes(
    config_json: str, seed: int, split: str, glyphs_sha256: str, version: str
) -> dict[str, Any]:
    """Return the root attributes that let a lone shard explain itself.

    Text is UTF-8 bytes of fixed length: HDF5 checks those with the file's own checksums, and loops
    for ever on some damage to strings of variable length.
    """
    return {
        "format": FORMAT,
        "config": np.bytes_(config_json.encode()),
        "seed": seed,
        "split": np.bytes_(split.encode()),
        "glyphs_sha256": np.bytes_(glyphs_sha256.encode()),
        "version": np.bytes_(version.encode()),
    }
