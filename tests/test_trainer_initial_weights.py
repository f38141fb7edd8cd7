"""First weights: of files, refused by the first field that differs; read-outs bright as data."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from trainer_data import assert_same, error_line, make_data, stored, tiny_config, tiny_options

from trainer.build import build_model
from trainer.checkpoint import list_checkpoints, load_checkpoint
from trainer.errors import InputError
from trainer.initial_weights import load_weights, mean_brightness
from trainer.loop import fit
from trainer.source import open_source


class TutorialEncoder(nn.Module):
    """The modules of the 2020 tutorial, by the names that its state dict has."""

    def __init__(self, num_values, hidden, layers):
        super().__init__()
        self.lstm = nn.LSTM(num_values, hidden, layers, batch_first=True)


class TutorialDecoder(TutorialEncoder):
    def __init__(self, num_values, hidden, layers):
        super().__init__(num_values, hidden, layers)
        self.fc = nn.Linear(hidden, num_values)


class TutorialModel(nn.Module):
    def __init__(self, num_values=12, hidden=6, layers=2):
        super().__init__()
        self.encoder = TutorialEncoder(num_values, hidden, layers)
        self.reconstruct_decoder = TutorialDecoder(num_values, hidden, layers)
        self.predict_decoder = TutorialDecoder(num_values, hidden, layers)


def make_model(*fields, frame_shape=(3, 4)):
    torch.manual_seed(5)
    return build_model(tiny_config(*fields).model, frame_shape)


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel, lambda m: nn.Sequential(m)])
def test_the_tutorials_state_dict_fits_behind_any_prefix(tmp_path, wrap):
    tutorial = TutorialModel()
    torch.save(wrap(tutorial).state_dict(), tmp_path / "model.bin")
    model = make_model()
    load_weights(model, tmp_path / "model.bin")
    assert_same(dict(model.state_dict()), dict(tutorial.state_dict()))
    encoded = tutorial.encoder.lstm(frames := torch.rand(2, 4, 12))[1]
    read_out = tutorial.predict_decoder.fc
    first, _ = tutorial.predict_decoder.lstm(torch.zeros(2, 1, 12), encoded)
    torch.testing.assert_close(model(frames, 1).prediction, read_out(first))


@pytest.mark.parametrize(
    ("there", "here", "line"),
    [
        ("hidden=5", "hidden=7", "hidden is 5 in the file, 7 here"),
        ("hidden=5 layers=1", "hidden=7 layers=3", "hidden is 5 in the file, 7 here"),
        ("layers=1", "layers=3", "layers is 1 in the file, 3 here"),
        ("decoders=predict", "", "decoders is predict in the file, reconstruct,predict here"),
        ("", "decoders=reconstruct", "decoders is reconstruct,predict in the file, reconstruct h"),
        ("cell=gru", "", "cell is gru in the file, lstm here"),
        ("", "cell=rnn", "cell is lstm in the file, rnn here"),
        ("", "cell=peephole", "cell is lstm in the file, peephole here"),
        ("decoder_input=unconditional", "", "decoder_input is unconditional in the file, one that"),
        ("", "decoder_input=unconditional", "decoder_input is one that reads in the file, uncond"),
    ],
)
def test_weights_of_another_form_are_refused_by_the_first_field(tmp_path, there, here, line):
    torch.save(make_model(*there.split()).state_dict(), tmp_path / "model.bin")
    model = make_model(*here.split())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=re.escape(f"model.bin: {line}")):
        load_weights(model, tmp_path / "model.bin")
    assert_same(dict(model.state_dict()), before)


def test_weights_of_other_frames_or_names_are_refused(tmp_path):
    path = tmp_path / "model.bin"
    torch.save(make_model(frame_shape=(5, 4)).state_dict(), path)
    with pytest.raises(InputError, match="values of a frame is 20 in the file, 12 here; set it so"):
        load_weights(make_model(), path)
    weights = make_model().state_dict()
    bias = weights.pop("predict_decoder.fc.bias")
    torch.save(weights, path)
    with pytest.raises(InputError, match=r"fc\.bias is absent in the file, \(12,\) here"):
        load_weights(make_model(), path)
    torch.save(weights | {"predict_decoder.fc.bias": bias[:3]}, path)
    with pytest.raises(InputError, match=r"fc\.bias is \(3,\) in the file, \(12,\) here"):
        load_weights(make_model(), path)
    torch.save({"weight": bias}, path)
    with pytest.raises(InputError, match=r"model\.bin: hidden is None in the file, 6 here"):
        load_weights(make_model(), path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"no weights"),
        lambda path: path.write_bytes(b""),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({}, path),
        lambda path: torch.save({"model": {}}, path),
        lambda path: torch.save({"weight": "a word"}, path),
        lambda path: torch.save(TutorialModel(), path),  # a module is code
    ],
)
def test_what_is_no_state_dict_is_refused_in_one_line(tmp_path, write):
    write(tmp_path / "model.bin")
    with pytest.raises(
        InputError, match=r"model\.bin: is neither a checkpoint nor a state dict"
    ) as e:
        load_weights(make_model(), tmp_path / "model.bin")
    assert "\n" not in str(e.value)
    with pytest.raises(
        InputError, match=r"none\.bin: cannot be read \(No such file or directory\)"
    ):
        load_weights(make_model(), tmp_path / "none.bin")


def test_a_run_begins_from_a_checkpoint_and_remembers_which(tmp_path):
    data = make_data(tmp_path / "data")
    fit(tiny_config("steps=2", "ema=0.5"), data, tmp_path / "old", quiet=True)
    (path,) = list_checkpoints(tmp_path / "old")
    still, run = tiny_config("steps=1", "lr=1e-30", "seed=9"), tmp_path / "new"
    out_of_time = fit(still, data, run, init_from=path, max_time_s=1e-9, quiet=True)
    assert (out_of_time.step, list_checkpoints(run)) == (0, [])
    fit(still, data, run, resume=True, quiet=True)  # it knows where its weights are
    (new,) = list_checkpoints(run)
    average = load_checkpoint(path)["optimizer"]["average"]
    assert_same(dict(load_checkpoint(new)["model"]), dict(average))

    command = ("fit", data, "--run", tmp_path / "other", "--init-from", path)
    line = error_line(*command, *tiny_options("steps=1", "hidden=7"), code=2)
    assert line == f"{path}: hidden is 6 in the file, 7 here; set it so, or take another"
    assert not (tmp_path / "other").exists()


class Black:
    """Two sequences of nothing."""

    count, sequence_shape = 2, (5, 3, 4)

    def read(self, indices, out):
        out[:] = 0
        return np.full(len(indices), 5, np.int32)


def test_read_outs_begin_as_bright_as_the_frames_that_exist(tmp_path):
    data = make_data(tmp_path / "data", {"train": 9}, fields=("canvas=30", "frames=2..8"))
    frames, counts = stored(data, "train"), stored(data, "train", "num_frames")
    expected = np.concatenate([f[:n] for f, n in zip(frames, counts, strict=True)]).mean() / 255
    source = open_source(data, "train")
    assert mean_brightness([(source, 1.0)]) == pytest.approx(expected)
    assert mean_brightness([(Black(), 1.0)]) == pytest.approx(1e-3)  # 0 has no logit
    mixed = mean_brightness([(source, 3.0), (Black(), 1.0)])
    assert mixed == pytest.approx(0.75 * expected)

    fields = ("steps=1", "lr=1e-30", "batch_size=3", "output=sigmoid", "output_bias=mean")
    fit(tiny_config(*fields), data, tmp_path / "run", quiet=True)
    weights = load_checkpoint(list_checkpoints(tmp_path / "run")[0])["model"]
    for head in ("reconstruct", "predict"):
        bias = weights[f"{head}_decoder.fc.bias"]
        torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, expected))
