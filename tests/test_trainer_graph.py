"""A step that a CUDA graph replays is the step itself."""

import pytest
import torch
import trainer_data  # noqa: F401  (one thread)

from trainer.build import build_model
from trainer.config import load_config
from trainer.gradients import add_gradients
from trainer.graph import make_step
from trainer.noise import draw_noise, step_generator
from trainer.optimizer import Updater
from trainer.stream import Batch
from trainer.world import World, product_dtype

BATCH, FRAMES, SIZE = 4, 7, 6
no_cuda = not torch.cuda.is_available()


class Run:
    """A model in training, on made-up frames; equal arguments, equal runs."""

    def __init__(self, device, *assignments, is_varied=False, extra=lambda: None):
        self.config = config = load_config(
            assignments=("hidden=16", f"batch_size={BATCH}", "context=4", "predict=3", *assignments)
        )
        self.device, self.is_varied = torch.device(device), is_varied
        torch.manual_seed(0)
        self.model = build_model(config.model, (SIZE, SIZE)).to(device)
        self.model.round_products(product_dtype(config.run.precision))
        self.updater = Updater(self.model, config.optimizer, config.run.precision)
        self.extra = extra
        self.lines = []

    def take(self, batch, noise, rate):
        losses = add_gradients(
            self.model, self.updater, batch, noise, self.config, World(), is_varied=self.is_varied
        )
        self.extra()
        return losses, self.updater.update(rate)

    def take_with_tensor(self, batch, noise, rate):
        """As a captured step reads the rate: its last bits count here."""
        return self.take(batch, noise, torch.tensor(rate, device=self.device))

    def make_step(self, **options):
        return make_step(self.take, self.updater, self.device, self.lines.append, **options)

    def inputs(self, step):
        generator = torch.Generator().manual_seed(step)
        frames = torch.randint(
            0, 256, (BATCH, FRAMES, SIZE, SIZE), dtype=torch.uint8, generator=generator
        )
        lengths = torch.randint(2, FRAMES + 1, (BATCH,), dtype=torch.int32, generator=generator)
        noise = draw_noise(
            self.config.model,
            self.config.data,
            BATCH,
            SIZE * SIZE,
            0.5,
            step_generator(0, step, self.device),
        )
        batch = Batch(frames, lengths, torch.arange(BATCH)).to(self.device)
        return batch, noise, 1e-3 / (step + 1)

    def outcome(self, take, steps):
        """Take steps; return the numbers of each and all weights and moments behind the last."""
        said = [take(*self.inputs(step)) for step in range(steps)]
        numbers = [
            {name: value.item() for name, value in (losses | {"norm": norm}).items()}
            for losses, norm in said
        ]
        kept = {"weights": dict(self.model.named_parameters()), **self.updater.state_dict()}
        return numbers, {
            f"{kind}/{name}": values.detach().cpu()
            for kind, part in kept.items()
            for name, values in part.items()
        }


def assert_same(found, expected):
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    for name, values in expected[1].items():
        assert torch.equal(found[1][name], values), name


def test_ranks_are_told_why_their_steps_are_not_captured():
    run = Run("cpu")
    run.device = torch.device("cuda")
    assert run.make_step(ranks=2) == run.take
    (line,) = (line for line in run.lines if "CUDA graph" in line)
    assert line == ("steps are not captured in a CUDA graph: ranks exchange gradients in between")


FORMS = {
    "tutorial": ("dropout=0.3", "clip_norm=0.01", "ema=0.9"),
    "paper": (
        "cell=peephole",
        "layers=1",
        "decoder_input=scheduled",
        "output=sigmoid",
        "loss=ce",
        "loss_reduction=sum",
        "optimizer=paper-sgd",
        "clip_norm=1",
    ),
    "gru": ("cell=gru", "decoder_input=unconditional", "optimizer=adamw", "accumulate=2"),
    "one decoder": ("decoders=predict", "decoder_input=teacher", "output_dropout=0.2"),
}


@pytest.mark.parametrize("form", FORMS)
def test_on_the_cpu_steps_are_taken_as_they_are(form):
    plain, run = (Run("cpu", *FORMS[form], is_varied=True) for _ in range(2))
    before = plain.model.state_dict()
    before = {name: values.clone() for name, values in before.items()}
    expected = plain.outcome(plain.take, 3)
    assert_same(run.outcome(run.make_step(), 3), expected)
    assert not run.lines
    assert all(not torch.equal(before[name], p) for name, p in run.model.named_parameters())


@pytest.mark.parametrize("is_varied", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.cuda
@pytest.mark.skipif(no_cuda, reason="needs a CUDA device")
def test_captured_steps_are_the_steps_bit_for_bit(form, precision, is_varied):
    fields = (*FORMS[form], f"precision={precision}")
    plain, captured = (Run("cuda", *fields, is_varied=is_varied) for _ in range(2))
    expected = plain.outcome(plain.take_with_tensor, 20)
    assert_same(captured.outcome(captured.make_step(), 20), expected)
    assert not captured.lines


@pytest.mark.cuda
@pytest.mark.skipif(no_cuda, reason="needs a CUDA device")
def test_what_cannot_be_captured_is_said_in_one_line_and_trained_all_the_same():
    plain = Run("cuda")
    expected = plain.outcome(plain.take_with_tensor, 8)
    waiting = Run("cuda", extra=lambda: torch.ones((), device="cuda").item())
    here = torch.cuda.current_stream()
    assert_same(waiting.outcome(waiting.make_step(), 8), expected)
    assert torch.cuda.current_stream() == here
    (line,) = waiting.lines
    assert line.startswith("steps are not captured in a CUDA graph: ")
    assert "\n" not in line
