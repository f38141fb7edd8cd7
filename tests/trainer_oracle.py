"""What the model computes, one sequence and one vector at a time, in NumPy.

Written from arXiv:1502.04681 and its code (cells, hand-over, order of the reconstruction, what a
decoder reads), and from the documentation of nn.LSTM, nn.GRU and nn.RNN; nothing is shared with
trainer but the names of weights, fields and noise.

Every function is analytic in the weights: weights w + 1e-30j v give outputs whose imaginary parts
are the derivative along v, times 1e-30, to all digits. What is read without gradient loses its
imaginary part.

Letters: B sequences, T frames, D values a frame, U units.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(from_input, from_state, state, peephole):
    """Take the step of nn.LSTM, or of the paper where gates look at the cell."""
    _, c = state
    to_input, to_forget, to_output = np.zeros((3, len(c))) if peephole is None else peephole
    i, f, g, o = np.split(from_input + from_state, 4)
    new_c = sigmoid(f + to_forget * c) * c + sigmoid(i + to_input * c) * np.tanh(g)
    new_h = sigmoid(o + to_output * new_c) * np.tanh(new_c)
    return new_h, new_c


def gru_step(from_input, from_state, state):
    (h,) = state
    r_x, z_x, n_x = np.split(from_input, 3)
    r_h, z_h, n_h = np.split(from_state, 3)
    z = sigmoid(z_x + z_h)
    return ((1 - z) * np.tanh(n_x + sigmoid(r_x + r_h) * n_h) + z * h,)


def step(cell, weights, x, state):
    """Take one step of one layer, which reads x, or nothing if None; return its new state."""
    from_input = weights["bias_ih"]
    if x is not None:
        from_input = from_input + weights["weight_ih"] @ x
    from_state = weights["weight_hh"] @ state[0] + weights.get("bias_hh", 0)
    if cell == "rnn":
        return (np.tanh(from_input + from_state),)
    if cell == "gru":
        return gru_step(from_input, from_state, state)
    return lstm_step(from_input, from_state, state, weights.get("peephole"))


class Sequence:
    """One sequence of a batch on its way through the stacks: its weights, form and noise.

    form   fields of ModelConfig, as a dict
    noise  has encoder, reconstruct, predict; each of which has arrays input (T, B, D), output
           (T, B, U), is_shown (T, B, 1) and a tuple of arrays, between; None where nothing is drawn
    """

    def __init__(self, weights, form, noise, place):
        self.weights, self.form, self.noise, self.place = weights, form, noise, place

    def layer(self, stack, number):
        first, last = f"{stack}.lstm.", f"_l{number}"
        return {
            name.removeprefix(first).removesuffix(last): weight
            for name, weight in self.weights.items()
            if name.startswith(first) and name.endswith(last)
        }

    def drawn(self, array, t):
        return 1 if array is None else array[t, self.place]

    def advance(self, stack, noise, x, states, t):
        """Take step t of all layers of a stack."""
        if x is not None:
            x = x * self.drawn(noise.input, t)
        new = []
        for number, state in enumerate(states):
            if number:
                x = new[-1][0] * self.drawn(noise.between[number - 1] if noise.between else None, t)
            new.append(step(self.form["cell"], self.layer(stack, number), x, state))
        return new

    def encode(self, frames):
        num_parts = 2 if self.form["cell"] in ("lstm", "peephole") else 1
        states = [(np.zeros(self.form["hidden"]),) * num_parts] * self.form["layers"]
        for t, frame in enumerate(frames):
            states = self.advance("encoder", self.noise.encoder, frame, states, t)
        return states

    def decode(self, kind, states, num_frames, truth):
        """Unroll frames; truth has them as they should be, in the same order, or is None."""
        stack, noise = f"{kind}_decoder", getattr(self.noise, kind)
        frames = []
        for t in range(num_frames):
            if t or not self.form["copy_initial_state"]:
                x = self.read(noise, frames, truth, t) if t else None
                states = self.advance(stack, noise, x, states, t)
            h = states[-1][0] * self.drawn(noise.output, t)
            frames.append(self.weights[f"{stack}.fc.weight"] @ h + self.weights[f"{stack}.fc.bias"])
        return frames

    def read(self, noise, frames, truth, t):
        """Return what a decoder reads before frame t > 0."""
        reads = self.form["decoder_input"]
        if reads == "unconditional":
            return None
        if truth is not None and reads != "free":
            shown = noise.is_shown
            if reads == "teacher" or (shown is not None and shown[t, self.place, 0]):
                return truth[t - 1]
        own, feedback = frames[-1], self.form["feedback"]
        if feedback == "linear":
            return own
        if feedback == "sigmoid":
            return sigmoid(own)
        return (sigmoid(own) if self.form["output"] == "sigmoid" else own).real


def run(weights, form, context, steps, num_reconstructed, noise, lengths=None, future=None):
    """Return what the decoders say, before any squashing, in the order of time.

    context (B, T, D), of which each sequence has `lengths`; future (B, steps, D) while training
    returns lists of B arrays, (frames reconstructed, D) and (steps, D); None of absent decoders
    """
    said = {"reconstruct": [], "predict": []}
    for place, whole in enumerate(context):
        sequence = Sequence(weights, form, noise, place)
        seen = whole if lengths is None else whole[: lengths[place]]
        states = sequence.encode(seen)
        if "reconstruct" in form["decoders"]:
            turn = -1 if form["reverse"] else 1
            truth = seen[-num_reconstructed:][::turn]
            known = None if future is None else truth
            frames = sequence.decode("reconstruct", states, len(truth), known)
            said["reconstruct"].append(np.stack(frames)[::turn])
        if "predict" in form["decoders"]:
            known = None if future is None else future[place]
            said["predict"].append(np.stack(sequence.decode("predict", states, steps, known)))
    return said["reconstruct"] or None, said["predict"] or None
