"""The same under Lightning (pip install "moving-mnist[lightning]"), with validation and resuming.

python lightning_loop.py                                # rendered as it is needed
python lightning_loop.py --data sets/bounce             # a folder of `mmgen generate`
python lightning_loop.py --resume lightning_loop.ckpt --steps 400
"""

import argparse
from pathlib import Path
from typing import Any

import lightning
import torch
from plain_loop import make_model
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

import trainer


class Predictor(lightning.LightningModule):
    """Any model, and the place in the data, which goes into Lightning's checkpoints."""

    def __init__(self, model: torch.nn.Module, stream: trainer.SequenceStream, context: int):
        super().__init__()
        self.model, self.stream, self.context = model, stream, context

    def squared_error(self, frames: Tensor) -> Tensor:
        """Sum over the pixels of a frame, take the mean over frames."""
        frames = frames.float() / 255
        target = frames[:, self.context :]
        px = target.shape[-2] * target.shape[-1]
        return px * F.mse_loss(self.model(frames[:, : self.context]), target)

    def training_step(self, batch: trainer.Batch, _: int) -> Tensor:
        loss = self.squared_error(batch.frames)
        self.log("train", loss, prog_bar=True, batch_size=len(batch.frames))
        return loss

    def validation_step(self, item: tuple[Tensor, dict[str, Tensor]], _: int) -> None:
        frames, _truth = item
        error = self.squared_error(frames)
        self.log("val", error, prog_bar=True, batch_size=len(frames))

    def on_validation_end(self) -> None:
        val = self.trainer.callback_metrics["val"]
        print(f"step {self.global_step}: squared error per frame of val {val:.1f}")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # What was consumed, not what was fetched: Lightning is a batch ahead.
        checkpoint["stream"] = self.stream.state_dict() | {"step": self.global_step}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.stream.load_state_dict(checkpoint["stream"])


def fit(
    module: Predictor,
    val: trainer.SequenceDataset,
    *,
    steps: int,
    val_every: int,
    resume: Path | None = None,
    num_workers: int = 0,
    **options: Any,
) -> lightning.Trainer:
    """Train to so many steps: one epoch of Lightning's that has no end, as the stream has none."""
    fitter = lightning.Trainer(
        max_steps=steps,
        val_check_interval=val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        **options,
    )
    batches = DataLoader(module.stream, batch_size=None, num_workers=num_workers)
    fitter.fit(module, batches, DataLoader(val, batch_size=16), ckpt_path=resume)
    return fitter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="live:srivastava", help="a DATA address")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--val-every", type=int, default=50, help="steps")
    parser.add_argument("--val-sequences", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--context", type=int, default=10, help="frames the model sees")
    parser.add_argument("--save", type=Path, default=Path("lightning_loop.ckpt"))
    parser.add_argument("--resume", type=Path, help="a file that --save wrote")
    args = parser.parse_args()

    stream = trainer.SequenceStream(args.data, args.batch_size)
    val = trainer.SequenceDataset(
        args.data, "val", num_sequences=args.val_sequences, annotations=False
    )
    model = make_model(args.context, stream.sequence_shape[0] - args.context)
    module = Predictor(model, stream, args.context)
    fitter = fit(module, val, steps=args.steps, val_every=args.val_every, resume=args.resume)
    fitter.save_checkpoint(args.save)
    print(f"{args.save}: {args.steps} steps")


if __name__ == "__main__":
    main()
