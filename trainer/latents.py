"""The latent: what a run's encoder hands to its decoders, beside what was true at that moment.

A latent is the state after the context, layer by layer: h, then c where the cell has one.

Letters: B sequences at a time, N of them in all, K digits a sequence, D values of a latent.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmgen.shard.manifest import partial_of
from trainer.address import Address, absolute
from trainer.cells import State
from trainer.checkpoint import open_run
from trainer.lengths import check_context, check_shape
from trainer.model import VideoAutoencoder, to_values
from trainer.result_files import check_parent
from trainer.source import Source, Truth, count_sequences, open_source
from trainer.stream import in_order
from trainer.world import one_line_when_out_of_memory

FORMAT = 1
_BATCH = 64
_OF_FRAMES = ("position", "velocity")  # what a truth has of every frame
_OF_SEQUENCES = ("label", "glyph_index", "index")


@one_line_when_out_of_memory()
def write_features(
    run: Path, data: Address, out: Path, split: str, num_sequences: int | None, device: str
) -> tuple[int, int]:
    """Write the latents of a run's newest checkpoint to an HDF5 file; return its N and D.

    latent       float32 (N, D): of each layer h (B, hidden), then c if its cell has one
    label        int16 (N, K), -1 where a sequence has fewer digits
    glyph_index  int32 (N, K), likewise
    position     float32 (N, K, 2), top-left (y, x) in px at the last frame of the context, NaN
                 where there is no digit
    velocity     float32 (N, K, 2), (vy, vx) in px per frame with which it leaves that frame
    index        int64 (N,), places in the split

    What the data set does not know of its sequences is not in the file. Root attributes: format
    (1), run, checkpoint, data, split and context, the frames that were read. All is gzip, for any
    HDF5 program. The name is the file's when all is written.
    """
    check_parent(out)
    name, _, config, model = open_run(run, device)
    source = open_source(data, split)
    count = count_sequences(source, num_sequences)
    num_context = config.data.context
    check_shape(source, model)
    check_context(source, num_context)
    attributes = {
        "format": FORMAT,
        "run": str(run.resolve()),
        "checkpoint": name,
        "data": absolute(data),
        "split": split,
        "context": num_context,
    }
    # Without a lock of its own: HDF5 would refuse a file that is locked, as this one is for us.
    with partial_of(out) as partial, h5py.File(partial, "w", locking=False) as file:
        file.attrs.update(attributes)
        size = _write_latents(file, model, source, num_context, count)
    return count, size


def _write_latents(
    file: h5py.File, model: VideoAutoencoder, source: Source, num_context: int, count: int
) -> int:
    first = size = 0
    for latent in encode(model, source, num_context, count):
        last, size = first + len(latent), latent.shape[1]
        known = truth_at(source, first, last, num_context - 1)
        for name, values in {"latent": latent.cpu().numpy(), **known}.items():
            if not first:
                _make_dataset(file, name, values, count)
            file[name][first:last] = values
        first = last
    return size


def _make_dataset(file: h5py.File, name: str, values: NDArray[Any], count: int) -> None:
    """Make a dataset whose chunks are batches: each is packed once."""
    shape = (count, *values.shape[1:])
    file.create_dataset(
        name, shape, values.dtype, chunks=values.shape, compression="gzip", shuffle=True
    )


@torch.no_grad()
def encode(
    model: VideoAutoencoder,
    source: Source,
    num_context: int,
    num_sequences: int,
    batch_size: int = _BATCH,
) -> Iterator[Tensor]:
    """Yield the latents of the first sequences, float32 (B, D) on the model's device."""
    device = next(model.parameters()).device
    for batch in in_order(source, num_sequences, batch_size):
        values = to_values(batch.frames[:, :num_context].to(device))
        yield flattened(model.encode(values))


def flattened(state: State) -> Tensor:
    """Lay the state of all layers side by side, (B, D): h of the first, its c, h of the second."""
    return torch.cat([part for layer in state for part in layer], 1)


def truth_at(source: Source, first: int, last: int, frame: int) -> Truth:
    """Return what is known of sequences [first, last) at a frame, by the names of FORMAT.md.

    returns  label, glyph_index (N, K), position, velocity (N, K, 2), index (N,), without those that
             the source does not have
    """
    gathered: dict[str, list[NDArray[Any]]] = defaultdict(list)
    for begin in range(first, last, _BATCH):  # the truth of all frames of all would not be small
        for known in source.truth(range(begin, min(begin + _BATCH, last))):
            for name in _OF_SEQUENCES:
                if name in known:
                    gathered[name].append(known[name])
            for name in _OF_FRAMES:
                if name in known:
                    gathered[name].append(known[name][frame])
    return {name: np.stack(values) for name, values in gathered.items()}
