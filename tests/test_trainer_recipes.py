"""The functions of examples/: our data in other people's training loops."""

from itertools import islice

import numpy as np
import openstl_loaders
import plain_loop
import pytest
import torch
from trainer_data import make_data, stored

import trainer

CONTEXT = 4  # of 8 frames of 30 x 30
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("recipes") / "data")


def plain_parts(data):
    torch.manual_seed(0)
    model = plain_loop.make_model(CONTEXT, 8 - CONTEXT, channels=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    return model, optimizer, trainer.SequenceStream(data, batch_size=4, seed=0)


def test_a_plain_pytorch_loop_learns_and_resumes(data, tmp_path):
    def train(parts, steps):
        return [loss.item() for loss, _ in plain_loop.train(*parts, steps, CONTEXT)]

    parts = plain_parts(data)
    first = train(parts, 20)
    plain_loop.save(tmp_path / "saved.pt", *parts)
    tail = train(parts, 10)
    assert np.mean(tail) < 0.8 * np.mean(first[:2])

    parts = plain_parts(data)
    plain_loop.load(tmp_path / "saved.pt", *parts)
    assert train(parts, 10) == tail


def test_a_plain_pytorch_loop_compares_with_the_last_frame(data):
    (_, copy), *_ = plain_loop.train(*plain_parts(data), 1, CONTEXT)
    (batch,) = islice(trainer.SequenceStream(data, batch_size=4, seed=0), 1)
    frames = batch.frames.numpy() / 255
    error = np.square(frames[:, CONTEXT:] - frames[:, CONTEXT - 1 : CONTEXT]).mean()
    assert copy.item() == pytest.approx(error, rel=1e-5)


@pytest.mark.filterwarnings("ignore")  # Lightning's own, about everything one leaves out
def test_lightning_trains_on_a_stream_and_resumes(data, tmp_path):
    pytest.importorskip("lightning", reason="the extra `lightning` is not installed")
    import lightning_loop

    class Watched(lightning_loop.Predictor):
        def training_step(self, batch, number):
            seen.append(batch.index.tolist())
            return super().training_step(batch, number)

        def validation_step(self, item, number):
            looked.extend(item[1]["index"].tolist())
            super().validation_step(item, number)

    def fit(steps, resume=None):
        model, _, stream = plain_parts(data)
        return lightning_loop.fit(
            Watched(model, stream, CONTEXT),
            trainer.SequenceDataset(data, "val"),
            steps=steps,
            val_every=4,
            resume=resume,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )

    seen, looked = [], []
    fitter = fit(6)
    fitter.save_checkpoint(tmp_path / "saved.ckpt")
    assert looked == [0, 1, 2, 3, 4]
    assert fitter.callback_metrics["val"] > 0
    fit(9, tmp_path / "saved.ckpt")
    stream = trainer.SequenceStream(data, batch_size=4, seed=0)
    assert seen == [batch.index.tolist() for batch in islice(stream, 9)]


def test_openstl_gets_its_dataloaders(data):
    """What BaseExperiment and its data module read of `dataloaders=`, (train, val, test)."""
    train, val, test = openstl_loaders.make_loaders(data, 4, CONTEXT)
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


def test_openstl_gets_colour_as_channels():
    data = "live:srivastava?color=random&canvas=40"
    _, _, test = openstl_loaders.make_loaders(data, 2, num_sequences=dict.fromkeys(SPLITS, 2))
    ((context, target),) = test
    assert context.shape == target.shape == (2, 10, 3, 40, 40)
    frames, _ = trainer.SequenceDataset(data, "test", num_sequences=2)[1]
    assert torch.equal(target[1, 3], frames[13].movedim(-1, 0) / 255)
