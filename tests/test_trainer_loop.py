"""Training learns; killed anywhere, it goes on as if nothing had been."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import torch
from trainer_data import (
    assert_same,
    damaged,
    error_line,
    make_data,
    mmtrain,
    tiny_config,
    tiny_options,
)

from mmgen.errors import ShardError
from trainer.build import build_model
from trainer.checkpoint import list_checkpoints, load_checkpoint
from trainer.errors import InputError, RunError
from trainer.fused import FusedAutoencoder
from trainer.log import read_jsonl
from trainer.loop import fit
from trainer.model import VideoAutoencoder
from trainer.order import Order
from trainer.schedule import learning_rate

# Whatever a step may draw, keep or cut.
EVERYTHING = (
    "dropout=0.4",
    "input_dropout=0.1",
    "decoder_input=scheduled",
    "truth_steps=12",
    "clip_norm=0.02",
    "ema=0.8",
    "accumulate=2",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("loop") / "data", shard_size=1)


def last_checkpoint(run):
    return load_checkpoint(list_checkpoints(run)[-1])


def last_checkpoint_step(run):
    return int(list_checkpoints(run)[-1].stem.removeprefix("step-"))


def assert_equal_runs(run, undisturbed):
    files = [path / "metrics.jsonl" for path in (run, undisturbed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert_same(last_checkpoint(run), last_checkpoint(undisturbed))


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_run_that_broke_off_goes_on_as_if_nothing_had_been(data, tmp_path, epoch):
    """A sequence that cannot be read ends the run at its turn; then it is whole again."""
    often = ("log_every=1", "eval_every=3", "checkpoint_every=2")
    config = tiny_config("steps=17", "seed=6", "schedule=one-cycle", *EVERYTHING, *often)
    fit(config, data, tmp_path / "undisturbed", quiet=True)

    order = Order((1,) * 22, 4, 6).batches(0, 10).tolist()
    seen = {0, *(index for batch in order[: 5 if epoch else 2] for index in batch)}
    turn, index = next((t, i) for t, batch in enumerate(order) for i in batch if i not in seen)
    assert turn // 5 == epoch
    with damaged(data, "train", index), pytest.raises(ShardError, match=f"train-{index:06d}.h5: "):
        fit(config, data, tmp_path / "run", quiet=True)
    assert last_checkpoint(tmp_path / "run")["step"] in (turn // 2 * 2, turn // 3 * 3)
    for older in list_checkpoints(tmp_path / "run")[:-1]:
        older.write_bytes(b"only the newest is needed")
    fitted = fit(config, data, tmp_path / "run", resume=True, quiet=True)
    assert (fitted.step, fitted.ended, fitted.val["step"]) == (17, "steps", 17)
    assert_equal_runs(tmp_path / "run", tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_process_ended_in_any_way_goes_on_as_if_nothing_had_been(data, tmp_path):
    options = tiny_options("steps=150", *EVERYTHING, "log_every=7", "checkpoint_every=10")
    run = tmp_path / "run"
    ends = ((signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL))
    for last, (end, code) in zip((10, 30, 50), ends, strict=True):
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer", "fit", data, "--run", run, "--resume", *options],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None and (
            not list_checkpoints(run) or last_checkpoint_step(run) < last
        ):
            time.sleep(0.001)
        process.send_signal(end)
        said = process.communicate()[1]
        assert process.returncode == code
        assert said.count("Error: ") == (code == 130)
        if code == 130:
            step = last_checkpoint_step(run)
            assert f"{end.name} ended the run after step {step} of 150; its checkpoint is " in said
    assert 50 <= last_checkpoint_step(run) < 150
    mmtrain("fit", data, "--run", run, "--resume", *options)
    mmtrain("fit", data, "--run", tmp_path / "undisturbed", *options)
    assert_equal_runs(run, tmp_path / "undisturbed")


@contextmanager
def signal_when_begun(run, number):
    """Send this process a signal once a run has written its first line."""

    def send():
        while not is_over.wait(0.001):
            if (run / "metrics.jsonl").is_file() and (run / "metrics.jsonl").stat().st_size:
                os.kill(os.getpid(), number)
                return

    is_over = threading.Event()
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_run_with_a_checkpoint_of_the_step(data, tmp_path, name):
    run = tmp_path / "run"
    command = ("fit", data, "--run", run, *tiny_options("steps=100000", "log_every=1"))
    with signal_when_begun(run, getattr(signal, name)):
        line = error_line(*command, code=130)
    step = read_jsonl(run / "metrics.jsonl")[-1]["step"]
    assert line == (
        f"{name} ended the run after step {step} of 100000; its checkpoint is complete, go on "
        "with --resume"
    )
    assert last_checkpoint_step(run) == step > 0


def test_a_run_out_of_time_ends_with_a_checkpoint_and_goes_on(data, tmp_path):
    config = tiny_config("steps=12", *EVERYTHING, "log_every=1", "eval_every=5")
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    fitted = fit(config, data, run, max_time_s=1e-9, quiet=True)
    assert (fitted.step, fitted.ended, fitted.val) == (0, "max-time", {})
    assert not list_checkpoints(run)
    while fitted.ended == "max-time":
        before = fitted.step
        fitted = fit(config, data, run, resume=True, max_time_s=0.2, quiet=True)
        assert last_checkpoint_step(run) == fitted.step >= before
    assert (fitted.step, fitted.ended) == (12, "steps")
    fit(config, data, undisturbed, quiet=True)
    assert_equal_runs(run, undisturbed)


def test_training_lowers_the_loss_and_says_so(data, tmp_path):
    often = ("log_every=2", "eval_every=20")
    config = tiny_config("hidden=16", "lr=1e-2", "schedule=one-cycle", "steps=61", *often)
    fitted = fit(config, data, tmp_path / "run", quiet=True)
    lines = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    trained = [line for line in lines if "loss" in line]
    assert [line["step"] for line in trained] == [*range(2, 61, 2), 61]
    for line in trained:
        parts = line["reconstruction_loss"] + line["prediction_loss"]
        assert line["loss"] == pytest.approx(parts, rel=1e-6)
        assert line["lr"] == learning_rate(config.optimizer, line["step"] - 1, 61)
    losses = [line["loss"] for line in trained]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    watched = [line for line in lines if "val" in line]
    assert [line["step"] for line in watched] == [20, 40, 60, 61]
    assert watched[-1]["val"]["prediction"]["mse"] == fitted.val["prediction"]["mse"]


def test_val_is_looked_at_and_never_trained_on(data, tmp_path):
    """The same sequences to train on, no val or looked at after each step: the same weights."""
    without = make_data(tmp_path / "without", {"train": 22}, shard_size=1)
    config = tiny_config("steps=7", "dropout=0.4", "eval_every=1")
    assert fit(config, without, tmp_path / "blind", quiet=True).val == {}
    fit(config, data, tmp_path / "seeing", quiet=True)
    assert_same(last_checkpoint(tmp_path / "blind"), last_checkpoint(tmp_path / "seeing"))


def test_the_seed_decides_the_weights(data, tmp_path):
    drawn = []
    for run, seed in (("one", 1), ("same", 1), ("other", 2)):
        fit(tiny_config("steps=1", "lr=1e-12", f"seed={seed}"), data, tmp_path / run, quiet=True)
        drawn.append(last_checkpoint(tmp_path / run)["model"]["encoder.lstm.weight_ih_l0"])
    assert torch.equal(drawn[0], drawn[1])
    assert (drawn[0] - drawn[2]).abs().mean() > 0.1


def test_steps_that_are_not_finite_are_skipped_counted_and_end_the_run(data, tmp_path):
    run, fields = tmp_path / "run", ("lr=1e30", "steps=40", "max_skipped=5", "log_every=1")
    line = error_line("fit", data, "--run", run, *tiny_options(*fields), code=1)
    assert line.startswith(
        "step 6: loss or gradient was not finite 5 steps in a row; start again with a lower lr or "
    )
    lines = read_jsonl(run / "metrics.jsonl")
    assert [line.get("skipped") for line in lines] == [None, 1, 2, 3, 4, 5]
    assert [line["loss"] is None for line in lines] == [False, True, True, True, True, True]
    assert not list_checkpoints(run)


def test_a_look_at_val_that_is_not_finite_ends_the_run(data, tmp_path):
    options = tiny_options("lr=1e30", "steps=40", "eval_every=1")
    line = error_line("fit", data, "--run", tmp_path / "run", *options, code=1)
    assert line.startswith("step 1: the prediction error on val is not finite; start again with a ")
    assert not list_checkpoints(tmp_path / "run")


def test_steps_may_grow_where_the_rate_is_constant_and_nowhere_else(data, tmp_path):
    run, often = tmp_path / "run", ("log_every=2", "eval_every=2")
    fit(tiny_config("steps=4", *often), data, run, quiet=True)
    longer = tiny_config("steps=8", *often)
    assert fit(longer, data, run, resume=True, quiet=True).step == 8
    fit(longer, data, tmp_path / "undisturbed", quiet=True)
    assert_equal_runs(run, tmp_path / "undisturbed")

    short, longer = (tiny_config(f"steps={steps}", "schedule=one-cycle") for steps in (1, 2))
    fit(short, data, run, overwrite=True, quiet=True)
    with pytest.raises(InputError, match="cannot be resumed: steps is 1 in the run, asked for is"):
        fit(longer, data, run, resume=True, quiet=True)


def test_what_is_no_run_is_left_alone(data, tmp_path):
    """Not even --overwrite removes a folder that happens to hold a config.json."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"architectures": ["another program's"]}))
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError, match="other: holds something else; name an empty or a new"):
            fit(tiny_config("steps=1"), data, other, quiet=True, **options)
    assert [path.name for path in other.iterdir()] == ["config.json"]
    (other / "config.json").rename(other / "config.json.partial")  # as a killed run leaves it
    assert fit(tiny_config("steps=1"), data, other, quiet=True).step == 1


def test_a_data_set_that_changed_under_a_run_is_refused(tmp_path):
    data, run = make_data(tmp_path / "data"), tmp_path / "run"
    fit(tiny_config("steps=1"), data, run, quiet=True)
    for number, counts, canvas, line in (
        (1, {"train": 22}, 31, r"frames \(30, 30\), the data set now has \(31, 31\)"),
        (2, {"train": 23}, 30, "is not the data set that the saved state is of"),
    ):
        data.rename(tmp_path / f"old-{number}")
        make_data(data, counts, fields=(f"canvas={canvas}", "frames=8"))
        with pytest.raises(InputError, match=line):
            fit(tiny_config("steps=2"), data, run, resume=True, quiet=True)


def test_a_set_made_again_with_another_seed_is_another_set(tmp_path):
    make_data(tmp_path / "data", seed=1)
    fit(tiny_config("steps=2"), tmp_path / "data", tmp_path / "run", quiet=True)
    shutil.rmtree(tmp_path / "data")
    make_data(tmp_path / "data", seed=2)
    with pytest.raises(InputError, match=r"data: is not the data set that the saved state is of$"):
        fit(tiny_config("steps=2"), tmp_path / "data", tmp_path / "run", resume=True, quiet=True)


def test_resuming_a_finished_run_tells_its_last_look(data, tmp_path):
    config = tiny_config("steps=2")
    fitted = fit(config, data, tmp_path / "run", quiet=True)
    assert fit(config, data, tmp_path / "run", resume=True, quiet=True) == fitted
    assert fitted.val["step"] == 2


def test_overwriting_keeps_the_old_run_until_the_new_one_can_begin(data, tmp_path):
    run = tmp_path / "run"
    fit(tiny_config("steps=2"), data, run, quiet=True)
    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"^not enough memory; lower batch_size, "):
        fit(tiny_config("hidden=2000000"), data, run, overwrite=True, quiet=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == kept
    fit(tiny_config("steps=1"), data, run, overwrite=True, quiet=True)
    assert [path.name for path in list_checkpoints(run)] == ["step-00000001.pt"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_that_grows_longer_equals_one_that_was_long(data, tmp_path):
    grid = ("log_every=3", "eval_every=5", "checkpoint_every=2")
    fit(tiny_config("steps=8", *grid), data, tmp_path / "long", quiet=True)
    fit(tiny_config("steps=4", *grid), data, tmp_path / "grown", quiet=True)
    fit(tiny_config("steps=8", *grid), data, tmp_path / "grown", resume=True, quiet=True)
    files = [tmp_path / run / "metrics.jsonl" for run in ("long", "grown")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_sequences_of_different_length_train_alike_in_any_parts(tmp_path):
    data = make_data(tmp_path / "data", fields=("canvas=30", "frames=3..6"))
    losses = []
    for parts in (1, 4):
        config = tiny_config("steps=6", "log_every=1", "lr=1e-2", f"accumulate={parts}")
        fit(config, data, tmp_path / f"run-{parts}", quiet=True)
        lines = read_jsonl(tmp_path / f"run-{parts}" / "metrics.jsonl")
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0]


def test_the_plain_model_trains_as_the_fast_one_does(data, tmp_path):
    config = tiny_config("steps=6", "log_every=1", "eval_every=3", "lr=1e-2", *EVERYTHING)
    runs = [tmp_path / name for name in ("fast", "plain")]
    for run in runs:
        fit(config, data, run, reference=run.name == "plain", quiet=True)
    fast, plain = (read_jsonl(run / "metrics.jsonl") for run in runs)
    for ours, theirs in zip(fast, plain, strict=True):
        assert ours.keys() == theirs.keys()
        if "val" in ours:
            mse = theirs["val"]["prediction"]["mse"]
            assert ours["val"]["prediction"]["mse"] == pytest.approx(mse, rel=1e-4)
        else:
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
    assert type(build_model(config.model, (30, 30))) is FusedAutoencoder
    assert type(build_model(config.model, (30, 30), reference=True)) is VideoAutoencoder
