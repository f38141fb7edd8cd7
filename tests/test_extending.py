"""What `docs/extending.md` adds works everywhere, and each row may stand in the file it is for."""

import csv
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_readme import ROOT, blocks_of
from trainer_data import mmtrain, tiny_options

import mmgen
from mmgen import motions, presets
from mmgen.cli import main
from trainer import metrics, scoring
from trainer.experiment.config import score_places

PAGE = ROOT / "docs" / "extending.md"
TABLES = {"crowd": presets.PRESETS, "zigzag": motions.MOTIONS, "gdl": metrics.METRICS}
FILES = {"crowd": presets, "zigzag": motions, "gdl": metrics}


def block_about(name):
    (block,) = (block for block in blocks_of(PAGE, "python") if f'["{name}"] =' in block)
    return block


@pytest.fixture(scope="module")
def added():
    """Add what the page adds, for a while; return what its blocks define."""
    before = {name: dict(table) for name, table in TABLES.items()}
    found = {"__name__": "mine"}
    for block in blocks_of(PAGE, "python"):
        exec(compile(block, PAGE.name, "exec"), found)
    yield found
    for name, table in TABLES.items():
        table.clear()
        table.update(before[name])


@pytest.fixture(scope="module")
def run(added, tmp_path_factory):
    """Return a run that was trained and evaluated on zigzagging crowds.

    Beside it lie the data, and what was printed.
    """
    folder = tmp_path_factory.mktemp("extending")
    data, run = folder / "data", folder / "run"
    sizes = ["--train", 8, "--val", 2, "--test", 5, "--workers", 1]
    fields = ["--set", "canvas=48", "--set", "frames=8", "--set", "motion=zigzag"]
    words = ["generate", data, "--preset", "crowd", *fields, *sizes]
    CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    mmtrain("fit", data, "--run", run, *tiny_options("steps=2"))
    (folder / "printed.txt").write_text(mmtrain("evaluate", run, data).stdout)
    return run


def test_generator_knows_a_new_preset_and_motion(run, run_mmgen, tmp_path):
    data = run.parent / "data"
    assert json.loads((data / "manifest.json").read_text())["config"]["motion"] == "zigzag"
    assert run_mmgen("presets").stdout.endswith("crowd        eight small digits\n")
    for command in (["info", data], ["stats", data], ["verify", data, "--regrow", "all"]):
        run_mmgen(*command)
    for source in ([data], ["--preset", "crowd", "--set", "motion=zigzag"]):
        run_mmgen("preview", *source, "--overlay", "--index", 0, "-o", tmp_path / "a.png")


def test_a_zigzag_turns_by_right_angles_every_period_and_bounces(added):
    config = mmgen.GeneratorConfig(motion="zigzag", period=3, rounding="subpixel", canvas=400)
    block = mmgen.render(config, 5)
    before, after = (block.velocity[:, part].astype(float) for part in (np.s_[:-1], np.s_[1:]))
    across = before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]
    turned = abs((before * after).sum(-1)) < 1e-3
    is_free = ~block.bounced[:, 1:]
    expected = np.broadcast_to((np.arange(1, 20) % 3 == 0)[:, None], turned.shape)
    np.testing.assert_array_equal(turned[is_free], expected[is_free])
    right = np.sign(across)[:, 2], np.sign(across)[:, 5]
    free = is_free[:, 2] & is_free[:, 5]
    assert free.any()
    assert (right[0] == -right[1])[free].all()
    np.testing.assert_allclose(np.linalg.norm(after, axis=-1), 3.6, rtol=1e-6)


def test_trainer_knows_a_new_metric_and_motion(run, tmp_path):
    told = json.loads((run / "evaluation.json").read_text())
    assert told["prediction"]["gdl"] > 0 == told["baselines"]["known dynamics"]["gdl"]
    low, high = told["prediction"]["interval"]["gdl"]
    assert low <= told["prediction"]["gdl"] <= high
    assert len(told["prediction"]["per_frame"]["gdl"]) == 3
    for name, column in (("sequences", "prediction_gdl"), ("per_frame", "gdl")):
        (header, *_) = csv.reader((run / "evaluation" / f"{name}.csv").read_text().splitlines())
        assert column in header
    printed = (run.parent / "printed.txt").read_text()
    assert "GDL" in printed
    assert "GDL is the difference between the gradients" in " ".join(printed.split())
    page = tmp_path / "page.html"
    mmtrain("report", run, "-o", page)
    assert '<th scope="col">GDL</th>' in page.read_text()
    assert (tmp_path / "page_files" / "horizon_gdl.png").exists()
    assert "prediction.gdl" in score_places()


def test_difficulty_has_a_new_metric_along_a_new_motion(run, tmp_path):
    axis = ["--axis", "motion=bounce,zigzag", "--sequences", 4, "-o", tmp_path / "d"]
    mmtrain("difficulty", run, *axis)
    rows = list(csv.DictReader((tmp_path / "d" / "difficulty.csv").read_text().splitlines()))
    assert [row["motion"] for row in rows] == ["bounce", "zigzag"]
    assert all(float(row["gdl"]) > 0 for row in rows)


def test_the_new_metric_is_its_definition(added):
    said, true = np.random.default_rng(0).random((2, 1, 1, 4, 5))
    expected = 0.0
    for y in range(4):
        for x in range(5):
            for dy, dx in ((1, 0), (0, 1)):
                if y + dy < 4 and x + dx < 5:
                    steps = [abs(f[0, 0, y + dy, x + dx] - f[0, 0, y, x]) for f in (said, true)]
                    expected += abs(steps[0] - steps[1])
    judged = metrics.Judged(*(torch.from_numpy(f).flatten(2) for f in (said, true)), (4, 5))
    assert added["gradient_difference"](judged).item() == pytest.approx(expected)


def test_a_metric_of_another_shape_is_named(monkeypatch):
    bad = metrics.Metric("bad", 1, lambda judged: judged.output.mean())
    monkeypatch.setitem(metrics.METRICS, "bad", bad)
    with pytest.raises(ValueError, match=r"metric bad: scored \(\), expected is \(2, 10\)"):
        scoring.score(lambda seen, n: seen[:, -n:] / 255, "live:easy", num_sequences=2)


@pytest.mark.parametrize("name", TABLES)
def test_the_same_lines_may_stand_at_the_end_of_the_file(name, tmp_path):
    module = FILES[name]
    table = next(key for key, value in vars(module).items() if value is TABLES[name])
    lines = re.sub(rf"from {module.__name__} import .*\n", "", block_about(name))
    assert lines != block_about(name)
    path = tmp_path / "appended.py"
    path.write_text(Path(module.__file__).read_text() + "\n\n" + lines)
    assert name in runpy.run_path(str(path), run_name="appended")[table]


def test_sets_of_a_motion_that_is_gone_say_so(run, run_mmgen, monkeypatch):
    monkeypatch.delitem(motions.MOTIONS, "zigzag")
    data = run.parent / "data"
    for command in (["info", data], ["stats", data], ["verify", data]):
        run_mmgen(*command)
    line = run_mmgen("verify", data, "--regrow", 2, code=2).stderr
    assert "'gravity' or 'turn', got 'zigzag'" in line
    assert mmgen.open(data)["test"][3].frames.any()
