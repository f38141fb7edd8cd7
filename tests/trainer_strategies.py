"""Hypothesis strategies: every allowed form of the model, and small batches for it.

Combinations that the config refuses are never drawn, so that nothing is filtered.
"""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from trainer.config import DataConfig, ModelConfig
from trainer.model import VideoAutoencoder
from trainer.noise import Noise, draw_noise, step_generator

FRAME_SHAPES = ((2, 2), (1, 3), (1, 2, 3))


@dataclass(frozen=True)
class Batch:
    """What a model is given; B sequences, T frames, D values a frame.

    context (B, T, D)    future (B, steps, D), None where nobody trains    lengths int64 (B,)
    """

    context: torch.Tensor
    steps: int
    num_reconstructed: int
    lengths: torch.Tensor | None
    future: torch.Tensor | None
    noise: Noise | None


@dataclass(frozen=True)
class Case:
    """A form, a canvas and the batch that `seed` draws for it."""

    model: ModelConfig
    data: DataConfig
    frame_shape: tuple[int, ...]
    lengths: tuple[int, ...] | None
    trains: bool
    share_shown: float | None  # None: no noise at all
    seed: int

    def build(self, kind=VideoAutoencoder, dtype=torch.float64):
        """Return a model with weights large enough for every term to matter, zero biases too."""
        generator = torch.Generator().manual_seed(self.seed)
        model = kind(self.model, self.frame_shape).to(dtype)
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.7, generator=generator)
        return model

    def batch(self, dtype=torch.float64):
        generator = torch.Generator().manual_seed(self.seed + 1)
        data, num_values = self.data, torch.Size(self.frame_shape).numel()
        frames = torch.rand(
            data.batch_size,
            data.context + data.predict,
            num_values,
            dtype=dtype,
            generator=generator,
        )
        context, future = frames[:, : data.context], frames[:, data.context :]
        lengths = None if self.lengths is None else torch.tensor(self.lengths)
        noise = None
        if self.share_shown is not None:
            draws = step_generator(self.seed, 1, torch.device("cpu"))
            sizes = data.batch_size, num_values, self.share_shown
            noise = draw_noise(self.model, data, *sizes, draws)
            noise = noise.map(
                lambda tensor: tensor if tensor.dtype == torch.bool else tensor.to(dtype)
            )
        kept = data.num_reconstructed
        return Batch(context, data.predict, kept, lengths, future if self.trains else None, noise)


RATES = st.sampled_from((0.0, 0.4))


@st.composite
def model_configs(draw, **fixed):
    """Draw any form of a tiny model; `fixed` fields are not drawn."""
    one_of = {
        "hidden": st.integers(1, 4),
        "layers": st.integers(1, 3),
        "cell": st.sampled_from(("lstm", "peephole", "gru", "rnn")),
        "decoders": st.sampled_from(("reconstruct,predict", "reconstruct", "predict")),
        "decoder_input": st.sampled_from(("free", "unconditional", "teacher", "scheduled")),
        "output": st.sampled_from(("linear", "sigmoid")),
        "reverse": st.booleans(),
        "copy_initial_state": st.booleans(),
        "dropout": RATES,
        "input_dropout": RATES,
        "output_dropout": RATES,
        "init": st.sampled_from(("torch", "paper", "xavier")),
        "output_bias": st.sampled_from(("init", "mean")),
    }
    fields = {name: fixed[name] if name in fixed else draw(one_of[name]) for name in one_of}
    fields |= {"feedback": "linear", "forget_bias": None}
    if fields["decoder_input"] != "unconditional":
        fields["feedback"] = draw(st.sampled_from(("linear", "sigmoid", "detached")))
    if fields["cell"] in ("lstm", "peephole"):
        fields["forget_bias"] = draw(st.none() | st.floats(-2, 2))
    return ModelConfig(**fields | fixed)


@st.composite
def cases(draw, **fixed):
    """Draw a form, with `fixed` fields, and a batch: lengths, training or not, noise or none."""
    model = draw(model_configs(**fixed))
    context, batch_size = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    kept = draw(st.none() | st.integers(1, context)) if model.reconstructs else None
    lengths = st.tuples(*[st.integers(1, context)] * batch_size)
    return Case(
        model=model,
        data=DataConfig(
            context=context,
            reconstruct=kept,
            predict=draw(st.integers(1, 3)),
            batch_size=batch_size,
        ),
        frame_shape=draw(st.sampled_from(FRAME_SHAPES)),
        lengths=draw(st.none() | lengths),
        trains=draw(st.booleans()),
        share_shown=draw(st.sampled_from((None, 0.0, 0.5, 1.0))),
        seed=draw(st.integers(0, 2**16)),
    )
