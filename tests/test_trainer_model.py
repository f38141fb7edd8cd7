"""The model equals the 2020 tutorial's, written here with torch's own modules, one step a call."""

import numpy as np
import pytest
import torch
from torch import nn
from trainer_data import tiny_config

from trainer.config import ModelConfig, load_config
from trainer.loop import train_step
from trainer.model import VideoAutoencoder
from trainer.noise import StackNoise

SHAPE = (5, 4)


class TutorialDecoder(nn.Module):
    def __init__(self, values, hidden, layers):
        super().__init__()
        self.lstm = nn.LSTM(values, hidden, layers, batch_first=True)
        self.fc = nn.Linear(hidden, values)

    def forward(self, state, steps):
        frame = self.fc.bias.new_zeros(state[0].shape[1], 1, len(self.fc.bias))
        frames = []
        for _ in range(steps):
            outputs, state = self.lstm(frame, state)
            frame = self.fc(outputs)
            frames.append(frame)
        return torch.cat(frames, 1)


class Tutorial(nn.Module):
    """Returns the reconstruction from the last frame to the first, and the prediction."""

    def __init__(self, values, hidden, layers):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.lstm = nn.LSTM(values, hidden, layers, batch_first=True)
        self.reconstruct_decoder = TutorialDecoder(values, hidden, layers)
        self.predict_decoder = TutorialDecoder(values, hidden, layers)

    def forward(self, context, steps):
        _, state = self.encoder.lstm(context)
        backwards = self.reconstruct_decoder(state, context.shape[1])
        return backwards, self.predict_decoder(state, steps)


def make_model(shape=SHAPE, seed=0, **fields):
    torch.manual_seed(seed)
    config = ModelConfig(**{"hidden": 7, "layers": 2, "dropout": 0.0} | fields)
    return VideoAutoencoder(config, shape)


def frames(batch, length, shape=SHAPE, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, length, *shape), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_outputs_and_gradients_equal_the_tutorials(layers):
    model = make_model(layers=layers, dropout=0.4).double().eval()
    tutorial = Tutorial(20, 7, layers).double()
    tutorial.load_state_dict(model.state_dict())
    context = torch.rand(3, 4, 20, dtype=torch.float64)
    backwards, prediction = tutorial(context, 5)
    theirs = torch.cat([backwards.flip(1), prediction], 1)  # (3, 9, 20)
    ours = torch.cat(model(context, 5), 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    weight = torch.randn_like(ours)
    for outputs in (ours, theirs):
        (outputs.sin() * weight).sum().backward()
    expected = dict(tutorial.named_parameters())
    for name, parameter in model.named_parameters():
        scale = expected[name].grad.abs().max().item()
        assert scale > 0, name
        difference = (parameter.grad - expected[name].grad).abs().max().item()
        assert difference <= 1e-12 * scale, name


def test_state_dict_has_the_tutorials_names():
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    lstm = [f"lstm.{kind}_l{number}" for number in (0, 1) for kind in kinds]
    decoder = [*lstm, "fc.weight", "fc.bias"]
    parts = {"encoder": lstm, "reconstruct_decoder": decoder, "predict_decoder": decoder}
    expected = [f"{part}.{name}" for part, names in parts.items() for name in names]
    assert list(make_model().state_dict()) == expected


def test_preset_tutorial_has_the_tutorials_number_of_parameters():
    with torch.device("meta"):
        model = VideoAutoencoder(load_config("tutorial").model, (64, 64))
    assert sum(parameter.numel() for parameter in model.parameters()) == 268_541_952


def test_encoder_takes_one_lstm_step():
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    model = make_model(layers=1).double()
    w = {name: value.numpy() for name, value in model.encoder.state_dict().items()}
    x = np.random.default_rng(0).random((2, 20))
    gates = x @ w["lstm.weight_ih_l0"].T + w["lstm.bias_ih_l0"] + w["lstm.bias_hh_l0"]
    i, _, g, o = np.split(gates, 4, axis=1)  # the forget gate meets a cell of zero
    cell = sigmoid(i) * np.tanh(g)
    ((h, c),) = model.encoder(torch.from_numpy(x[None]), None, StackNoise())
    np.testing.assert_allclose(c.detach(), cell, rtol=1e-13)
    np.testing.assert_allclose(h.detach(), sigmoid(o) * np.tanh(cell), rtol=1e-13)


def test_rounded_products_stay_close_and_leave_the_weights_alone():
    model = make_model(hidden=16)
    context = torch.rand(3, 4, 20)
    exact = model(context, 5).prediction
    model.round_products(torch.bfloat16)
    rounded = model(context, 5).prediction
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max().item() < 0.02 * exact.abs().max().item()
    rounded.sum().backward()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    used = [*model.encoder.parameters(), *model.predict_decoder.parameters()]
    assert {p.grad.dtype for p in used} == {torch.float32}
    model.round_products(None)
    assert torch.equal(model(context, 5).prediction, exact)


@pytest.mark.parametrize(("shape", "training"), [((5, 4), True), ((4, 3, 3), False)])
def test_generate_and_reconstruct_take_bytes_and_return_frames(shape, training):
    model = make_model(shape, dropout=0.5).train(training)
    context = frames(2, 4, shape)
    future, past = model.generate(context, 6), model.reconstruct(context.numpy())
    assert (future.shape, past.shape) == ((2, 6, *shape), (2, 4, *shape))
    assert not future.requires_grad
    assert not past.requires_grad
    assert model.training is training
    decoded = model.eval()(context.flatten(2) / 255, 6)
    torch.testing.assert_close(future.flatten(2), decoded.prediction)
    torch.testing.assert_close(past.flatten(2), decoded.reconstruction)


def test_generate_refuses_what_are_no_frames_of_its_kind():
    model = make_model().train()
    for wrong in (torch.zeros(2, 4, *SHAPE), frames(2, 4, (4, 5)), frames(2, 4)[0]):
        with pytest.raises(ValueError, match=r"frames must be uint8 \(B, T, 5, 4\), are torch\."):
            model.generate(wrong, 2)
        assert model.training


def test_time_runs_forward():
    """After learning eight clips by heart, both decoders answer in the order of the clips."""
    clips = frames(8, 7, (4, 4), seed=2)
    model = make_model((4, 4), hidden=32, layers=1)
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(300):
        train_step(model, optimizer, clips, tiny_config(), rate=1e-2)
    context, future = clips[:, :4], clips[:, 4:]
    outputs = model.reconstruct(context), model.generate(context, 3)
    for output, truth in zip(outputs, (context, future), strict=True):
        forward, backward = ((output - t / 255).square().mean() for t in (truth, truth.flip(1)))
        assert forward < 0.2 * backward
