"""The recipes of the front page: our data in other people's training loops."""

from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from trainer_data import make_data, stored

import trainer

CONTEXT = 4  # of 8 frames of 30 x 30


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("recipes") / "data")


class Linear(nn.Module):
    """Predicts every future pixel from the same pixel of the context."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(CONTEXT, 8 - CONTEXT)

    def forward(self, context):  # (B, T, H, W)
        return self.map(context.movedim(1, -1)).movedim(-1, 1)


def test_a_plain_pytorch_loop_learns_and_resumes(data):
    def train(model, stream, steps):
        optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
        losses = []
        for batch in islice(stream, steps):
            frames = batch.to("cpu").frames.float() / 255
            loss = F.mse_loss(model(frames[:, :CONTEXT]), frames[:, CONTEXT:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    torch.manual_seed(0)
    model, stream = Linear(), trainer.SequenceStream(data, batch_size=4, seed=0)
    first = train(model, stream, 20)
    state = stream.state_dict()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tail = train(model, stream, 10)
    assert np.mean(tail) < 0.5 * np.mean(first[:5])

    model.load_state_dict(weights)
    resumed = trainer.SequenceStream(data, batch_size=4, seed=0)
    resumed.load_state_dict(state)
    assert train(model, resumed, 10) == tail


@pytest.mark.filterwarnings("ignore")  # Lightning's own, about everything one leaves out
def test_lightning_trains_on_a_stream(data, tmp_path):
    lightning = pytest.importorskip("lightning", reason="the extra `lightning` is not installed")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = Linear()
            self.seen, self.looked = [], []

        def loss(self, frames):
            frames = frames.float() / 255
            return F.mse_loss(self.model(frames[:, :CONTEXT]), frames[:, CONTEXT:])

        def training_step(self, batch, _):
            self.seen.append(batch.index.tolist())
            return self.loss(batch.frames)

        def validation_step(self, batch, _):
            frames, truth = batch
            self.looked += truth["index"].tolist()
            self.log("val_loss", self.loss(frames))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    stream = trainer.SequenceStream(data, batch_size=4, seed=1)
    val = DataLoader(trainer.SequenceDataset(data, "val"), batch_size=2)
    module = Module()
    fitter = lightning.Trainer(
        max_steps=6,
        limit_train_batches=6,  # an epoch of Lightning's: the stream has no end
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    fitter.fit(module, DataLoader(stream, batch_size=None), val)
    assert module.seen == [
        batch.index.tolist()
        for batch in islice(trainer.SequenceStream(data, batch_size=4, seed=1), 6)
    ]
    assert module.looked == [0, 1, 2, 3, 4]
    assert fitter.callback_metrics["val_loss"] > 0


class OpenSTLSequences(trainer.SequenceDataset):
    """A split as OpenSTL's experiments ask for it."""

    mean, std, data_name = 0, 1, "mnist"


def as_openstl(items):
    """Collate into (context, target), float32 (B, T, C, H, W) in [0, 1]."""
    frames = torch.stack([frames for frames, _ in items]).float()[:, :, None] / 255
    return frames[:, :CONTEXT], frames[:, CONTEXT:]


def test_openstl_gets_its_dataloaders(data):
    """What BaseExperiment and its data module read of `dataloaders=`, (train, val, test)."""
    dataloaders = tuple(
        DataLoader(
            OpenSTLSequences(data, split, annotations=False),
            batch_size=4,
            shuffle=split == "train",
            drop_last=split == "train",
            collate_fn=as_openstl,
        )
        for split in ("train", "val", "test")
    )
    train, val, test = dataloaders
    assert (len(train), len(val), len(test)) == (5, 2, 2)  # steps_per_epoch = len(train_loader)
    dataset = test.dataset
    assert (dataset.mean, dataset.std, dataset.data_name) == (0, 1, "mnist")
    for context, target in train:
        assert context.shape == target.shape == (4, CONTEXT, 1, 30, 30)
        assert (context.dtype, target.dtype) == (torch.float32, torch.float32)
    frames = torch.from_numpy(stored(data, "test"))[:, :, None] / 255
    context, target = (torch.cat(parts) for parts in zip(*test, strict=True))
    assert torch.equal(context, frames[:, :CONTEXT])
    assert torch.equal(target, frames[:, CONTEXT:])
