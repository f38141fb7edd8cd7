"""Optimizers equal plain loops; a bad gradient changes nothing; what is saved goes on bit-equal."""

import copy
import io
import math
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from trainer_data import assert_same

from trainer.config import ModelConfig, OptimizerConfig
from trainer.errors import InputError
from trainer.model import VideoAutoencoder
from trainer.optimizer import Updater

OPTIMIZERS = ("adam", "adamw", "paper-sgd")
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)
each_precision = pytest.mark.parametrize("precision", ["fp32", "fp16"])
EVERYTHING = {"weight_decay": 0.1, "clip_norm": 1.0, "ema": 0.9}


def tiny_model(seed=0):
    torch.manual_seed(seed)
    model = VideoAutoencoder(ModelConfig(hidden=3, layers=1, cell="peephole"), (2, 3))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_()
    return model


def drawn_gradients(model, step, size=1.0):
    generator = torch.Generator().manual_seed(step)
    return {
        name: (torch.randn(weight.shape, generator=generator) * size).to(weight.dtype)
        for name, weight in model.named_parameters()
    }


def take_step(model, updater, gradients, rate=1e-2):
    """Let the loss have these gradients."""
    loss = sum(
        (weight * gradients[name].to(weight)).sum()
        for name, weight in model.named_parameters()
        if name in gradients
    )
    updater.scaled(loss).backward()
    return updater.update(rate)


def numbers(model):
    return {name: weight.detach().numpy().copy() for name, weight in model.named_parameters()}


def everything(model, updater):
    return copy.deepcopy({"weights": model.state_dict(), **updater.state_dict()})


def norm_of(gradients):
    return math.sqrt(sum(values.double().square().sum() for values in gradients.values()))


def adam(weight, gradient, kept, step, rate, decay):
    """Kingma and Ba (arXiv:1412.6980), with torch's constants and an L2 penalty."""
    gradient = gradient + decay * weight
    kept["mean"] = 0.9 * kept.get("mean", 0.0) + 0.1 * gradient
    kept["square"] = 0.999 * kept.get("square", 0.0) + 0.001 * gradient**2
    mean, square = kept["mean"] / (1 - 0.9**step), kept["square"] / (1 - 0.999**step)
    return weight - rate * mean / (np.sqrt(square) + 1e-8)


def adamw(weight, gradient, kept, step, rate, decay):
    """Loshchilov and Hutter (arXiv:1711.05101): the decay is no part of the gradient."""
    return adam(weight, gradient, kept, step, rate, 0.0) - rate * decay * weight


def paper_sgd(weight, gradient, kept, step, rate, decay):
    """Srivastava et al., value by value."""
    update = kept.setdefault("update", np.zeros_like(weight))
    after = weight.copy()
    for place in np.ndindex(weight.shape):
        wanted = 0.9 * update[place] - rate * (gradient[place] + decay * weight[place])
        update[place] = max(-1e-4, min(1e-4, wanted))
        after[place] += update[place]
    return after


ORACLES = {"adam": adam, "adamw": adamw, "paper-sgd": paper_sgd}


@each_optimizer
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_an_optimizer_equals_a_plain_loop(optimizer, decay):
    """Peepholes decay, biases do not; some updates of paper-sgd are clamped, some are not."""
    model = tiny_model().double()
    updater = Updater(model, OptimizerConfig(optimizer=optimizer, weight_decay=decay), "fp32")
    expected, kept = numbers(model), {name: {} for name in numbers(model)}
    for step in range(1, 7):
        gradients, rate = drawn_gradients(model, step), 2e-4 / step
        for name, weight in expected.items():
            now = 0.0 if ".bias" in name else decay
            gradient = gradients[name].numpy()
            expected[name] = ORACLES[optimizer](weight, gradient, kept[name], step, rate, now)
        take_step(model, updater, gradients, rate)
        for name, weight in numbers(model).items():
            np.testing.assert_allclose(weight, expected[name], rtol=1e-12, atol=1e-14)
    if optimizer == "paper-sgd":
        updates = np.concatenate([abs(part["update"]).ravel() for part in kept.values()])
        assert 0.1 < (updates == 1e-4).mean() < 0.9


@each_optimizer
@each_precision
def test_clipping_shortens_the_gradient_to_the_norm_and_tells_what_it_was(optimizer, precision):
    for size, clip in ((1.0, 0.5), (1e-3, 0.5)):
        model, other = tiny_model(), tiny_model()
        gradients = drawn_gradients(model, 1, size)
        norm = norm_of(gradients)
        shorter = min(1.0, clip / norm)
        assert (shorter < 1) == (size == 1)
        clipping = Updater(model, OptimizerConfig(optimizer=optimizer, clip_norm=clip), precision)
        plain = Updater(other, OptimizerConfig(optimizer=optimizer), precision)
        for _ in range(2):  # Adam alone would not tell a gradient from its half
            told = take_step(model, clipping, gradients, rate=1e-3)
            assert told == pytest.approx(norm, rel=1e-6)
            take_step(other, plain, {name: g * shorter for name, g in gradients.items()}, 1e-3)
        ours, theirs = everything(model, clipping), everything(other, plain)
        torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-9)


@each_optimizer
@each_precision
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_whose_gradient_is_not_finite_never_was(optimizer, precision, bad):
    config = OptimizerConfig(optimizer=optimizer, **EVERYTHING)
    model, other = tiny_model(), tiny_model()
    updater, undisturbed = (Updater(one, config, precision) for one in (model, other))
    counted = []
    for step, is_bad in enumerate([True, False, True, True, False, False]):
        gradients = drawn_gradients(model, step)
        if is_bad:
            gradients["predict_decoder.lstm.bias_ih_l0"][5] = bad
            before = everything(model, updater)
            assert not take_step(model, updater, gradients).isfinite()
            after = everything(model, updater)
            del before["counts"], after["counts"]
            assert_same(before, after)
        else:
            for one, its in ((model, updater), (other, undisturbed)):
                take_step(one, its, gradients)
        counted.append((int(updater.num_skipped), int(updater.skipped_in_a_row)))
    assert counted == [(1, 1), (1, 0), (2, 1), (3, 2), (3, 0), (3, 0)]
    ours, theirs = everything(model, updater), everything(other, undisturbed)
    assert ours.pop("counts")["skipped"] - theirs.pop("counts")["skipped"] == 3
    assert_same(ours, theirs)


@each_optimizer
def test_the_scale_of_fp16_leaves_no_trace_in_the_weights(optimizer):
    runs = []
    for precision in ("fp32", "fp16"):
        model = tiny_model()
        updater = Updater(model, OptimizerConfig(optimizer=optimizer, weight_decay=0.1), precision)
        norms = [take_step(model, updater, drawn_gradients(model, i), 5e-5) for i in range(3)]
        runs.append([numbers(model), norms])
    assert runs[0][1] == runs[1][1]
    for name, weight in runs[0][0].items():
        assert np.array_equal(weight, runs[1][0][name])


@pytest.mark.parametrize(("reduction", "first"), [("mean", 65536), ("sum", 1)])
def test_the_scale_halves_at_an_overflow_and_doubles_after_2000_good_steps(reduction, first):
    """As torch's GradScaler does it."""
    model = tiny_model()
    updater = Updater(model, OptimizerConfig(loss_reduction=reduction, lr=1e-6), "fp16")
    one = torch.ones(())
    assert updater.scaled(one) == first
    scaler = torch.amp.GradScaler("cpu", init_scale=first, growth_interval=2_000)
    weight = torch.nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([weight], lr=1e-6)
    state = copy.deepcopy(updater.state_dict())
    for good_steps, are_bad in (
        (0, [True, True, False]),
        (1_997, [False] * 4),
        (1_998, [True] * 2),
    ):
        state["counts"]["good_steps"].fill_(good_steps)
        state["counts"]["scale"].copy_(updater.scaled(one))
        updater.load_state_dict(state)
        scaler.scale(one)
        scaler.load_state_dict(scaler.state_dict() | {"_growth_tracker": good_steps})
        for is_bad in are_bad:
            value = math.inf if is_bad else 1e-3
            take_step(model, updater, {"predict_decoder.fc.bias": torch.full((6,), value)})
            scaler.scale(weight * value).sum().backward()
            scaler.step(sgd)
            scaler.update()
            sgd.zero_grad()
            assert updater.scaled(one) == scaler.get_scale()
    assert updater.scaled(one) == first / 8


def test_the_scale_becomes_neither_zero_nor_infinite():
    model = tiny_model()
    updater = Updater(model, OptimizerConfig(), "fp16")
    for _ in range(70):
        take_step(model, updater, drawn_gradients(model, 0, math.nan))
    lowest = updater.scaled(torch.ones(()))
    assert 0 < lowest < 1e-9
    assert take_step(model, updater, drawn_gradients(model, 0)).isfinite()
    state = copy.deepcopy(updater.state_dict())
    state["counts"]["good_steps"].fill_(1_999)
    for _ in range(70):
        updater.load_state_dict(state)
        take_step(model, updater, drawn_gradients(model, 0))
        state["counts"]["scale"].copy_(updater.scaled(torch.ones(())))
    assert 1e9 < state["counts"]["scale"] < 1e10


def test_the_average_follows_the_weights_and_is_shown_for_a_while():
    model = tiny_model()
    updater = Updater(model, OptimizerConfig(ema=0.75), "fp32")
    expected = numbers(model)
    for step in range(4):
        take_step(model, updater, drawn_gradients(model, step))
        for name, weight in numbers(model).items():
            expected[name] = 0.75 * expected[name] + 0.25 * weight
    before = everything(model, updater)
    addresses = [weight.data_ptr() for weight in model.parameters()]
    with suppress(KeyError), updater.averaged():
        for name, weight in numbers(model).items():
            np.testing.assert_allclose(weight, expected[name], rtol=1e-5, atol=1e-7)
            assert torch.equal(torch.from_numpy(weight), before["average"][name])
            assert not torch.equal(torch.from_numpy(weight), before["weights"][name])
        assert [weight.data_ptr() for weight in model.parameters()] == addresses
        raise KeyError
    assert_same(everything(model, updater), before)


def test_without_an_average_the_weights_are_shown():
    model = tiny_model()
    updater = Updater(model, OptimizerConfig(), "fp32")
    before = everything(model, updater)
    with updater.averaged():
        assert_same(everything(model, updater), before)


@each_optimizer
@each_precision
def test_what_is_saved_and_loaded_goes_on_bit_equal(optimizer, precision):
    config = OptimizerConfig(optimizer=optimizer, **EVERYTHING)

    def train(model, updater, steps):
        for step in steps:
            size = math.nan if step == 2 else 1.0
            take_step(model, updater, drawn_gradients(model, step, size), rate=1e-4 / (step + 1))

    model = tiny_model()
    updater = Updater(model, config, precision)
    train(model, updater, range(3))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "updater": updater.state_dict()}, file)
    train(model, updater, range(3, 6))

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = tiny_model(seed=1)
    resumed.load_state_dict(saved["model"])
    other = Updater(resumed, config, precision)
    other.load_state_dict(saved["updater"])
    train(resumed, other, range(3, 6))
    assert int(other.num_skipped) == 1
    assert_same(everything(resumed, other), everything(model, updater))


def test_a_weight_that_no_loss_depends_on_stays():
    model = tiny_model()
    before = numbers(model)
    for optimizer in OPTIMIZERS:
        updater = Updater(model, OptimizerConfig(optimizer=optimizer, weight_decay=0.1), "fp32")
        gradients = drawn_gradients(model, 0)
        del gradients["encoder.lstm.weight_ih_l0"]
        take_step(model, updater, gradients)
    moved = {name for name, weight in numbers(model).items() if (weight != before[name]).any()}
    assert moved == set(before) - {"encoder.lstm.weight_ih_l0"}


def test_gradients_are_gone_after_a_step():
    model = tiny_model()
    take_step(model, Updater(model, OptimizerConfig(), "fp32"), drawn_gradients(model, 0))
    assert {weight.grad for weight in model.parameters()} == {None}


def test_a_state_of_another_form_is_refused_and_changes_nothing():
    model = tiny_model()
    updater = Updater(model, OptimizerConfig(ema=0.5), "fp32")
    take_step(model, updater, drawn_gradients(model, 0))
    before = everything(model, updater)

    def state(**fields):
        return Updater(tiny_model(), OptimizerConfig(**fields), "fp32").state_dict()

    name = "encoder.lstm.weight_hh_l0"
    broken = {part: state(ema=0.5) for part in ("shape", "type", "values", "names", "counts")}
    broken["shape"]["exp_avg"][name] = torch.zeros(3, 12)
    broken["type"]["average"][name] = torch.zeros(12, 3, dtype=torch.float64)
    broken["values"]["exp_avg_sq"] = [1, 2]
    broken["names"]["step"]["decoder"] = broken["names"]["step"].pop(name)
    broken["counts"]["counts"]["skipped"] = 3
    half = Updater(tiny_model(), OptimizerConfig(ema=0.5), "fp16").state_dict()
    for other, line in (
        (state(), "average/encoder.lstm.weight_ih_l0 is missing there, float32 (12, 6) here"),
        (
            state(ema=0.5, optimizer="paper-sgd"),
            "step/encoder.lstm.weight_ih_l0 is missing there, float32 () here",
        ),
        (half, "counts/scale is float32 () there, unknown here"),
        (broken["shape"], f"exp_avg/{name} is float32 (3, 12) there, float32 (12, 3) here"),
        (broken["type"], f"average/{name} is float64 (12, 3) there, float32 (12, 3) here"),
        (
            broken["values"],
            "exp_avg_sq/encoder.lstm.weight_ih_l0 is missing there, float32 (12, 6) here",
        ),
        (broken["names"], f"step/{name} is missing there, float32 () here"),
        (broken["counts"], "counts/skipped is int there, int64 () here"),
        (None, "counts/skipped is missing there, int64 () here"),
    ):
        with pytest.raises(InputError) as caught:
            updater.load_state_dict(other)
        assert str(caught.value) == f"the optimizer's saved state: {line}"
    assert_same(everything(model, updater), before)


class NoReading(TorchDispatchMode):
    """Refuses what waits for a device: to read a tensor's value into Python."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@each_optimizer
@each_precision
def test_a_step_reads_nothing_back_from_the_device(optimizer, precision):
    model = tiny_model()
    updater = Updater(model, OptimizerConfig(optimizer=optimizer, **EVERYTHING), precision)
    with NoReading():
        take_step(model, updater, drawn_gradients(model, 0), torch.tensor(1e-3))
        with pytest.raises(AssertionError):
            updater.num_skipped.item()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@each_optimizer
@each_precision
def test_a_captured_step_equals_the_cpus(optimizer, precision):
    """Each replay has its own gradients, its own rate, and one of them is bad."""
    config = OptimizerConfig(optimizer=optimizer, **EVERYTHING)
    model, other = tiny_model(), tiny_model().cuda()
    updater, captured = (Updater(one, config, precision) for one in (model, other))
    rate = torch.zeros((), device="cuda")
    gradients = {name: value.cuda() for name, value in drawn_gradients(model, 0).items()}
    start = everything(other, captured)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        take_step(other, captured, gradients, rate)
    torch.cuda.current_stream().wait_stream(stream)
    other.load_state_dict(start.pop("weights"))
    captured.load_state_dict(start)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        norm = take_step(other, captured, gradients, rate)
    for step in range(5):
        drawn = drawn_gradients(model, step, math.nan if step == 2 else 1.0)
        for name, values in drawn.items():
            gradients[name].copy_(values)
        rate.fill_(1e-3 / (step + 1))
        graph.replay()
        told = take_step(model, updater, drawn, 1e-3 / (step + 1))
        torch.testing.assert_close(norm.cpu(), told, equal_nan=True)
    ours, theirs = everything(other, captured), everything(model, updater)
    torch.testing.assert_close(ours, theirs, check_device=False)
