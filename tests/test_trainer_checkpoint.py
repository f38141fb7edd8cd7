"""Checkpoints are complete or absent, open without running code, and refuse what they are not."""

import pickle
import resource

import pytest
import torch
from trainer_data import assert_same, tiny_config

from trainer.checkpoint import (
    drop_checkpoints,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    restore_model,
    save_checkpoint,
)
from trainer.errors import InputError, RunError
from trainer.model import VideoAutoencoder
from trainer.optimizer import Updater


def make_checkpoint(step=7, *fields):
    config = tiny_config(*fields)
    torch.manual_seed(step)
    model = VideoAutoencoder(config.model, (3, 4))
    updater = Updater(model, config.optimizer, "fp32")
    model(torch.rand(2, 4, 12), 3).prediction.sum().backward()
    updater.update(1e-3)
    return {
        "format": 1,
        "step": step,
        "model": model.state_dict(),
        "optimizer": updater.state_dict(),
        "stream": {"step": step},
        "config": config.model_dump(),
        "frame_shape": [3, 4],
    }


def names(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_what_was_saved_comes_back_under_the_safe_default(tmp_path):
    checkpoint = make_checkpoint()
    path = save_checkpoint(tmp_path, checkpoint)
    assert names(tmp_path) == ["step-00000007.pt"]
    assert_same(torch.load(path, weights_only=True), checkpoint)
    assert_same(load_checkpoint(path), checkpoint)
    model = restore_model(load_checkpoint(path), "cpu")
    assert_same(model.state_dict(), checkpoint["model"])
    assert not model.training


def test_a_model_that_was_trained_in_tf32_comes_back_where_there_is_none(tmp_path):
    path = save_checkpoint(tmp_path, make_checkpoint(7, "precision=tf32"))
    assert restore_model(load_checkpoint(path), "cpu").product_dtype is None


def test_the_newest_and_the_best_stay(tmp_path):
    for step in (5, 10, 99_999_999, 100_000_000):
        save_checkpoint(tmp_path, make_checkpoint(step))
    drop_checkpoints(tmp_path, 2, best_step=5)
    assert names(tmp_path) == ["step-00000005.pt", "step-100000000.pt", "step-99999999.pt"]
    drop_checkpoints(tmp_path, 2, best_step=None)
    assert names(tmp_path) == ["step-100000000.pt", "step-99999999.pt"]
    (tmp_path / "config.json").touch()
    assert latest_checkpoint(tmp_path).name == "step-100000000.pt"


def test_a_run_that_averages_gives_its_average(tmp_path):
    checkpoint = make_checkpoint(7, "ema=0.5")
    model = restore_model(load_checkpoint(save_checkpoint(tmp_path, checkpoint)), "cpu")
    average = checkpoint["optimizer"]["average"]
    assert_same(dict(model.state_dict()), dict(average))
    name = "encoder.lstm.weight_hh_l0"
    assert not torch.equal(average[name], checkpoint["model"][name])


def test_leftovers_of_a_killed_run_are_no_checkpoints(tmp_path):
    path = save_checkpoint(tmp_path, make_checkpoint(7))
    torn = path.with_name("step-00000008.pt.partial")
    torn.write_bytes(path.read_bytes()[:1000])
    path.with_name("step-best.pt").touch()
    assert list_checkpoints(tmp_path) == [path]
    newer = save_checkpoint(tmp_path, make_checkpoint(8))
    assert list_checkpoints(tmp_path) == [path, newer]
    assert not torn.exists()


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path):
    path = save_checkpoint(tmp_path, make_checkpoint(7))
    good = path.read_bytes()
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, unlimited[1]))
    try:
        with pytest.raises(RunError, match=r"step-00000008\.pt: could not be written"):
            save_checkpoint(tmp_path, make_checkpoint(8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert list_checkpoints(tmp_path) == [path]
    assert path.read_bytes() == good


class Malicious:
    def __reduce__(self):
        return eval, ("exec('raise SystemExit(99)')",)


def written(content):
    return lambda path: path.write_bytes(content)


def truncated(path):
    torch.save(make_checkpoint(), path)
    path.write_bytes(path.read_bytes()[:-2000])


def changed(**values):
    return lambda path: torch.save(make_checkpoint() | values, path)


@pytest.mark.parametrize(
    "write",
    [
        written(b""),
        written(b"no checkpoint at all"),
        written(b"\x80\x02]q\x00e."),  # torch answers with an IndexError
        written(b"\x80\x02J."),  # and with a struct.error
        truncated,
        written(pickle.dumps(Malicious(), 2)),
        lambda path: torch.save(Malicious(), path),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"model": {}}, path),
        changed(model=3),
        changed(config=None),
        lambda path: path.mkdir(),
        lambda path: None,
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, write):
    path = tmp_path / "step-00000001.pt"
    write(path)
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: is no checkpoint")
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_refused(tmp_path):
    checkpoint = make_checkpoint()
    path = save_checkpoint(tmp_path, checkpoint)
    content = bytearray(path.read_bytes())
    weight = next(iter(checkpoint["model"].values())).numpy().tobytes()
    content[content.index(weight[:64])] ^= 1  # torch would load it
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"\.pt: is damaged"):
        load_checkpoint(path)


def test_another_format_is_refused_by_its_number(tmp_path):
    path = save_checkpoint(tmp_path, make_checkpoint() | {"format": 2})
    with pytest.raises(InputError, match=r"\.pt: has format 2, this version reads 1$"):
        load_checkpoint(path)


def test_weights_of_another_size_are_refused():
    checkpoint = make_checkpoint()
    checkpoint["config"]["model"]["hidden"] = 5
    with pytest.raises(
        InputError, match=r"^the checkpoint does not fit its own config: size mismatch"
    ):
        restore_model(checkpoint, "cpu")
