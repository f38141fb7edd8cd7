"""What is cut out of a batch, and its losses, against NumPy in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import DataConfig, load_config
from trainer.model import Decoded, VideoAutoencoder
from trainer.noise import draw_noise, step_generator
from trainer.step import decode, make_task, task_losses

SHAPE, VALUES = (2, 3), 6
FORMS = {
    "mse": ("loss=mse", "output=linear"),
    "mse of sigmoid": ("loss=mse", "output=sigmoid"),
    "ce": ("loss=ce", "output=sigmoid"),
}


def clips(batch, frames, shape=SHAPE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, frames, *shape), dtype=torch.uint8, generator=generator)


def exact(task):
    """Return the task in float64, as the outputs here are: torch's losses do not widen."""
    frames = (task.context.double(), task.reconstruction.double(), task.future.double())
    return replace(task, context=frames[0], reconstruction=frames[1], future=frames[2])


def test_context_future_and_the_last_of_the_context_are_cut_out():
    frames = clips(3, 9, (2, 2, 3))
    task = make_task(frames, None, DataConfig(context=4, reconstruct=3, predict=2))
    values = frames.numpy().reshape(3, 9, 12) / 255
    np.testing.assert_allclose(task.context, values[:, :4], rtol=1e-6)
    np.testing.assert_allclose(task.reconstruction, values[:, 1:4], rtol=1e-6)
    np.testing.assert_allclose(task.future, values[:, 4:6], rtol=1e-6)
    assert task.context.dtype == torch.float32
    assert task.lengths is task.has_reconstruction is task.has_future is None
    whole = make_task(frames, None, DataConfig(context=4, predict=2))
    assert torch.equal(whole.reconstruction, whole.context)


def test_of_short_sequences_only_frames_that_exist_are_asked_for():
    """Context 4 of which 3 are reconstructed, 2 predicted, in a set whose longest has 5 frames."""
    counts = torch.tensor([5, 4, 3, 2, 1], dtype=torch.int32)
    frames = clips(5, 5)
    task = make_task(frames, counts, DataConfig(context=4, reconstruct=3, predict=2))
    values = frames.numpy().reshape(5, 5, VALUES) / 255
    assert task.context.shape == (5, 4, VALUES)
    assert task.future.shape == (5, 2, VALUES)
    assert task.lengths.tolist() == [4, 4, 3, 2, 1]
    assert task.lengths.dtype == torch.int64
    yes, no = True, False
    assert task.has_reconstruction.tolist() == [
        [yes] * 3,
        [yes] * 3,
        [yes] * 3,
        [yes, yes, no],
        [yes, no, no],
    ]
    assert task.has_future.tolist() == [[yes, no], [no, no], [no, no], [no, no], [no, no]]
    for row, (first, last) in enumerate([(1, 4), (1, 4), (0, 3), (0, 2), (0, 1)]):
        there = task.reconstruction[row, : last - first]
        np.testing.assert_allclose(there, values[row, first:last], rtol=1e-6)
    np.testing.assert_allclose(task.future[0, 0], values[0, 4], rtol=1e-6)


def test_counts_of_whole_sequences_change_no_loss():
    frames, config = clips(3, 7), load_config(assignments=["hidden=4", "context=4", "predict=3"])
    torch.manual_seed(0)
    model = VideoAutoencoder(config.model, SHAPE)
    losses = []
    for counts in (None, torch.tensor([7, 7, 7], dtype=torch.int32)):
        task = make_task(frames, counts, config.data)
        losses.append(task_losses(decode(model, task, None, training=True), task, config))
    torch.testing.assert_close(losses[0], losses[1])


def numpy_loss(output, target, exists, form):
    """Return the sum over what exists, and how many values that are."""
    total = count = 0.0
    for row in range(len(output)):
        for t in range(output.shape[1]):
            if exists[row, t]:
                y, z = output[row, t], target[row, t]
                probability = 1 / (1 + np.exp(-y))
                if form == "ce":
                    total -= (z * np.log(probability) + (1 - z) * np.log(1 - probability)).sum()
                else:
                    total += ((y if form == "mse" else probability) - z).__pow__(2).sum()
                count += len(y)
    return total, count


@st.composite
def batches(draw):
    """Draw a config, uint8 frames, how many each sequence has, and what a model says."""
    context = draw(st.integers(1, 4))
    kept = draw(st.none() | st.integers(1, context))
    predict = draw(st.integers(1, 3))
    batch = draw(st.integers(1, 4))
    longest = draw(st.integers(1, context + predict + 2))
    counts = draw(st.lists(st.integers(1, longest), min_size=batch, max_size=batch))
    seed = draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    shapes = (batch, kept or context, VALUES), (batch, predict, VALUES)
    decoded = Decoded(*(torch.from_numpy(3 * rng.normal(size=shape)) for shape in shapes))
    data = DataConfig(context=context, reconstruct=kept, predict=predict)
    return data, clips(batch, longest, seed=seed), torch.tensor(counts, dtype=torch.int32), decoded


def config_of(data, form, reduction, weights=(0.5, 3.0)):
    fields = [f"{name}={value}" for name, value in data.model_dump().items() if value is not None]
    factors = [f"reconstruct_weight={weights[0]}", f"predict_weight={weights[1]}"]
    return load_config(assignments=[*fields, *FORMS[form], *factors, f"loss_reduction={reduction}"])


@given(batches(), st.sampled_from(list(FORMS)), st.sampled_from(["mean", "sum"]))
def test_losses_are_those_of_numpy(drawn, form, reduction):
    data, frames, counts, decoded = drawn
    config = config_of(data, form, reduction)
    found = task_losses(decoded, exact(make_task(frames, counts, data)), config)
    values = np.zeros((len(frames), data.context + data.predict, VALUES))
    there = frames.numpy().reshape(*frames.shape[:2], VALUES)[:, : values.shape[1]] / 255
    values[:, : there.shape[1]] = there
    targets, existing = (
        np.zeros(decoded.reconstruction.shape),
        np.zeros(decoded.reconstruction.shape[:2]),
    )
    for row, count in enumerate(counts.clamp(max=data.context).tolist()):
        kept = min(count, data.num_reconstructed)
        targets[row, :kept] = values[row, count - kept : count]
        existing[row, :kept] = 1
    exists = np.arange(data.context, values.shape[1]) < counts.numpy()[:, None]
    expected = []
    for output, target, mask in (
        (decoded.reconstruction, targets, existing),
        (decoded.prediction, values[:, data.context :], exists),
    ):
        total, count = numpy_loss(output.numpy(), target, mask, form)
        expected.append(total / max(count, 1) if reduction == "mean" else total)
    # Frames become float32 before they are float64 here.
    assert found.reconstruction_loss.item() == pytest.approx(expected[0], rel=1e-6)
    assert found.prediction_loss.item() == pytest.approx(expected[1], rel=1e-6)
    assert found.loss.item() == pytest.approx(0.5 * expected[0] + 3 * expected[1], rel=1e-6)


@given(batches(), st.sampled_from(list(FORMS)), st.sampled_from(["mean", "sum"]), st.booleans())
def test_parts_of_a_batch_add_up_to_the_whole(drawn, form, reduction, counted):
    data, frames, counts, decoded = drawn
    if not counted:
        frames, counts = clips(len(frames), data.context + data.predict), None
    config = config_of(data, form, reduction)
    task = exact(make_task(frames, counts, data))
    whole = task_losses(decoded, task, config)
    masks = task.has_reconstruction, task.has_future
    num_values = tuple(
        max(1.0, float(VALUES * mask.sum())) if counted else float(output.numel())
        for mask, output in zip(masks, decoded, strict=True)
    )
    parts = []
    for row in range(len(frames)):
        one = slice(row, row + 1)
        part = exact(make_task(frames[one], None if counts is None else counts[one], data))
        said = Decoded(*(output[one] for output in decoded))
        parts.append(torch.stack(task_losses(said, part, config, num_values)))
    torch.testing.assert_close(sum(parts), torch.stack(whole), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("decoders", "weight"), [("reconstruct", 0.5), ("predict", 3.0)])
def test_an_absent_decoder_has_no_loss(decoders, weight):
    config = load_config(
        assignments=[
            "hidden=4",
            "context=3",
            "predict=2",
            f"decoders={decoders}",
            "reconstruct_weight=0.5",
            "predict_weight=3",
        ]
    )
    torch.manual_seed(0)
    task = make_task(clips(2, 5), None, config.data)
    model = VideoAutoencoder(config.model, SHAPE)
    losses = task_losses(decode(model, task, None, training=True), task, config)
    there, absent = losses.reconstruction_loss, losses.prediction_loss
    if decoders == "predict":
        there, absent = absent, there
    assert absent is None
    assert losses.loss.item() == pytest.approx(weight * there.item())


def test_a_large_logit_has_a_finite_cross_entropy_and_gradient():
    config = config_of(DataConfig(context=1, predict=1), "ce", "sum", (1, 1))
    logits = torch.tensor([[[-200.0, 200, 0, 0, 0, 0]]], requires_grad=True)
    task = make_task(
        torch.tensor([[255, 0, 0, 0, 0, 0]] * 2, dtype=torch.uint8).reshape(1, 2, 2, 3),
        None,
        config.data,
    )
    losses = task_losses(Decoded(None, logits), task, config)
    assert losses.loss.item() == pytest.approx(400 + 4 * np.log(2))
    losses.loss.backward()
    np.testing.assert_allclose(logits.grad, [[[-1, 1, 0.5, 0.5, 0.5, 0.5]]])


@pytest.mark.parametrize("decoder_input", ["teacher", "scheduled"])
def test_decoders_read_the_truth_only_while_training(decoder_input):
    config = load_config(
        assignments=["hidden=4", "context=3", "predict=3", f"decoder_input={decoder_input}"]
    )
    torch.manual_seed(0)
    model = VideoAutoencoder(config.model, SHAPE)
    noise = draw_noise(
        config.model, config.data, 2, VALUES, 1.0, step_generator(0, 1, torch.device("cpu"))
    )
    noise = noise.map(
        lambda tensor: tensor if tensor.dtype == torch.bool else torch.ones_like(tensor)
    )
    task = make_task(clips(2, 6), None, config.data)
    own = model(task.context, 3)
    shown = model(task.context, 3, future=task.future, noise=noise)
    for training, expected in ((False, own), (True, shown)):
        for one, other in zip(decode(model, task, noise, training=training), expected, strict=True):
            torch.testing.assert_close(one, other)
    assert (own.prediction - shown.prediction).abs().max() > 1e-3
    assert (own.reconstruction - shown.reconstruction).abs().max() > 1e-3


def test_only_the_asked_for_frames_of_a_ragged_batch_are_decoded():
    config = load_config(assignments=["hidden=4", "context=4", "reconstruct=2", "predict=3"])
    torch.manual_seed(0)
    model = VideoAutoencoder(config.model, SHAPE)
    task = make_task(clips(2, 7), torch.tensor([7, 3]), config.data)
    decoded = decode(model, task, None, training=True)
    assert (decoded.reconstruction.shape, decoded.prediction.shape) == ((2, 2, 6), (2, 3, 6))
    alone = decode(
        model,
        make_task(clips(2, 7)[1:, :3], None, DataConfig(context=3, reconstruct=2, predict=3)),
        None,
        training=True,
    )
    torch.testing.assert_close(decoded.reconstruction[1:], alone.reconstruction)
    torch.testing.assert_close(decoded.prediction[1:], alone.prediction)
