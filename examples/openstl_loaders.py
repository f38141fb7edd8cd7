"""Our sequences as the dataloaders of OpenSTL's experiments.

    python openstl_loaders.py                      # looks at them, rendered as they are needed
    python openstl_loaders.py --data sets/bounce   # a folder of `mmgen generate`

With OpenSTL:

    from openstl.api import BaseExperiment
    from openstl_loaders import make_loaders

    experiment = BaseExperiment(args, dataloaders=make_loaders("sets/bounce", args.batch_size))
"""

import argparse
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import trainer

Loader = DataLoader[tuple[Tensor, Tensor]]


class OpenSTLSequences(trainer.SequenceDataset):
    """A split with what OpenSTL asks a dataset for: frames are in [0, 1], not normalised."""

    mean, std, data_name = 0, 1, "mnist"


def make_loaders(
    data: str,
    batch_size: int,
    context: int = 10,
    num_sequences: Mapping[str, int] | None = None,
    num_workers: int = 0,
) -> tuple[Loader, Loader, Loader]:
    """Return loaders of train, val and test: (context, target), float32 (B, T, C, H, W) in [0, 1].

    num_sequences  of each split; live data, which have no end, need it
    """

    def load(split: str) -> Loader:
        is_train = split == "train"
        count = None if num_sequences is None else num_sequences[split]
        return DataLoader(
            OpenSTLSequences(data, split, num_sequences=count, annotations=False),
            batch_size=batch_size,
            shuffle=is_train,
            drop_last=is_train,
            num_workers=num_workers,
            collate_fn=partial(collate, context),
        )

    return load("train"), load("val"), load("test")


def collate(context: int, items: list[Any]) -> tuple[Tensor, Tensor]:
    """Stack items and cut them into what is seen and what is to be predicted."""
    frames = torch.stack([frames for frames, _ in items]).float() / 255
    if frames.ndim == 4:
        frames = frames[..., None]  # grey has one channel, which is last as in colour
    frames = frames.movedim(-1, 2)  # (B, T, C, H, W)
    return frames[:, :context], frames[:, context:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="live:srivastava", help="a DATA address")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--context", type=int, default=10)
    parser.add_argument("--train", type=int, default=10_000, help="sequences")
    parser.add_argument("--val", type=int, default=1_000)
    parser.add_argument("--test", type=int, default=1_000)
    args = parser.parse_args()

    counts = {"train": args.train, "val": args.val, "test": args.test}
    loaders = make_loaders(args.data, args.batch_size, args.context, counts)
    for (split, count), loader in zip(counts.items(), loaders, strict=True):
        context, target = next(iter(loader))
        print(f"{split}: {count} sequences, {len(loader)} batches", end=" ")
        print(f"{tuple(context.shape)} -> {tuple(target.shape)}, ink {target.mean():.3f}")
    start = time.perf_counter()
    num_read = sum(len(context) for context, _ in loaders[1])
    print(f"{num_read / (time.perf_counter() - start):.0f} sequences/s in this process")


if __name__ == "__main__":
    main()
