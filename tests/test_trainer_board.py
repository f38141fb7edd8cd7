"""What TensorBoard is given, read with its own reader."""

import io
import sys

import pytest
from PIL import Image
from trainer_data import error_line, make_data, mmtrain, tiny_config, tiny_options

from trainer.checkpoint import list_checkpoints
from trainer.log import read_jsonl
from trainer.loop import fit

pytest.importorskip("tensorboard", reason="the extra `tensorboard` is absent")
OFTEN = ("log_every=1", "eval_every=2", "checkpoint_every=2", "dropout=0.3", "ema=0.5")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("board") / "data", {"train": 22, "val": 3})


def read_board(run):
    """Return {tag: [(step, value)]} of the curves and {tag: [(step, bytes)]} of the pictures."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), {"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    curves = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in tags["scalars"]}
    pictures = {
        name: [(e.step, e.encoded_image_string) for e in events.Images(name)]
        for name in tags["images"]
    }
    return curves, pictures


def expected_curves(run):
    """The same from metrics.jsonl."""
    curves = {}
    for line in read_jsonl(run / "metrics.jsonl"):
        step = line.pop("step")
        for head, scores in line.pop("val", {}).items():
            line |= {f"val/{head}/{name}": value for name, value in scores.items()}
        for name, value in line.items():
            curves.setdefault(name, []).append((step, pytest.approx(value, rel=1e-6)))
    return curves


def test_curves_are_those_of_the_metrics_and_change_nothing(data, tmp_path):
    fit(tiny_config("steps=4", *OFTEN), data, tmp_path / "without", quiet=True)
    run = tmp_path / "run"
    fit(tiny_config("steps=4", *OFTEN, "tensorboard=true"), data, run, quiet=True)
    logs = [(path / "metrics.jsonl").read_bytes() for path in (run, tmp_path / "without")]
    assert logs[0] == logs[1]
    assert not (tmp_path / "without" / "tensorboard").exists()
    curves, _ = read_board(run)
    assert curves == expected_curves(run)
    assert {"loss", "lr", "grad_norm", "val/prediction/mse"} <= curves.keys()


@pytest.mark.parametrize("decoders", ["reconstruct,predict", "predict", "reconstruct"])
def test_looks_at_val_show_rollouts(data, tmp_path, decoders):
    fields = ("steps=4", *OFTEN, "tensorboard=true", f"decoders={decoders}")
    fit(tiny_config(*fields), data, tmp_path / "run", quiet=True)
    _, pictures = read_board(tmp_path / "run")
    assert list(pictures) == ["val/sequence 0", "val/sequence 1", "val/sequence 2"]
    for shown in pictures.values():
        assert [step for step, _ in shown] == [2, 4]
        assert shown[0] != shown[1]
        with Image.open(io.BytesIO(shown[0][1])) as picture:
            assert (picture.format, picture.n_frames) == ("GIF", 7)


def test_a_set_with_fewer_frames_than_are_predicted_is_shown_as_far_as_it_goes(tmp_path):
    counts, fields = {"train": 8, "val": 1}, ("canvas=30", "frames=5..6")
    data = make_data(tmp_path / "data", counts, fields=fields)
    fit(tiny_config("steps=1", "tensorboard=true"), data, tmp_path / "run", quiet=True)
    ((_, picture),) = read_board(tmp_path / "run")[1]["val/sequence 0"]
    with Image.open(io.BytesIO(picture)) as opened:
        assert opened.n_frames == 6


def test_a_resumed_run_has_no_point_twice(data, tmp_path):
    """A run that had gone further than the checkpoint it resumes from shows only the new steps."""
    fields = ("steps=6", *OFTEN, "tensorboard=true", "keep_checkpoints=3")
    run, config = tmp_path / "run", tiny_config(*fields)
    fit(config, data, run, quiet=True)
    for newer in list_checkpoints(run)[1:]:
        newer.unlink()
    fit(config, data, run, resume=True, quiet=True)
    assert len(list((run / "tensorboard").iterdir())) == 2
    curves, pictures = read_board(run)
    assert curves == expected_curves(run)
    assert [step for step, _ in curves["loss"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in pictures["val/sequence 0"]] == [2, 4, 6]


def test_without_tensorboard_one_line_says_so_before_any_work(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    command = ("fit", data, "--run", tmp_path / "run", *tiny_options("tensorboard=true"))
    for flags in ((), ("--dry-run",)):
        assert error_line(*command, *flags, code=2) == (
            "tensorboard: is not installed; pip install 'moving-mnist[tensorboard]', or leave "
            "tensorboard=false"
        )
    assert not (tmp_path / "run").exists()
    mmtrain("fit", data, "--run", tmp_path / "run", *tiny_options("steps=1"))
