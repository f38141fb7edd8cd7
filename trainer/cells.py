"""Recurrent cells and the weights of a stack of them, under the names that nn.LSTM gives them.

lstm, gru and rnn are torch's own. peephole is the LSTM of Srivastava et al. (arXiv:1502.04681): the
gates also see the cell, each unit its own; the output gate sees the new one; one bias a gate.

Letters: B batch, U units of a layer, G gates of a cell, I values a layer reads.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

State = list[tuple[Tensor, ...]]  # of each layer: h, and where the cell has one c, each (B, U)

NUM_GATES = {"lstm": 4, "peephole": 4, "gru": 3, "rnn": 1}
NUM_STATES = {"lstm": 2, "peephole": 2, "gru": 1, "rnn": 1}


class Layer(NamedTuple):
    """One layer's weights; None where a layer has none.

    weight_ih (G*U, I), weight_hh (G*U, U); bias_ih, bias_hh (G*U,); peephole (3, U) of the gates
    input, forget, output. Gates are in torch's order: lstm input, forget, new, output; gru reset,
    update, new. A peephole cell keeps its only bias in bias_ih.
    """

    weight_ih: Tensor | None
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor | None
    peephole: Tensor | None


class Stack(nn.Module):
    """The weights of L layers, the first of which reads `num_inputs` values, or nothing if 0."""

    def __init__(self, cell: str, num_inputs: int, hidden: int, num_layers: int) -> None:
        super().__init__()
        self.cell, self.hidden, self.num_layers = cell, hidden, num_layers
        num_gates = NUM_GATES[cell]
        for number in range(num_layers):
            reads = num_inputs if number == 0 else hidden
            shapes: dict[str, tuple[int, ...]] = {
                "weight_ih": (num_gates * hidden, reads),
                "weight_hh": (num_gates * hidden, hidden),
                "bias_ih": (num_gates * hidden,),
                "bias_hh": (num_gates * hidden,),
                "peephole": (3, hidden),
            }
            if not reads:
                del shapes["weight_ih"]
            del shapes["bias_hh" if cell == "peephole" else "peephole"]
            for name, shape in shapes.items():
                self.register_parameter(f"{name}_l{number}", nn.Parameter(torch.empty(shape)))

    def layers(self) -> list[Layer]:
        """Return each layer's weights, the one that reads the input first."""
        return [
            Layer._make(getattr(self, f"{name}_l{number}", None) for name in Layer._fields)
            for number in range(self.num_layers)
        ]

    def zero_state(self, like: Tensor, batch: int) -> State:
        """Return the state before the first step, on the device and of the type of `like`."""
        zero = like.new_zeros(batch, self.hidden)
        return [(zero,) * NUM_STATES[self.cell]] * self.num_layers


def step(
    cell: str,
    from_input: Tensor,
    from_state: Tensor,
    state: tuple[Tensor, ...],
    peephole: Tensor | None,
) -> tuple[Tensor, ...]:
    """Take one step of a layer; return its new state.

    from_input, from_state  products of input and of h with their weights, biases added, (B, G*U)
    state                   h, and c of lstm and peephole, each (B, U)
    peephole                (3, U), read by the peephole cell alone
    """
    match cell:
        case "lstm":
            i, f, g, o = (from_input + from_state).chunk(4, -1)
            c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
            return o.sigmoid() * c.tanh(), c
        case "peephole":
            i, f, g, o = (from_input + from_state).chunk(4, -1)
            assert peephole is not None
            see_i, see_f, see_o = peephole
            old = state[1]
            c = (f + see_f * old).sigmoid() * old + (i + see_i * old).sigmoid() * g.tanh()
            return (o + see_o * c).sigmoid() * c.tanh(), c
        case "gru":
            (r, z, n), (r_h, z_h, n_h) = from_input.chunk(3, -1), from_state.chunk(3, -1)
            new = (n + (r + r_h).sigmoid() * n_h).tanh()
            keep = (z + z_h).sigmoid()
            return (keep * state[0] + (1 - keep) * new,)
        case "rnn":
            return ((from_input + from_state).tanh(),)
    raise AssertionError(cell)
