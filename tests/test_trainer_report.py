"""Pictures have the sizes and the content they promise; the page stands alone."""

import csv
import io
import json
import re
from html import escape

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL import Image
from trainer_data import (
    CONTEXT,
    PREDICT,
    error_line,
    make_data,
    mmtrain,
    stored,
    tiny_config,
    tiny_options,
)

from mmgen.cli import main as mmgen_main
from trainer import load_model
from trainer.log import read_jsonl
from trainer.model import VideoAutoencoder
from trainer.player import rollout_animation, with_boxes
from trainer.published import PUBLISHED
from trainer.result_files import as_png
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


def read_page(path):
    """Return a page's text without its pictures."""
    page = path.read_text(encoding="utf-8")
    assert page.count("data:image/png") == page.count("<img")
    return re.sub(r"data:image/\w+;base64,[\w+/=]+", "", page)


@pytest.fixture(scope="module")
def evaluated(folder):
    """Return the result of an evaluation of the run, and the page written after it."""
    words = ("evaluate", folder / RUN, folder / "data", "--out-of-domain", "--json")
    result = json.loads(mmtrain(*words).stdout)
    said = mmtrain("report", folder / RUN, "-o", folder / "page.html").stdout
    files = folder / "page_files"
    assert said == f"{folder}/page.html: report of {folder / RUN}; its plots are in {files}\n"
    return result, read_page(folder / "page.html")


def test_what_has_not_been_evaluated_is_said_to_be_missing(folder, tmp_path):
    run = tmp_path / "run"
    mmtrain("fit", folder / "data", "--run", run, *tiny_options("steps=1"))
    mmtrain("report", run, "-o", tmp_path / "page.html")
    page = read_page(tmp_path / "page.html")
    assert page.count("run <code>mmtrain evaluate</code> on this run first") == 2
    assert "<code>mmtrain probe RUN DATA</code>" in page
    assert "<code>mmtrain difficulty RUN" in page


def test_the_page_stands_alone(evaluated):
    page = evaluated[1]
    addresses = re.findall(r"""(?:src|srcset|action|href)\s*=\s*["']([^"'> ]*)""", page)
    assert addresses
    assert all(not a or a.startswith("#") or a == "data:," for a in addresses)
    assert not re.search(r"https?:|@import|url\(|fetch|XMLHttp|<iframe|<script src", page)
    assert "default-src 'none'; img-src data:" in page


def test_the_page_holds_the_numbers(folder, evaluated):
    result, page = evaluated
    tables = [result["prediction"], result["reconstruction"], *result["baselines"].values()]
    numbers = [table[name] for table in tables for name in ("mse", "mae", "ce")]
    for number in (*numbers, result["entropy_floor"]):
        assert f"<td>{'infinite' if number is None else f'{number:.1f}'}" in page
    parameters = sum(value.numel() for value in load_model(folder / RUN, "cpu").parameters())
    assert f"{parameters:,} parameters, 3 steps of\n4 sequences" in page
    assert '<th scope="row">hidden</th><td>6</td><td>model</td>' in page
    assert "7 sequences of the split test" in page
    assert f"Trained on the split train of {folder}/data.</p>" in page
    assert "generated here" in page
    assert '<th scope="row">canvas</th><td>30x34</td>' in page
    assert '<th scope="row">speed</th>' not in page  # the default
    assert "Published numbers are of 10 grey frames" in page
    other = result["out_of_domain"]["3 digits"]["prediction"]["mse"]
    assert f'<th scope="row">3 digits</th><td>{other:.1f}</td>' in page


def test_nothing_from_a_file_becomes_markup(folder, evaluated):
    page = evaluated[1]
    assert "<h1>&lt;b&gt;run</h1>" in page
    assert "<b>" not in page
    run = folder / RUN
    (run / "probe").mkdir()
    (run / "probe.json").write_text('{"<script>": {"<i>x": "</td><img src=x>"}}')
    (run / "probe" / "<u>.png").write_bytes(as_png(Figure((1, 1))))
    mmtrain("report", run, "-o", folder / "probed.html")
    page = read_page(folder / "probed.html")
    assert "&lt;script&gt; / &lt;i&gt;x" in page
    assert "&lt;/td&gt;&lt;img src=x&gt;" in page
    assert "&lt;u&gt;" in page
    assert not re.search("<u>|<i>|<img src=x", page)
    assert page.count("<script>") == 1


def test_every_plot_stands_alone_with_its_data(folder, evaluated):
    result, _ = evaluated
    files = folder / "page_files"
    drawn = {path.stem for path in files.glob("*.png")}
    told = {path.stem for path in files.glob("*.csv")}
    animations = {"samples", "rollout_best", "rollout_median", "rollout_worst"}
    assert drawn - told == animations
    assert not told - drawn
    assert {"loss", "horizon_mse", "horizon_ce", "data_speed", "weights_in_forget"} < told
    assert {"activity", "latent", "weights_out_predict", "sequences_overlap"} < told
    with (files / "horizon_mse.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name, table in (("model", result["prediction"]), *result["baselines"].items()):
        assert [float(row[name]) for row in rows] == table["per_frame"]["mse"]
    with (files / "loss.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    lines = read_jsonl(folder / RUN / "metrics.jsonl")
    logged = [line["prediction_loss"] for line in lines if "loss" in line]
    found = [float(row["mse"]) for row in rows if row["decoder"] == "prediction"]
    np.testing.assert_allclose(found, np.array(logged) * 30 * 34)


def test_a_sheet_has_a_row_a_panel_and_a_column_a_frame(folder):
    torch.manual_seed(0)
    model = VideoAutoencoder(tiny_config().model, (30, 34))
    rollout = roll_out_sequence(model, open_source(folder / "data", "test"), 2, CONTEXT, PREDICT)
    animation = rollout_animation("a", "A", "an a", rollout, model.config)
    assert animation.panels == ("context", "truth", "reconstruction", "prediction")
    with Image.open(io.BytesIO(animation.sheet)) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (4 * 30, (CONTEXT + PREDICT) * 34)
    for row, frames in enumerate(
        (rollout.context, rollout.truth, rollout.reconstruction, rollout.prediction)
    ):
        for t, frame in enumerate(frames):
            shown = pixels[30 * row : 30 * row + 30, 34 * t : 34 * t + 34]
            np.testing.assert_array_equal(shown, frame)


def test_boxes_lie_on_the_edges_of_the_digits(folder):
    frames = stored(folder / "data", "test")[0]
    box = stored(folder / "data", "test", "box")[0]
    drawn = with_boxes(frames, {"box": box})
    assert drawn.shape == (*frames.shape, 3)
    is_changed = (drawn != frames[..., None]).any(-1)
    for t in range(len(frames)):
        edges = np.zeros(frames.shape[1:], bool)
        for y0, x0, y1, x1 in box[t]:
            edges[y0:y1, x0:x1] = True
        inner = np.zeros_like(edges)
        for y0, x0, y1, x1 in box[t]:
            inner[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = True
        assert not is_changed[t][~edges].any()
        assert is_changed[t][edges & ~inner].all()
    absent = np.full_like(box, -1)
    np.testing.assert_array_equal(with_boxes(frames, {"box": absent})[..., 1], frames)
    np.testing.assert_array_equal(with_boxes(frames, {})[..., 2], frames)


@pytest.mark.parametrize(
    "fields",
    [
        ("decoders=reconstruct", "cell=gru"),
        ("decoders=predict", "output=sigmoid", "loss=ce", "loss_reduction=sum", "cell=peephole"),
    ],
)
def test_the_page_is_written_for_a_model_with_one_decoder(folder, tmp_path, fields):
    run, page = tmp_path / "run", tmp_path / "page.html"
    mmtrain("fit", folder / "data", "--run", run, *tiny_options("steps=2", *fields))
    mmtrain("evaluate", run, folder / "data")
    mmtrain("report", run, "-o", page)
    head = "reconstruction" if "reconstruct" in fields[0] else "prediction"
    rows = re.findall(r'<tr class="model"><th scope="row">(\w+)<', read_page(page))
    assert rows == [head]
    assert (tmp_path / "page_files" / "activity.png").exists() == (head == "prediction")
    sums = [line for line in read_jsonl(run / "metrics.jsonl") if "loss" in line]
    with (tmp_path / "page_files" / "loss.csv").open() as file:
        first = next(csv.DictReader(file))
    factor = 30 * 34 if head == "reconstruction" else 1 / (4 * PREDICT)
    metric = "mse" if head == "reconstruction" else "ce"
    assert float(first[metric]) == pytest.approx(factor * sums[0][f"{head}_loss"])


def test_colour_short_sequences_and_somebody_elses_data_are_reported(tmp_path):
    """An imported set has no annotations: nothing is counted but brightness, no box is drawn."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "frames.npy", rng.integers(0, 256, (6, 8, 30, 30, 3), np.uint8))
    arguments = ["--split", "train=4,test=2", "--axes", "NTHW"]
    CliRunner().invoke(
        mmgen_main,
        ["import", f"{tmp_path}/frames.npy", f"{tmp_path}/data", *arguments],
        catch_exceptions=False,
    )
    run = tmp_path / "run"
    mmtrain("fit", tmp_path / "data", "--run", run, *tiny_options("steps=1"))
    mmtrain("evaluate", run, tmp_path / "data")
    mmtrain("report", run, "-o", tmp_path / "page.html")
    names = {path.stem for path in (tmp_path / "page_files").glob("data_*.csv")}
    assert names == {"data_brightness"}
    assert '<th scope="row">origin</th><td>imported</td>' in read_page(tmp_path / "page.html")


def test_published_numbers_stand_beside_the_published_task_only(tmp_path):
    run = tmp_path / "run"
    fields = ("steps=1", "context=10", "predict=10", "hidden=2", "layers=1", "batch_size=2")
    mmtrain("fit", "live:srivastava", "--run", run, *tiny_options(*fields, "eval_sequences=1"))
    mmtrain("evaluate", run, "live:srivastava?seed=4", "--sequences", 2)
    mmtrain("report", run, "-o", tmp_path / "page.html")
    page = read_page(tmp_path / "page.html")
    assert "The test set of this page is: generated here." in page
    for row in PUBLISHED:
        assert re.search(
            rf'<th scope="row">{re.escape(escape(row.method, quote=False))}</th>', page
        )
    assert '<th scope="row">origin</th><td>generated here, seed 4</td>' in page


def test_a_place_that_cannot_be_written_is_refused(folder, tmp_path):
    (tmp_path / "page_files").touch()
    said = error_line("report", folder / RUN, "-o", tmp_path / "page.html", code=2)
    where = f"{tmp_path}/page_files"
    assert said == f"{where}: is no folder, and the plots go there; name another page"
    said = error_line("report", folder / RUN, "-o", tmp_path / "nothing" / "page.html", code=2)
    assert said == f"{tmp_path}/nothing: is no folder; make it first"
    said = error_line("report", folder / RUN, "-o", tmp_path, code=2)
    assert said == f"{tmp_path}: is a folder; name a file for the page"
    assert [path.name for path in tmp_path.iterdir()] == ["page_files"]
