"""The model in all its forms equals plain NumPy, torch's own modules and the 2020 tutorial."""

import numpy as np
import pytest
import torch
import trainer_oracle
from hypothesis import given, settings
from torch import nn
from trainer_data import tiny_config
from trainer_strategies import cases

from trainer.config import PRESETS, ModelConfig, load_config
from trainer.model import VideoAutoencoder, to_values
from trainer.noise import Noise
from trainer.step import decode, make_task, task_losses

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


def ask(model, batch):
    """Return what a model says to a batch, of each sequence only what is of use."""
    decoded = model(
        batch.context,
        batch.steps,
        num_reconstructed=batch.num_reconstructed,
        lengths=batch.lengths,
        future=batch.future,
        noise=batch.noise,
    )
    reconstruction = decoded.reconstruction
    if reconstruction is not None:
        assert reconstruction.shape == (
            len(batch.context),
            batch.num_reconstructed,
            batch.context.shape[2],
        )
        if batch.lengths is not None:
            reconstruction = [row[:n] for row, n in zip(reconstruction, batch.lengths, strict=True)]
    return reconstruction, decoded.prediction


def ask_oracle(model, batch, weights):
    def array(tensor):
        return None if tensor is None else tensor.numpy()

    noise = (batch.noise or Noise()).map(array)
    arrays = (array(batch.context), batch.steps, batch.num_reconstructed, noise)
    return trainer_oracle.run(
        weights, model.config.model_dump(), *arrays, array(batch.lengths), array(batch.future)
    )


def arrays_of(model):
    return {name: value.detach().numpy() for name, value in model.named_parameters()}


@settings(max_examples=200)
@given(cases())
def test_every_form_says_what_the_oracle_says(case):
    model, batch = case.build(), case.batch()
    theirs = ask_oracle(model, batch, arrays_of(model))
    for ours, expected in zip(ask(model, batch), theirs, strict=True):
        assert (ours is None) == (expected is None)
        for row, other in zip(() if ours is None else ours, expected or (), strict=True):
            np.testing.assert_allclose(row.detach(), other, rtol=1e-12, atol=1e-12)


@settings(max_examples=100)
@given(cases())
def test_every_form_has_the_oracles_gradient(case):
    """Along a random direction, to all digits: the oracle takes complex weights."""
    model, batch = case.build(), case.batch()
    rng = np.random.default_rng(case.seed)
    along = {name: rng.normal(size=value.shape) for name, value in arrays_of(model).items()}
    weights = {name: value + 1e-30j * along[name] for name, value in arrays_of(model).items()}
    loss, expected = torch.zeros((), dtype=torch.float64), 0.0
    for ours, theirs in zip(ask(model, batch), ask_oracle(model, batch, weights), strict=True):
        for row, other in zip(() if ours is None else ours, theirs or (), strict=True):
            factors = rng.normal(size=other.shape)
            loss = loss + (row * torch.from_numpy(factors)).sum()
            expected += (other.imag * factors).sum() * 1e30
    loss.backward()
    parts = [
        (value.grad.numpy() * along[name]).ravel()
        for name, value in model.named_parameters()
        if value.grad is not None
    ]
    terms = np.concatenate(parts)
    assert terms.sum() == pytest.approx(expected, abs=1e-12 * np.abs(terms).sum(), rel=0)


def names(part, kinds, layers=2):
    return [f"{part}.lstm.{kind}_l{number}" for number in range(layers) for kind in kinds]


def test_state_dict_has_the_tutorials_names():
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    expected = names("encoder", kinds)
    for decoder in ("reconstruct_decoder", "predict_decoder"):
        expected += [*names(decoder, kinds), f"{decoder}.fc.weight", f"{decoder}.fc.bias"]
    for cell in ("lstm", "gru", "rnn"):
        assert list(make_model(cell=cell).state_dict()) == expected


def test_a_peephole_cell_has_one_bias_a_gate_and_an_unconditional_decoder_reads_nothing():
    model = make_model(cell="peephole", decoders="predict", decoder_input="unconditional")
    kinds = ("weight_ih", "weight_hh", "bias_ih", "peephole")
    decoder = names("predict_decoder", kinds)[1:]  # no weight_ih_l0
    ends = ["predict_decoder.fc.weight", "predict_decoder.fc.bias"]
    assert list(model.state_dict()) == [*names("encoder", kinds), *decoder, *ends]


# A layer of the paper's has 4 * 2048 * (inputs + 2048) weights, 8192 biases and 6144 peepholes, a
# read-out 2048 * 4096 + 4096; shi-fc-lstm is the number that Shi et al. print.
PARAMETERS = {
    "tutorial": 268_541_952,
    "paper-1layer": 3 * (50_331_648 + 14_336) + 2 * 8_392_704,
    "paper-2layer": 3 * (50_331_648 + 33_554_432 + 2 * 14_336) + 2 * 8_392_704,
    "shi-fc-lstm": 142_667_776,
    "small": 3 * 4 * 512 * (4096 + 512 + 2 * 512 + 4) + 2 * (512 * 4096 + 4096),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_its_published_number_of_parameters(preset):
    with torch.device("meta"):
        model = VideoAutoencoder(load_config(preset).model, (64, 64))
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[preset]


def test_all_of_the_context_is_reconstructed_unless_said_otherwise():
    model = make_model()
    context = torch.rand(2, 5, 20)
    whole = model(context, 1).reconstruction
    assert whole.shape == (2, 5, 20)
    last = model(context, 1, num_reconstructed=2).reconstruction
    torch.testing.assert_close(last, whole[:, 3:])  # it decodes from the last frame on


@pytest.mark.parametrize("cell", ["lstm", "peephole", "gru", "rnn"])
def test_rounded_products_stay_close_and_leave_the_weights_alone(cell):
    model = make_model(hidden=16, cell=cell)
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


FORMS = [
    ((5, 4), {}),
    ((4, 3, 3), {"cell": "gru", "output": "sigmoid", "reverse": False}),
    ((5, 4), {"cell": "peephole", "decoder_input": "teacher", "output": "sigmoid"}),
    ((5, 4), {"decoder_input": "scheduled", "feedback": "detached", "copy_initial_state": True}),
    ((5, 4), {"cell": "rnn", "decoder_input": "unconditional"}),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "fields"), FORMS)
def test_generate_and_reconstruct_take_bytes_and_return_frames(shape, fields, training):
    """In every form a decoder in use reads its own output, and drops nothing."""
    model = make_model(shape, dropout=0.5, **fields).train(training)
    context = frames(2, 4, shape)
    future, past = model.generate(context, 6), model.reconstruct(context.numpy())
    assert (future.shape, past.shape) == ((2, 6, *shape), (2, 4, *shape))
    assert not future.requires_grad
    assert not past.requires_grad
    assert model.training is training
    decoded = model(context.flatten(2) / 255, 6)
    expected = decoded.prediction, decoded.reconstruction
    if fields.get("output") == "sigmoid":
        expected = [output.sigmoid() for output in expected]
    torch.testing.assert_close(future.flatten(2), expected[0])
    torch.testing.assert_close(past.flatten(2), expected[1])


def test_generate_refuses_what_are_no_frames_of_its_kind():
    model = make_model().train()
    for wrong in (torch.zeros(2, 4, *SHAPE), frames(2, 4, (4, 5)), frames(2, 4)[0]):
        with pytest.raises(ValueError, match=r"frames must be uint8 \(B, T, 5, 4\), are torch\."):
            model.generate(wrong, 2)
        assert model.training
    with pytest.raises(ValueError, match="steps is 0, allowed is 1 or more"):
        model.generate(frames(2, 4), 0)


def test_a_model_says_which_decoder_it_has_not():
    context = frames(2, 4)
    with pytest.raises(ValueError, match="the model has no prediction decoder: it only recon"):
        make_model(decoders="reconstruct").generate(context, 2)
    with pytest.raises(ValueError, match="the model has no reconstruction decoder: it only pred"):
        make_model(decoders="predict").reconstruct(context)


def test_bytes_become_values_of_0_to_1_with_time_first_in_memory():
    clips = frames(2, 3, (2, 2, 3))
    values = to_values(clips)
    np.testing.assert_allclose(values, clips.numpy().reshape(2, 3, 12) / 255, rtol=1e-6)
    assert values.dtype == torch.float32
    assert values.transpose(0, 1).is_contiguous()


@pytest.mark.parametrize("reverse", [True, False])
def test_time_runs_forward(reverse):
    """After learning eight clips by heart, both decoders answer in the order of the clips."""
    clips = frames(8, 7, (4, 4), seed=2)
    config = tiny_config(f"reverse={reverse}")
    model = make_model((4, 4), hidden=32, layers=1, reverse=reverse)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    task = make_task(clips, None, config.data)
    for _ in range(300):
        optimizer.zero_grad()
        task_losses(decode(model, task, None, training=True), task, config).loss.backward()
        optimizer.step()
    context, future = clips[:, :4], clips[:, 4:]
    outputs = model.reconstruct(context), model.generate(context, 3)
    for output, truth in zip(outputs, (context, future), strict=True):
        forward, backward = ((output - t / 255).square().mean() for t in (truth, truth.flip(1)))
        assert forward < 0.2 * backward
