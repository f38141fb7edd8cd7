"""The fused step gives what the plain model gives, in every form: outputs and every gradient."""

import gc
import weakref

import pytest
import torch
import trainer_data  # noqa: F401  (one thread)
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_strategies import cases

from trainer import own_output
from trainer.config import ModelConfig
from trainer.fused import FusedAutoencoder
from trainer.model import VideoAutoencoder

EXACT = {torch.float64: (1e-12, 1e-10), torch.float32: (1e-6, 1e-5)}


def outcome(model, batch):
    """Return what the model says of a batch and the gradients of a bumpy function of it."""
    decoded = model(
        batch.context,
        batch.steps,
        num_reconstructed=batch.num_reconstructed,
        lengths=batch.lengths,
        future=batch.future,
        noise=batch.noise,
    )
    said = torch.cat([head.flatten(1) for head in decoded if head is not None], 1)
    weight = torch.linspace(-1, 1, said.numel(), dtype=said.dtype).view_as(said)
    loss = (said.sin() * weight).sum()
    loss.backward()
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
    }
    return said.detach(), loss.item(), gradients


def assert_equal_outcomes(case, dtype):
    output_limit, gradient_limit = EXACT[dtype]
    plain, fused = case.build(dtype=dtype), case.build(FusedAutoencoder, dtype)
    batch = case.batch(dtype)
    expected, expected_loss, expected_gradients = outcome(plain, batch)
    said, loss, gradients = outcome(fused, batch)
    scale = max(1.0, expected.abs().max().item())
    assert (said - expected).abs().max().item() <= output_limit * scale
    assert loss == pytest.approx(expected_loss, rel=output_limit, abs=output_limit * scale)
    largest = max(value.abs().max().item() for value in expected_gradients.values())
    for name, value in expected_gradients.items():
        own = value.abs().max().item()
        # What cancels to nothing is compared with what it was summed from.
        limit = gradient_limit * max(own, 1e-3 * largest)
        assert (gradients[name] - value).abs().max().item() <= limit, name


@settings(max_examples=70)
@given(cases())
def test_every_form_equals_the_plain_model(case):
    assert_equal_outcomes(case, torch.float64)


@settings(max_examples=20)
@given(cases())
def test_every_form_is_close_in_single_precision(case):
    assert_equal_outcomes(case, torch.float32)


@settings(max_examples=25)
@given(cases(), st.integers(1, 5))
def test_every_form_rolls_out_as_the_plain_model(case, steps):
    plain, fused = case.build(), case.build(FusedAutoencoder)
    batch = case.batch()
    with torch.no_grad():
        expected = plain(batch.context, steps, lengths=batch.lengths)
        said = fused(batch.context, steps, lengths=batch.lengths)
    for ours, theirs in zip(said, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


FORMS = (
    {"cell": "lstm", "layers": 2},
    {"cell": "peephole", "layers": 2},
    {"cell": "gru", "layers": 2, "decoder_input": "teacher"},
    {"cell": "rnn", "decoder_input": "scheduled", "feedback": "sigmoid"},
    {"cell": "peephole", "decoder_input": "unconditional", "copy_initial_state": True},
    {"cell": "lstm", "copy_initial_state": True},
)


@pytest.mark.parametrize("fields", FORMS, ids=lambda fields: "-".join(map(str, fields.values())))
@pytest.mark.parametrize("batch", [1, 9])  # nine sequences are enough to fold the read-out in
def test_gradients_are_the_slopes(fields, batch):
    """As gradcheck sees them, with dropout, of the frames' function of all weights."""
    from trainer.config import DataConfig
    from trainer.noise import draw_noise, step_generator

    config = ModelConfig(**{"hidden": 2, "layers": 1, "dropout": 0.5} | fields)
    torch.manual_seed(1)
    model = FusedAutoencoder(config, (2, 2)).double()
    names = [name for name, _ in model.named_parameters()]
    data = DataConfig(context=2, predict=2)
    generator = step_generator(0, 0, torch.device("cpu"))
    noise = draw_noise(config, data, batch, 4, 0.5, generator).map(
        lambda mask: mask if mask.dtype == torch.bool else mask.double()
    )
    context, future = torch.rand(2, batch, 2, 4, dtype=torch.float64)

    def decode(*weights):
        arguments = (context, 2)
        options = {"future": future, "noise": noise}
        named = dict(zip(names, weights, strict=True))
        return tuple(torch.func.functional_call(model, named, arguments, options))

    weights = tuple(p.detach().clone().requires_grad_() for p in model.parameters())
    assert torch.autograd.gradcheck(decode, weights, fast_mode=True)


def folds(hidden, batch, steps, values=100):
    """Tell whether a decoder's training loop reads its state in place of its frames."""
    seen = []
    original = own_output._Loop.__init__
    config = ModelConfig(hidden=hidden, layers=1, dropout=0, decoders="predict")
    model = FusedAutoencoder(config, (values, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            own_output._Loop,
            "__init__",
            lambda self, plan, tensors: (
                original(self, plan, tensors),
                seen.append(self.frames is None),
            )[0],
        )
        model(torch.rand(batch, 2, values), steps)
    return seen


def test_the_read_out_is_folded_where_that_saves_work():
    """batch * (steps - 1) > D U / (D - U): 25 of 100 and 20 make 25."""
    assert folds(hidden=20, batch=5, steps=6) == [False]
    assert folds(hidden=20, batch=13, steps=3) == [True]
    assert folds(hidden=100, batch=1000, steps=3) == [False]


def test_a_kept_fold_does_not_outlive_its_weights():
    torch.manual_seed(0)
    config = ModelConfig(hidden=4, layers=1, dropout=0)
    plain, fused = VideoAutoencoder(config, (3, 3)), FusedAutoencoder(config, (3, 3))
    fused.load_state_dict(plain.state_dict())
    context = torch.rand(2, 3, 9)
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(fused(context, 4), plain(context, 4))
            for p, q in zip(plain.parameters(), fused.parameters(), strict=True):
                noise = torch.randn_like(p)
                p += noise
                q += noise


def test_a_model_made_in_inference_mode_speaks_and_may_change():
    """Its weights do not count their changes, so no fold of them is kept."""
    context = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    with torch.inference_mode():
        torch.manual_seed(0)
        model = FusedAutoencoder(ModelConfig(hidden=4), (5, 5))
        before = model.generate(context, 3)
        model.predict_decoder.fc.weight.mul_(2)
        after = model.generate(context, 3)
    plain = VideoAutoencoder(ModelConfig(hidden=4), (5, 5))
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(after, plain.generate(context, 3))
    assert not torch.equal(before, after)


def test_weights_and_inputs_are_left_alone():
    """One sequence and one frame: the sizes at which an expanded tensor is the tensor itself."""
    for fields in FORMS:
        config = ModelConfig(**{"hidden": 3, "layers": 1, "dropout": 0} | fields)
        model = FusedAutoencoder(config, (2, 2))
        before = [p.detach().clone() for p in model.parameters()]
        context, future = torch.rand(2, 1, 1, 4)
        given_to_it = context.clone(), future.clone()
        for head in model(context, 1, future=future):
            head.sum().backward(retain_graph=True)
        assert all(map(torch.equal, before, model.parameters()))
        assert all(map(torch.equal, given_to_it, (context, future)))


def test_a_weight_changed_before_the_way_back_is_noticed():
    model = FusedAutoencoder(ModelConfig(hidden=3, layers=1, dropout=0), (2, 2))
    loss = model(torch.rand(2, 3, 4), 2).prediction.sum()
    with torch.no_grad():
        model.predict_decoder.fc.weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("fields", FORMS, ids=lambda fields: "-".join(map(str, fields.values())))
def test_a_step_that_is_over_leaves_no_garbage(fields):
    """Its buffers are most of what training needs: they must not wait for the collector."""
    model = FusedAutoencoder(ModelConfig(**{"hidden": 3, "dropout": 0} | fields), (2, 2))
    gc.collect()
    gc.disable()
    try:
        prediction = model(torch.rand(2, 3, 4), 2, future=torch.rand(2, 2, 4)).prediction
        functions, found = [prediction.grad_fn], []
        while functions:
            function = functions.pop()
            if isinstance(function, torch.autograd.function.BackwardCFunction):
                found.append(weakref.ref(function))
            functions += [before for before, _ in function.next_functions if before is not None]
        prediction.sum().backward()
        assert len(found) >= 2
        del prediction, function, functions
        assert [ref() for ref in found] == [None] * len(found)
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_rounded_products_stay_close_and_leave_the_weights_alone(kind):
    torch.manual_seed(0)
    config = ModelConfig(hidden=16, layers=2, dropout=0)
    fused = FusedAutoencoder(config, (4, 5))
    context = torch.rand(3, 4, 20)
    exact = fused(context, 5).prediction
    exact.sum().backward()
    gradients = [p.grad for p in fused.parameters()]
    fused.zero_grad()
    fused.round_products(kind)
    rounded = fused(context, 5).prediction
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max().item() < 0.02 * exact.abs().max().item()
    rounded.sum().backward()
    for parameter, gradient in zip(fused.parameters(), gradients, strict=True):
        assert parameter.dtype == torch.float32
        if gradient is None:
            assert parameter.grad is None
            continue
        assert parameter.grad.dtype == torch.float32
        limit = 0.03 * gradient.abs().max().item()
        assert (parameter.grad - gradient).abs().max().item() < limit
