"""A look at val says what `evaluate` says, and counts only the frames there are."""

import numpy as np
import pytest
import torch
from trainer_data import CONTEXT, PREDICT, make_data, stored, tiny_config

from trainer.build import build_model
from trainer.errors import InputError
from trainer.evaluation import evaluate
from trainer.lengths import check_frames, has_short
from trainer.look import look_at
from trainer.source import open_source
from trainer.world import World


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("look")


@pytest.fixture(scope="module")
def data(folder):
    return make_data(folder / "data", {"train": 4, "val": 70})


@pytest.fixture(scope="module")
def varied(folder):
    return make_data(folder / "varied", {"val": 9}, fields=("canvas=30", "frames=2..8"), seed=1)


def make_model(config):
    torch.manual_seed(1)
    return build_model(config.model, (30, 30))


@pytest.mark.parametrize(
    "fields",
    [(), ("output=sigmoid", "reconstruct=2"), ("decoders=predict",), ("decoders=reconstruct",)],
)
def test_a_look_says_what_evaluate_says(data, fields):
    config, source = tiny_config(*fields), open_source(data, "val")
    model = make_model(config)
    found = look_at(model, source, config, 67, World())
    expected = evaluate(model, source, config.data, 67, baselines=False).as_json()
    heads = [name for name in ("prediction", "reconstruction") if expected[name]]
    assert list(found) == heads
    for head in heads:
        for metric in ("mse", "ce"):
            assert found[head][metric] == pytest.approx(expected[head][metric], rel=1e-6)


def test_frames_that_do_not_exist_are_not_scored(varied):
    """Against plain loops: a sequence alone, cut where it ends."""
    config, source = tiny_config("reverse=true"), open_source(varied, "val")
    model = make_model(config)
    frames = torch.from_numpy(stored(varied, "val"))
    errors = {"prediction": [], "reconstruction": []}
    lengths = stored(varied, "val", "num_frames").tolist()
    assert min(lengths) < CONTEXT < max(lengths)
    for sequence, length in zip(frames, lengths, strict=True):
        context = sequence[None, : min(CONTEXT, length)]
        following = sequence[CONTEXT : min(CONTEXT + PREDICT, length)]
        said = model.reconstruct(context)[0]
        errors["reconstruction"] += (said - context[0] / 255).square().sum((1, 2)).tolist()
        if len(following):
            said = model.generate(context, len(following))[0]
            errors["prediction"] += (said - following / 255).square().sum((1, 2)).tolist()
    found = look_at(model, source, config, 9, World())
    for head, values in errors.items():
        assert found[head]["mse"] == pytest.approx(np.mean(values), rel=1e-5)


def test_only_sequences_that_nobody_can_learn_from_are_refused(folder, varied):
    source = open_source(varied, "val")  # of 2 to 8 frames
    for fields, is_short in (
        (("context=4", "predict=4"), True),
        (("context=7", "predict=10"), True),
        (("context=2", "predict=10", "decoders=reconstruct"), False),
    ):
        check_frames(source, tiny_config(*fields))
        assert has_short(source, tiny_config(*fields)) == is_short
    with pytest.raises(InputError, match="have 8 frames at most, context 8 and predict 3 need 11;"):
        check_frames(source, tiny_config("context=8"))
    with pytest.raises(InputError, match=r"have 8 frames, context needs 9; lower it$"):
        check_frames(source, tiny_config("context=9", "decoders=reconstruct"))
    equal = open_source(make_data(folder / "equal", {"val": 2}), "val")
    check_frames(equal, tiny_config("context=5", "predict=3"))
    assert not has_short(equal, tiny_config("context=5", "predict=3"))
    with pytest.raises(InputError, match="have 8 frames, context 5 and predict 4 need 9; lower t"):
        check_frames(equal, tiny_config("context=5", "predict=4"))
