"""Somebody else's model on our data and scores: a small ConvLSTM, after Shi et al. 2015.

python convlstm.py                      # trains, saves, scores and draws: minutes on two cores
python convlstm.py --run runs/first     # with a run of `mmtrain fit` in the same figure
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import trainer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONTEXT, PREDICT = 10, 10  # frames seen, frames predicted
PATCH = 4  # a frame of 64 x 64 px is seen as a map of 16 x 16 patches, as in the paper


class ConvLSTM(nn.Module):
    """An LSTM whose state is a map, and whose every place looks only at its neighbours."""

    def __init__(self, channels: int, hidden: int, kernel: int = 5) -> None:
        super().__init__()
        self.gates = nn.Conv2d(channels + hidden, 4 * hidden, kernel, padding=kernel // 2)

    def forward(self, seen: Tensor, output: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        write, keep, show, new = self.gates(torch.cat([seen, output], 1)).chunk(4, 1)
        cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh()
        return show.sigmoid() * cell.tanh(), cell  # (B, hidden, h, w) each


class Forecaster(nn.Module):
    """One ConvLSTM reads the context; another goes on from its state, and sees nothing."""

    def __init__(self, hidden: int = 48) -> None:
        super().__init__()
        self.encoder = ConvLSTM(PATCH**2, hidden)
        self.decoder = ConvLSTM(0, hidden)
        self.read_out = nn.Conv2d(hidden, PATCH**2, 1)
        nn.init.constant_(self.read_out.bias, -3)  # sigmoid(-3) = 0.05: most of a frame is black

    def forward(self, context: Tensor, steps: int) -> Tensor:
        """Turn float (B, T, H, W) in [0, 1] into logits (B, steps, H, W)."""
        patches = F.pixel_unshuffle(context[:, :, None], PATCH)  # (B, T, PATCH^2, h, w)
        batch, _, _, height, width = patches.shape
        output = cell = patches.new_zeros(batch, self.read_out.in_channels, height, width)
        for seen in patches.unbind(1):
            output, cell = self.encoder(seen, output, cell)
        logits = []
        for _ in range(steps):
            output, cell = self.decoder(patches[:, 0, :0], output, cell)
            logits.append(self.read_out(output))
        return F.pixel_shuffle(torch.stack(logits, 1), PATCH)[:, :, 0].float()


def train(
    model: nn.Module, stream: trainer.SequenceStream, steps: int
) -> Iterator[tuple[int, float]]:
    """Train, and say after each step its number and its loss in nats per frame."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step, batch in enumerate(islice(stream, steps), 1):
        frames = batch.to(DEVICE).frames.float() / 255  # (B, T, H, W); bytes until they are here
        seen, target = frames.split([CONTEXT, PREDICT], 1)
        loss = F.binary_cross_entropy_with_logits(model(seen, PREDICT), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield step, loss.item() * target[0, 0].numel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="live:srivastava", help="live:PRESET?FIELD=VALUE")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--sequences", type=int, default=200, help="scored, at each speed too")
    parser.add_argument("--run", type=Path, nargs="+", default=[], help="runs of mmtrain")
    parser.add_argument("--out", type=Path, default=Path("convlstm"), help="folder for all results")
    args = parser.parse_args()

    model = Forecaster().to(DEVICE)
    stream = trainer.SequenceStream(args.data, batch_size=16)
    for step, nats in train(model, stream, args.steps):
        if step % 20 == 0 or step == args.steps:
            print(f"step {step}/{args.steps}  {nats:.1f} nats per frame")
    args.out.mkdir(exist_ok=True)
    torch.save(model.state_dict(), args.out / "convlstm.pt")

    def predict(context: Tensor, steps: int) -> Tensor:  # uint8 (B, T, H, W) -> (B, steps, H, W)
        return model(context.to(DEVICE).float() / 255, steps).sigmoid()

    scores = trainer.score(predict, args.data, num_sequences=args.sequences).as_json()
    for name, table in {"ConvLSTM": scores["prediction"], **scores["baselines"]}.items():
        print(f"{name:<18} MSE per frame {table['mse']:6.1f}, SSIM {table['ssim']:6.3f}")
    runs = {run.name: trainer.load_model(run).generate for run in args.run}
    asked = {"base": args.data, "num_sequences": args.sequences}
    trainer.difficulty({"ConvLSTM": predict, **runs}, {"speed": [1, 2, 4, 8]}, args.out, **asked)
    print(f"{args.out}: convlstm.pt, difficulty.csv, difficulty.json, difficulty.png")


if __name__ == "__main__":
    main()
