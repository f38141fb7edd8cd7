"""A model of your own in a plain PyTorch loop: it saves itself, and goes on after a kill.

python plain_loop.py                      # sequences rendered as they are needed
python plain_loop.py --data sets/bounce   # a folder of `mmgen generate`, or s3://...
python plain_loop.py --steps 400          # goes on from plain_loop.pt
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import trainer


def make_model(context: int, predict: int, channels: int = 32) -> nn.Module:
    """Put your own here: (B, context, H, W) in, (B, predict, H, W) out, both in [0, 1]."""
    return nn.Sequential(
        nn.Conv2d(context, channels, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(channels, predict, 5, padding=2),
    )


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    stream: trainer.SequenceStream,
    steps: int,
    context: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Take optimizer steps; yield the MSE of each, and of repeating the last frame seen."""
    device = next(model.parameters()).device
    for batch in islice(stream, steps):
        frames = batch.to(device).frames.float() / 255  # (B, T, H, W); bytes until they are here
        seen, target = frames[:, :context], frames[:, context:]
        loss = F.mse_loss(model(seen), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.detach(), F.mse_loss(seen[:, -1:].expand_as(target), target)


def save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    stream: trainer.SequenceStream,
) -> None:
    """Write all that going on needs; of the data that is a few integers."""
    parts = {"model": model, "optimizer": optimizer, "stream": stream}
    partial = path.with_name(path.name + ".partial")
    torch.save({name: part.state_dict() for name, part in parts.items()}, partial)
    partial.replace(path)  # killed before this line, the older file is still whole


def load(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    stream: trainer.SequenceStream,
) -> None:
    """Go on from a saved file: the next batch is the one that would have come."""
    saved = torch.load(path, weights_only=True)
    for name, part in {"model": model, "optimizer": optimizer, "stream": stream}.items():
        part.load_state_dict(saved[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="live:srivastava", help="a DATA address")
    parser.add_argument("--steps", type=int, default=200, help="in all, those saved included")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--context", type=int, default=10, help="frames the model sees")
    parser.add_argument("--save", type=Path, default=Path("plain_loop.pt"))
    args = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    stream = trainer.SequenceStream(args.data, args.batch_size, pin_memory=device == "cuda")
    num_frames, height, width = stream.sequence_shape
    model = make_model(args.context, num_frames - args.context).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if args.save.exists():
        load(args.save, model, optimizer, stream)
        print(f"{args.save}: goes on after step {stream.step}")

    px = height * width
    for loss, copy in train(model, optimizer, stream, args.steps - stream.step, args.context):
        if stream.step % 20 == 0 or stream.step == args.steps:
            save(args.save, model, optimizer, stream)
            print(
                f"step {stream.step}/{args.steps}  squared error per frame {loss * px:.1f}"
                f"  (repeating the last frame: {copy * px:.1f})"
            )


if __name__ == "__main__":
    main()
