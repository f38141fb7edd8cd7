"""Parts of a batch add up to it, whatever its sequences' lengths."""

from itertools import islice

import pytest
import torch
from trainer_data import assert_same, make_data, tiny_config

from trainer.gradients import add_gradients
from trainer.model import VideoAutoencoder
from trainer.noise import Noise, draw_noise, step_generator
from trainer.optimizer import Updater
from trainer.step import decode, make_task, task_losses
from trainer.stream import SequenceStream
from trainer.world import World

FORMS = (
    (),
    ("dropout=0.3", "decoder_input=scheduled", "input_dropout=0.2"),
    ("output=sigmoid", "loss=ce", "loss_reduction=sum", "reconstruct_weight=0.5"),
    ("decoders=predict", "cell=gru"),
    ("decoders=reconstruct", "reconstruct=2"),
)


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """Return, by whether lengths vary, a batch of 12 sequences; of 5..8 frames, or of 8."""
    folder = tmp_path_factory.mktemp("gradients")
    found = {}
    for is_varied, frames in ((True, "5..8"), (False, "8")):
        data = make_data(folder / str(is_varied), fields=("canvas=30", f"frames={frames}"))
        (found[is_varied],) = islice(SequenceStream(data, 12), 1)
    assert len(set(found[True].num_frames.tolist())) > 1
    return found


def gradients(config, batch, is_varied, world=None):
    torch.manual_seed(0)
    model = VideoAutoencoder(config.model, (30, 30)).double()
    noise = draw_noise(
        config.model, config.data, 12, 900, 0.5, step_generator(1, 1, torch.device("cpu"))
    )
    updater = Updater(model, config.optimizer, "fp32")
    losses = add_gradients(model, updater, batch, noise, config, World(), is_varied=is_varied)
    return model, noise, losses, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_varied", [False, True])
def test_parts_add_up_to_the_whole_batch(batches, form, is_varied, monkeypatch):
    monkeypatch.setattr("trainer.step.to_values", in_float64)
    batch, base = batches[is_varied], ("batch_size=12", *form)
    _, _, whole, expected = gradients(tiny_config(*base), batch, is_varied)
    _, _, parts, found = gradients(tiny_config(*base, "accumulate=4"), batch, is_varied)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


def in_float64(frames):
    return frames.flatten(2).double() / 255


@pytest.mark.parametrize("is_varied", [False, True])
def test_the_whole_batch_in_one_part_is_the_plain_loss(batches, is_varied, monkeypatch):
    monkeypatch.setattr("trainer.step.to_values", in_float64)
    batch, config = batches[is_varied], tiny_config("batch_size=12", "dropout=0.3")
    model, noise, losses, found = gradients(config, batch, is_varied)
    model.zero_grad()
    task = make_task(batch.frames, batch.num_frames, config.data)
    plain = task_losses(decode(model, task, noise, training=True), task, config)
    plain.loss.backward()
    assert losses["loss"].item() == pytest.approx(plain.loss.item(), rel=1e-12)
    expected = {name: p.grad for name, p in model.named_parameters()}
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


def test_a_loss_that_is_not_finite_is_skipped_even_if_its_gradients_are(batches):
    """Squares overflow before their slopes do."""
    config = tiny_config("batch_size=12", "decoder_input=unconditional")
    torch.manual_seed(0)
    model = VideoAutoencoder(config.model, (30, 30))
    with torch.no_grad():
        model.predict_decoder.fc.bias.fill_(1e18)
    task = make_task(batches[False].frames, None, config.data)
    plain = task_losses(decode(model, task, None, training=True), task, config)
    plain.loss.backward()
    assert plain.loss.isinf()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    model.zero_grad()
    updater = Updater(model, config.optimizer, "fp32")
    add_gradients(model, updater, batches[False], Noise(), config, World(), is_varied=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert updater.update(1e-3).isnan()
    assert updater.num_skipped == 1
    assert_same(dict(model.state_dict()), before)
