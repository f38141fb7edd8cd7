"""Pictures have the sizes and the content they promise; the page stands alone."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from trainer_data import (
    CONTEXT,
    PREDICT,
    make_data,
    mmtrain,
    stored,
    tiny_config,
    tiny_options,
)

from trainer import load_model
from trainer.model import VideoAutoencoder
from trainer.rollout import roll_out_sequence, write_rollout
from trainer.source import open_source

RUN = "<b>run"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    make_data(root / "data", fields=("canvas=30x34", "frames=8"))
    mmtrain("fit", root / "data", "--run", root / RUN, *tiny_options("steps=3"))
    return root


def test_a_gif_has_a_picture_a_frame_and_four_panels(folder, tmp_path):
    out = tmp_path / "a.gif"
    said = mmtrain("rollout", folder / RUN, folder / "data", "-o", out, "--index", 2).stdout
    assert said == f"{out}: sequence 2 of test\n"
    with Image.open(out) as picture:
        assert picture.n_frames == CONTEXT + PREDICT
        assert picture.size == (4 * (5 * 34 + 8) + 8, 22 + 5 * 30 + 8)  # enlarged 5 times


def test_a_strip_shows_truth_above_what_the_model_says(folder, tmp_path):
    out = tmp_path / "a.PNG"
    mmtrain("rollout", folder / RUN, folder / "data", "-o", out, "--index", 2)
    with Image.open(out) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * 30 + 2, (CONTEXT + PREDICT) * (34 + 2) + 6)
    clip = torch.from_numpy(stored(folder / "data", "test")[2:3, : CONTEXT + PREDICT])
    model = load_model(folder / RUN, "cpu")
    context = clip[:, :CONTEXT]
    said = torch.cat([model.reconstruct(context), model.generate(context, PREDICT)], 1)
    said = said.clamp(0, 1).mul(255).round().to(torch.uint8)
    for t in range(CONTEXT + PREDICT):
        left = t * 36 + (6 if t >= CONTEXT else 0)
        np.testing.assert_array_equal(pixels[:30, left : left + 34], clip[0, t])
        np.testing.assert_array_equal(pixels[32:, left : left + 34], said[0, t])


def test_colour_stays_colour(tmp_path):
    make_data(tmp_path / "data", fields=("canvas=30", "frames=5..8", "color=random"))
    torch.manual_seed(0)
    model = VideoAutoencoder(tiny_config().model, (30, 30, 3))
    sequences = open_source(tmp_path / "data", "test")
    rollout = roll_out_sequence(model, sequences, 2, CONTEXT, 9)
    assert rollout.truth.shape == (CONTEXT + 9, 30, 30, 3)  # longer than any sequence
    assert not rollout.truth[8:].any()
    for kind in ("gif", "png"):
        write_rollout(tmp_path / f"a.{kind}", rollout)
        with Image.open(tmp_path / f"a.{kind}") as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        assert np.ptp(pixels, axis=2).max() > 50


@pytest.mark.parametrize("decoders", ["reconstruct", "predict"])
def test_a_model_with_one_decoder_shows_nothing_in_place_of_the_other(folder, decoders):
    torch.manual_seed(0)
    model = VideoAutoencoder(tiny_config(f"decoders={decoders}").model, (30, 34))
    rollout = roll_out_sequence(model, open_source(folder / "data", "test"), 2, CONTEXT, PREDICT)
    assert rollout.reconstruction[:CONTEXT].any() == (decoders == "reconstruct")
    assert rollout.prediction[CONTEXT:].any() == (decoders == "predict")
    assert rollout.truth.any(axis=(1, 2)).all()


def test_the_page_stands_alone_and_holds_the_numbers(folder, tmp_path):
    out = tmp_path / "page.html"
    mmtrain("report", folder / RUN, "-o", out)
    assert "run <code>mmtrain evaluate</code> on this run first" in out.read_text()

    result = json.loads(mmtrain("evaluate", folder / RUN, folder / "data", "--json").stdout)
    mmtrain("report", folder / RUN, "-o", out)
    page = out.read_text(encoding="utf-8")
    sources = re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']?([^"'> ]*)""", page)
    assert len(sources) == 5
    assert all(source.startswith("data:image/") for source in sources)
    text = re.sub(r"data:image/\w+;base64,[\w+/=]+", "", page)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link|<iframe", text)
    tables = [result["prediction"], result["reconstruction"], *result["baselines"].values()]
    numbers = [table[name] for table in tables for name in ("mse", "mae", "ce")]
    for number in (*numbers, result["entropy_floor"]):
        assert f"<td>{'infinite' if number is None else f'{number:.1f}'}</td>" in page
    parameters = sum(value.numel() for value in load_model(folder / RUN, "cpu").parameters())
    assert f"{parameters:,} parameters, 3 steps of\n4 sequences" in page
    assert "<h1>&lt;b&gt;run</h1>" in page
    assert "<td>model</td><td>hidden</td><td>6</td>" in page


@pytest.mark.parametrize(
    "fields",
    [
        ("decoders=reconstruct",),
        ("decoders=predict", "output=sigmoid", "loss=ce", "loss_reduction=sum"),
    ],
)
def test_the_page_is_written_for_a_model_with_one_decoder(folder, tmp_path, fields):
    run, page = tmp_path / "run", tmp_path / "page.html"
    mmtrain("fit", folder / "data", "--run", run, *tiny_options("steps=2", *fields))
    mmtrain("evaluate", run, folder / "data")
    mmtrain("report", run, "-o", page)
    rows = re.findall(r"<tr><t[hd][^>]*>(prediction|reconstruction)<", page.read_text())
    assert set(rows) <= {"reconstruction" if "reconstruct" in fields[0] else "prediction"}
