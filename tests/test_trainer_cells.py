"""One step of each cell against NumPy and by hand, stacks against torch's own modules."""

from math import exp, tanh

import numpy as np
import pytest
import torch
import trainer_oracle
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from trainer import cells
from trainer.config import ModelConfig
from trainer.model import Encoder
from trainer.noise import StackNoise

NUM_GATES = {"lstm": 4, "peephole": 4, "gru": 3, "rnn": 1}
TORCHS_OWN = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


@pytest.mark.parametrize("cell", NUM_GATES)
def test_one_step_equals_numpy(cell):
    rng = np.random.default_rng(0)
    gates, units = NUM_GATES[cell], 3
    weights = {
        "weight_ih": rng.normal(size=(gates * units, 5)),
        "weight_hh": rng.normal(size=(gates * units, units)),
        "bias_ih": rng.normal(size=gates * units),
        "bias_hh": rng.normal(size=gates * units),
        "peephole": rng.normal(size=(3, units)),
    }
    del weights["bias_hh" if cell == "peephole" else "peephole"]
    x = rng.normal(size=(4, 5))
    state = rng.normal(size=(2 if cell in ("lstm", "peephole") else 1, 4, units))
    expected = [
        trainer_oracle.step(cell, weights, row, tuple(parts))
        for row, *parts in zip(x, *state, strict=True)
    ]
    from_input = x @ weights["weight_ih"].T + weights["bias_ih"]
    from_state = state[0] @ weights["weight_hh"].T + weights.get("bias_hh", 0)
    peephole = weights.get("peephole")
    found = cells.step(
        cell,
        torch.from_numpy(from_input),
        torch.from_numpy(from_state),
        tuple(torch.from_numpy(part) for part in state),
        None if peephole is None else torch.from_numpy(peephole),
    )
    for part, theirs in zip(found, zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(part, np.stack(theirs), rtol=1e-13)


def test_a_peephole_step_by_hand():
    """Input and forget gate see the old cell, the output gate the new one."""

    def gate(x):
        return 1 / (1 + exp(-x))

    from_input, from_state = torch.tensor([[0.1, 0.2, 0.3, 0.4]]), torch.tensor([[1.0, 2, 3, 4]])
    see = torch.tensor([[-1.0], [2.0], [-3.0]])
    state = (torch.tensor([[9.0]]), torch.tensor([[0.5]]))
    c = gate(2.2 + 2 * 0.5) * 0.5 + gate(1.1 - 1 * 0.5) * tanh(3.3)
    h = gate(4.4 - 3 * c) * tanh(c)
    found = cells.step("peephole", from_input, from_state, state, see)
    assert [part.item() for part in found] == pytest.approx([h, c], rel=1e-6)


def make_encoder(cell, layers):
    torch.manual_seed(0)
    config = ModelConfig(cell=cell, hidden=4, layers=layers)
    encoder = Encoder(config, 6).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, 0, 0.7)
    return encoder


@pytest.mark.parametrize("lengths", [None, (5, 1, 3)])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", TORCHS_OWN)
def test_the_encoder_equals_torchs_module(cell, layers, lengths):
    ours = make_encoder(cell, layers)
    theirs = TORCHS_OWN[cell](6, 4, layers).double()
    theirs.load_state_dict(ours.lstm.state_dict())
    frames = torch.rand(5, 3, 6, dtype=torch.float64)
    state = ours(frames, None if lengths is None else torch.tensor(lengths), StackNoise())
    packed = pack_padded_sequence(frames, torch.tensor(lengths or [5] * 3), enforce_sorted=False)
    _, expected = theirs(packed)
    for part, other in enumerate(expected if cell == "lstm" else [expected]):
        found = torch.stack([layer[part] for layer in state])  # (layers, B, U)
        torch.testing.assert_close(found, other, rtol=1e-12, atol=1e-14)
        (found.sin().sum() - other.sin().sum()).backward(retain_graph=True)
    # Each weight has taken its gradient from both, with opposite signs.
    for (name, one), other in zip(ours.lstm.named_parameters(), theirs.parameters(), strict=True):
        scale = one.grad.abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(one.grad, -other.grad, rtol=1e-10, atol=1e-13 * scale)


@pytest.mark.parametrize("cell", NUM_GATES)
def test_a_stack_has_torchs_names_and_shapes(cell):
    gates = NUM_GATES[cell]
    rows = {"weight_ih": (gates * 4, 6), "weight_hh": (gates * 4, 4), "bias_ih": (gates * 4,)}
    rows |= {"peephole": (3, 4)} if cell == "peephole" else {"bias_hh": (gates * 4,)}
    first = {f"{name}_l0": shape for name, shape in rows.items()}
    second = {f"{name}_l1": shape for name, shape in (rows | {"weight_ih": (gates * 4, 4)}).items()}

    def shapes(stack):
        return {name: tuple(value.shape) for name, value in stack.state_dict().items()}

    assert shapes(cells.Stack(cell, 6, 4, 2)) == first | second
    del first["weight_ih_l0"]
    assert shapes(cells.Stack(cell, 0, 4, 2)) == first | second


@pytest.mark.parametrize(
    ("cell", "num_parts"), [("lstm", 2), ("peephole", 2), ("gru", 1), ("rnn", 1)]
)
def test_a_stack_starts_from_zero(cell, num_parts):
    stack = cells.Stack(cell, 6, 4, 3)
    state = stack.zero_state(torch.ones(1, dtype=torch.float64), 2)
    assert len(state) == 3
    for layer in state:
        assert len(layer) == num_parts
        assert all(torch.equal(part, torch.zeros(2, 4, dtype=torch.float64)) for part in layer)
