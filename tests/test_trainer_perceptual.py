"""LPIPS of frames, with the package's own metric on a network of random weights."""

import sys
import urllib.error

import numpy as np
import pytest
import torch
from trainer_data import CONTEXT, PREDICT, error_line, make_data, mmtrain, stored, tiny_options

import trainer
from trainer import evaluation
from trainer.perceptual import Perceptual, load_lpips

lpips = pytest.importorskip("lpips", reason="the extra `lpips` is absent")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torchvision's, of arguments

SIDE = 36


@pytest.fixture(scope="module")
def metric():
    torch.manual_seed(0)
    return Perceptual(lpips.LPIPS(net="alex", pnet_rand=True, verbose=False))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("perceptual") / "data"
    return make_data(folder, fields=(f"canvas={SIDE}", "frames=8"))


def test_each_frame_is_scored_clipped_and_as_three_colours(metric):
    torch.manual_seed(1)
    output, target = torch.rand(2, 3, SIDE * SIDE) * 1.4 - 0.2, torch.rand(2, 3, SIDE * SIDE)
    with torch.no_grad():
        found = metric(output, target, (SIDE, SIDE))
        pictures = [
            frames[1, 2].clamp(0, 1).reshape(1, 1, SIDE, SIDE).repeat(1, 3, 1, 1) * 2 - 1
            for frames in (output, target)
        ]
        assert found[1, 2].item() == pytest.approx(metric._network(*pictures).item(), rel=1e-5)
        assert found.shape == (2, 3)
        assert metric(target, target, (SIDE, SIDE)).abs().max() == 0


def test_colours_come_last_in_a_frame(metric):
    torch.manual_seed(2)
    output, target = torch.rand(1, 2, SIDE, SIDE, 3), torch.rand(1, 2, SIDE, SIDE, 3)
    with torch.no_grad():
        found = metric(output.flatten(2), target.flatten(2), (SIDE, SIDE, 3))
        pictures = [frames[0, 1].permute(2, 0, 1)[None] * 2 - 1 for frames in (output, target)]
        assert found[0, 1].item() == pytest.approx(metric._network(*pictures).item(), rel=1e-5)


def test_frames_too_small_for_the_network_have_none(metric):
    assert metric(torch.zeros(2, 3, 900), torch.zeros(2, 3, 900), (30, 30)).isnan().all()


def test_it_is_a_column_where_it_is_asked_for(metric, data, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "load_lpips", lambda: metric)
    frames = stored(data, "test")
    np.save(tmp_path / "p.npy", frames[:, CONTEXT : CONTEXT + PREDICT] / 255)
    words = ("score", tmp_path / "p.npy", data, "--context", CONTEXT)
    shown = mmtrain(*words, "--lpips").stdout
    assert "LPIPS" in shown
    assert "LPIPS" not in mmtrain(*words).stdout
    scored = trainer.score(
        lambda seen, steps: torch.zeros(len(seen), steps, SIDE, SIDE),
        data,
        context=CONTEXT,
        steps=PREDICT,
        lpips=True,
    )
    table = scored.as_json()
    assert table["prediction"]["lpips"] == table["baselines"]["black"]["lpips"] > 0
    assert table["baselines"]["known dynamics"]["lpips"] == 0
    assert scored.frames["prediction"]["lpips"].shape == (7, PREDICT)


def test_the_network_is_that_of_openstl_and_warns_nobody(monkeypatch):
    asked = {}

    class Asked:
        def __init__(self, **options):
            asked.update(options)

    monkeypatch.setattr(lpips, "LPIPS", Asked)
    assert isinstance(load_lpips(), Perceptual)
    assert asked == {"net": "alex", "verbose": False}


def test_what_is_missing_is_one_line(data, tmp_path, monkeypatch):
    run = tmp_path / "run"
    mmtrain("fit", data, "--run", run, *tiny_options("steps=2"))

    def offline(**_):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(lpips, "LPIPS", offline)
    line = error_line("evaluate", run, data, "--lpips", code=2)
    assert line.startswith("lpips: AlexNet cannot be downloaded (<urlopen error no route>); use it")
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert error_line("evaluate", run, data, "--lpips", code=2) == (
        'lpips: is not installed; pip install "moving-mnist[lpips]", or leave it out'
    )
