"""Scores against NumPy, a model that knows the truth, and what is known of Moving MNIST."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import nn
from trainer_data import CONTEXT, PREDICT, make_data, stored, tiny_config

from mmgen.config import parse_config
from mmgen.generate import render
from mmgen.shard.reader import open_dataset
from trainer.build import build_model
from trainer.config import DataConfig, ModelConfig
from trainer.errors import InputError
from trainer.evaluation import evaluate
from trainer.lengths import check_lengths
from trainer.model import Decoded, VideoAutoencoder
from trainer.noise import Noise, StackNoise
from trainer.source import open_source
from trainer.tables import metric_rows

COUNT = 70  # more than a batch of 64, no multiple of it


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = make_data(tmp_path_factory.mktemp("evaluation") / "data", {"test": COUNT})
    return open_source(folder, "test")


@pytest.fixture(scope="module")
def values(split):
    """Context and future as NumPy has them; the eighth frame is nobody's business."""
    frames = stored(split.address, "test").reshape(COUNT, 8, 900) / 255
    return frames[:, :CONTEXT], frames[:, CONTEXT : CONTEXT + PREDICT]


def make_model(*assignments):
    torch.manual_seed(0)
    model = VideoAutoencoder(tiny_config(*assignments).model, (30, 30))
    for parameter in model.parameters():
        parameter.data.mul_(3)  # outputs below 0 and above 1 occur
    return model


def table(output, probability, target):
    """Score in float64, from the definitions."""
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = np.where(target > 0, target * np.log(probability), 0)
        nats = nats + np.where(target < 1, (1 - target) * np.log(1 - probability), 0)
        difference, clipped = output - target, np.clip(output, 0, 1) - target
        psnr = -10 * np.log10((clipped**2).mean(-1))
    scores = {"mse": (difference**2).sum(-1), "mae": abs(difference).sum(-1), "psnr": psnr}
    scores |= {"ssim": similarity(output, target, 1), "ssim_openstl": similarity(output, target, 2)}
    scores["ce"] = -nats.sum(-1)
    means = {name: number(score.mean()) for name, score in scores.items()}
    return means | {"per_frame": {n: [number(v) for v in s.mean(0)] for n, s in scores.items()}}


def similarity(output, target, data_range):
    pairs = zip(output.reshape(-1, 30, 30), target.reshape(-1, 30, 30), strict=True)
    values = [
        structural_similarity(one.clip(0, 1), other, data_range=data_range) for one, other in pairs
    ]
    return np.reshape(values, output.shape[:2])


def without_intervals(found):
    """Take the intervals out of a result, where each must hold its mean."""
    if not isinstance(found, dict):
        return found
    for metric, bounds in found.get("interval", {}).items():
        assert (bounds is None) == (found[metric] is None)
        assert bounds is None or bounds[0] <= found[metric] <= bounds[1]
    return {k: without_intervals(v) for k, v in found.items() if not k.endswith("interval")}


def number(value):
    return float(value) if np.isfinite(value) else None


def assert_close(found, expected):
    found = without_intervals(found)
    if isinstance(expected, dict):
        assert sorted(found) == sorted(expected)
        for name in expected:
            assert_close(found[name], expected[name])
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=2e-5)
    else:
        assert found == expected


def draw(split, count, name):
    """Render the frames that follow the context once more, as (N, P, D)."""
    stored = open_dataset(split.address)
    config, seed = parse_config(stored.manifest.config), stored.manifest.seed
    rules = {"random_until": CONTEXT - 1}
    if name == "constant velocity":
        rules["straight_from"] = CONTEXT - 1
    frames = render(config, count, split="test", seed=seed, **rules).frames
    return frames[:, CONTEXT : CONTEXT + PREDICT].reshape(count, PREDICT, -1) / 255


@pytest.mark.parametrize("count", [COUNT, 64, 3])
def test_all_numbers_equal_numpy(split, values, count):
    context, future = (array[:count] for array in values)
    model = make_model()
    with torch.no_grad():
        decoded = model.eval()(torch.from_numpy(context).float(), PREDICT)
    outputs = [output.double().numpy() for output in (decoded.prediction, decoded.reconstruction)]
    assert outputs[0].min() < -0.1
    last, mean = context[:, -1:], future.mean((0, 1))
    clip = lambda array: np.clip(array, 1e-3, 1 - 1e-3)  # noqa: E731
    others = ("constant velocity", "known dynamics")
    redrawn = [draw(split, count, name) for name in others]
    expected = {
        "data": split.address,
        "split": "test",
        "sequences": count,
        "prediction": table(outputs[0], clip(outputs[0]), future),
        "reconstruction": table(outputs[1], clip(outputs[1]), context),
        "baselines": {
            "black": table(0 * future, 0 * future, future),
            "copy-last": table(last + 0 * future, clip(last) + 0 * future, future),
            "mean frame": table(mean + 0 * future, mean + 0 * future, future),
            **{
                name: table(drawn, clip(drawn), future)
                for name, drawn in zip(others, redrawn, strict=True)
            },
        },
        "teacher_forced": None,
        "entropy_floor": table(future, future, future)["ce"],
    }
    asked = None if count == COUNT else count
    found = evaluate(model.train(), split, tiny_config().data, asked).as_json()
    means = [expected["baselines"]["mean frame"]["mse"], expected["prediction"]["mse"]]
    expected["skill"] = (means[0] - means[1]) / means[0]  # nothing is drawn after the context
    assert_close(found, expected)
    assert found["baselines"]["black"]["ce"] is None
    assert found["baselines"]["black"]["per_frame"]["ce"] == [None] * PREDICT


def test_a_sigmoid_model_is_scored_by_its_logits(split, values):
    """Beyond what a float32 probability can say: there its cross-entropy would be infinite."""
    context, future = (array[:9] for array in values)
    model = make_model("output=sigmoid")
    model.predict_decoder.fc.weight.data.mul_(50)
    with torch.no_grad():
        decoded = model.eval()(torch.from_numpy(context).float(), PREDICT)
    found = evaluate(model, split, tiny_config().data, 9, baselines=False).as_json()
    for name, logits, target in (
        ("prediction", decoded.prediction, future),
        ("reconstruction", decoded.reconstruction, context),
    ):
        logits = logits.double().numpy()
        expected = table(1 / (1 + np.exp(-logits)), np.full_like(target, 0.5), target)
        nats = (np.logaddexp(0, logits) - target * logits).sum(-1)
        expected["ce"], expected["per_frame"]["ce"] = float(nats.mean()), list(nats.mean(0))
        assert_close(found[name], expected)
    assert decoded.prediction.abs().max() > 20
    assert (found["baselines"], found["skill"]) == ({}, None)


@pytest.mark.parametrize("reverse", [True, False])
def test_only_what_is_reconstructed_is_scored(split, values, reverse):
    context = values[0][:9]
    config = tiny_config("reconstruct=2", f"reverse={reverse}")
    model = make_model(f"reverse={reverse}")
    with torch.no_grad():
        decoded = model.eval()(torch.from_numpy(context).float(), 1, num_reconstructed=2)
    output = decoded.reconstruction.double().numpy()
    found = evaluate(model, split, config.data, 9, baselines=False).as_json()
    clipped = np.clip(output, 1e-3, 1 - 1e-3)
    assert_close(found["reconstruction"], table(output, clipped, context[:, -2:]))


def test_a_model_with_one_decoder_is_scored_by_it(split):
    """As the same decoder of a model with both."""
    data = tiny_config().data
    both = make_model()
    expected = evaluate(both, split, data, 9).as_json()
    for decoders, there in (("predict", "prediction"), ("reconstruct", "reconstruction")):
        model = make_model(f"decoders={decoders}")
        weights = {n: w for n, w in both.state_dict().items() if n in model.state_dict()}
        model.load_state_dict(weights)
        found = evaluate(model, split, data, 9).as_json()
        assert found[there] == expected[there]
        assert [found[name] is None for name in ("prediction", "reconstruction")] == [
            there != "prediction",
            there != "reconstruction",
        ]
        predicts = decoders == "predict"
        assert found["baselines"] == (expected["baselines"] if predicts else {})
        assert found["entropy_floor"] == (expected["entropy_floor"] if predicts else None)
        names = ["prediction", *expected["baselines"], "entropy floor"]
        assert [row[0] for row in metric_rows(found)] == (names if predicts else [there])


def test_a_model_that_only_reconstructs_needs_no_more_than_the_context(tmp_path):
    source = open_source(make_data(tmp_path / "data", fields=("canvas=30", "frames=4")), "test")
    data = tiny_config().data
    model = make_model("decoders=reconstruct")
    assert evaluate(model, source, data).as_json()["reconstruction"]["mse"] > 0
    with pytest.raises(InputError, match="have 4 frames, context 4 and predict 3 need 7; lower th"):
        evaluate(make_model(), source, data)
    with pytest.raises(InputError, match=r"have 4 frames, context needs 5; lower it$"):
        evaluate(model, source, tiny_config("context=5").data)


class Oracle(nn.Module):
    """Knows every sequence by its context and answers with the truth."""

    config = ModelConfig()
    emit = VideoAutoencoder.emit
    reads_truth = False

    def __init__(self, context, future):
        super().__init__()
        self.frame_shape = (30, 30)
        self.weight = nn.Parameter(torch.zeros(1))
        self.known = [torch.from_numpy(array).float() for array in (context, future)]

    def forward(self, context, steps, num_reconstructed):
        known, future = self.known
        places = [int((known == one).all(-1).all(-1).nonzero()[0]) for one in context]
        return Decoded(context, future[places])


def test_the_truth_scores_nothing_but_the_entropy(split, values):
    found = evaluate(Oracle(*values), split, tiny_config().data).as_json()
    for name in ("prediction", "reconstruction"):
        assert found[name]["mse"] == pytest.approx(0, abs=1e-9)
        assert found[name]["mae"] == pytest.approx(0, abs=1e-4)
    assert found["entropy_floor"] <= found["prediction"]["ce"] < found["entropy_floor"] + 2
    assert found["skill"] == 1
    assert found["baselines"]["known dynamics"]["mse"] == 0


def test_predictors_that_know_nothing_score_what_is_known_of_moving_mnist(tmp_path):
    """The numbers of 10 000 sequences; each tolerance is four standard errors of 300."""
    folder = make_data(tmp_path / "data", {"test": 300}, fields=())
    model = VideoAutoencoder(tiny_config("hidden=4").model, (64, 64))
    found = evaluate(model, open_source(folder, "test"), DataConfig()).as_json()
    black, copied, mean = (found["baselines"][n] for n in ("black", "copy-last", "mean frame"))
    assert black["mse"] == pytest.approx(174.5, abs=10)
    assert mean["mse"] == pytest.approx(153.4, abs=8)
    assert mean["ce"] == pytest.approx(674.2, abs=30)
    assert copied["mse"] == pytest.approx(286.6, abs=20)
    assert found["entropy_floor"] == pytest.approx(86.42, abs=4)
    horizon = [202, 251, 272, 293, 300, 307, 307, 311, 310, 312]
    assert copied["per_frame"]["mse"] == pytest.approx(horizon, abs=24)
    # Of 150 other sequences of the same kind, by scikit-image.
    for baseline, values in ((copied, (0.661, 0.670)), (mean, (0.226, 0.331))):
        found = baseline["ssim"], baseline["ssim_openstl"]
        assert found == pytest.approx(values, abs=0.02)
    assert black["ssim"] == pytest.approx(0.7726, abs=0.01)
    assert black["ssim_openstl"] == pytest.approx(0.7786, abs=0.01)


def test_more_frames_than_the_shortest_sequence_are_refused(tmp_path):
    folder = make_data(tmp_path / "data", fields=("canvas=30", "frames=6..8"))
    ranged = open_source(folder, "test")
    line = "sequences of test have 6 frames, context 4 and predict 3 need 7; lower them"
    with pytest.raises(InputError, match=f"^{folder}: {line}$"):
        check_lengths(ranged, tiny_config().data)
    check_lengths(ranged, tiny_config("predict=2").data)


@pytest.mark.parametrize("decoder_input", ["teacher", "scheduled"])
@pytest.mark.parametrize("is_fused", [False, True])
def test_decoders_that_learn_from_the_truth_are_scored_both_ways(
    split, values, decoder_input, is_fused
):
    """Free-running: what `generate` says. Teacher-forced: each frame from the true one before."""
    context, future = (array[:9] for array in values)
    config = tiny_config(f"decoder_input={decoder_input}")
    plain = make_model(f"decoder_input={decoder_input}")
    model = build_model(config.model, (30, 30)) if is_fused else plain
    model.load_state_dict(plain.state_dict())
    found = evaluate(model, split, config.data, 9, baselines=False).as_json()
    frames = torch.from_numpy(stored(split.address, "test")[:9, :CONTEXT])
    free = model.generate(frames, PREDICT).flatten(2).double().numpy()
    clip = lambda array: np.clip(array, 1e-3, 1 - 1e-3)  # noqa: E731
    assert_close(found["prediction"], table(free, clip(free), future))
    shown = StackNoise(is_shown=torch.ones(CONTEXT, 9, 1).bool())
    context, truth = (torch.from_numpy(array).float() for array in (context, future))
    with torch.no_grad():
        said = plain(context, PREDICT, future=truth, noise=Noise(predict=shown, reconstruct=shown))
    forced = said.prediction.double().numpy()
    np.testing.assert_allclose(forced[:, 0], free[:, 0], atol=1e-5)  # nothing was read before it
    assert abs(forced[:, 1:] - free[:, 1:]).max() > 0.01
    assert_close(found["teacher_forced"]["prediction"], table(forced, clip(forced), future))
    assert found["teacher_forced"]["reconstruction"]["mse"] != found["reconstruction"]["mse"]
