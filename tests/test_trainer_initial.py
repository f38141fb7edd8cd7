"""First weights: the range of each scheme, and what a config adds to it."""

import math

import numpy as np
import pytest
import torch

from trainer.config import ModelConfig
from trainer.initial import set_brightness
from trainer.model import VideoAutoencoder

HIDDEN, SHAPE = 16, (6, 5)
GATES = {"lstm": 4, "peephole": 4, "gru": 3, "rnn": 1}
WITHIN = 1 / math.sqrt(HIDDEN)
CELLS = pytest.mark.parametrize("cell", GATES)


def first_weights(**fields):
    torch.manual_seed(0)
    model = VideoAutoencoder(ModelConfig(**{"hidden": HIDDEN} | fields), SHAPE)
    return {name: value.detach() for name, value in model.named_parameters()}


def assert_uniform(values, within):
    """Inside, near the ends, and with the spread of a uniform distribution (four errors)."""
    assert values.abs().max() <= within
    assert values.abs().max() > within * (1 - 8 / values.numel())
    spread = within / math.sqrt(3)
    assert values.mean().item() == pytest.approx(0, abs=4 * spread / math.sqrt(values.numel()))
    # The standard deviation of x^2 is within^2 * sqrt(4 / 45).
    error = 4 * math.sqrt(4 / 45 / values.numel())
    assert values.square().mean().item() / within**2 == pytest.approx(1 / 3, abs=error)


def is_bias(name):
    return ".bias_" in name or name.endswith("fc.bias")


@CELLS
def test_torch_is_uniform_within_the_root_of_hidden(cell):
    for name, value in first_weights(cell=cell).items():
        assert value.unique().numel() > value.numel() - 10, name
        assert_uniform(value, WITHIN)


@CELLS
def test_paper_is_small_with_biases_of_zero(cell):
    weights = first_weights(cell=cell, init="paper")
    assert any("peephole" in name for name in weights) == (cell == "peephole")
    for name, value in weights.items():
        if is_bias(name):
            assert not value.any(), name
        else:
            assert_uniform(value, 0.1 if "peephole" in name else 0.01)


@CELLS
def test_xavier_has_orthogonal_recurrent_weights_gate_by_gate(cell):
    for name, value in first_weights(cell=cell, init="xavier").items():
        if is_bias(name) or "peephole" in name:
            assert not value.any(), name
        elif "weight_hh" in name:
            for gate in value.reshape(GATES[cell], HIDDEN, HIDDEN):
                torch.testing.assert_close(gate @ gate.T, torch.eye(HIDDEN), rtol=0, atol=1e-5)
        else:
            num_gates = 1 if "fc" in name else GATES[cell]
            for gate in value.chunk(num_gates):
                assert_uniform(gate, math.sqrt(6 / sum(gate.shape)))


@pytest.mark.parametrize("cell", ["lstm", "peephole"])
@pytest.mark.parametrize("init", ["torch", "paper", "xavier"])
def test_forget_bias_is_the_whole_bias_of_the_forget_gates_and_of_no_other(cell, init):
    plain = first_weights(cell=cell, init=init)
    set_to_one = first_weights(cell=cell, init=init, forget_bias=1.25)
    forget = slice(HIDDEN, 2 * HIDDEN)  # torch's order: input, forget, new, output
    stacks = {name.rpartition(".bias_ih")[0] for name in plain if "bias_ih" in name}
    assert len(stacks) == 3
    for stack in stacks:
        for number in (0, 1):
            biases = (f"{stack}.bias_ih_l{number}", f"{stack}.bias_hh_l{number}")
            there = [set_to_one[name] for name in biases if name in set_to_one]
            assert len(there) == (1 if cell == "peephole" else 2)
            assert (sum(there)[forget] == 1.25).all()
    for name, value in plain.items():
        rest = torch.ones(len(value), dtype=torch.bool)
        if "bias_ih" in name or "bias_hh" in name:
            rest[forget] = False
        assert torch.equal(set_to_one[name][rest], value[rest]), name


@pytest.mark.parametrize(("output", "bias"), [("linear", 0.05), ("sigmoid", math.log(0.05 / 0.95))])
@pytest.mark.parametrize("decoders", ["reconstruct,predict", "predict"])
def test_every_frame_begins_as_bright_as_the_data(output, bias, decoders):
    config = ModelConfig(hidden=4, output=output, output_bias="mean", decoders=decoders)
    model = VideoAutoencoder(config, SHAPE)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    set_brightness(model, config, 0.05)
    read_outs = [name for name in before if name.endswith("fc.bias")]
    assert len(read_outs) == decoders.count(",") + 1
    for name, value in model.named_parameters():
        if name in read_outs:
            np.testing.assert_allclose(value.detach(), np.full(30, bias), rtol=1e-6)
        else:
            assert torch.equal(value, before[name]), name
    darkness = torch.full((1, 1, 30), bias)
    torch.testing.assert_close(model.emit(darkness), torch.full((1, 1, 30), 0.05))


def test_the_biases_of_init_stay_unless_the_mean_is_asked_for():
    config = ModelConfig(hidden=4, output="sigmoid")
    model = VideoAutoencoder(config, SHAPE)
    before = model.predict_decoder.fc.bias.detach().clone()
    set_brightness(model, config, 0.05)
    assert torch.equal(model.predict_decoder.fc.bias, before)


def test_first_weights_follow_torchs_seed():
    one, same = first_weights(), first_weights()
    assert all(torch.equal(one[name], same[name]) for name in one)
    torch.manual_seed(1)
    other = VideoAutoencoder(ModelConfig(hidden=HIDDEN), SHAPE)
    assert not torch.equal(other.encoder.lstm.weight_hh_l1, one["encoder.lstm.weight_hh_l1"])
