"""Latents against the model in NumPy, and files of them against h5py and the data set's own."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
import trainer_oracle
from trainer_data import (
    CONTEXT,
    damaged,
    error_line,
    make_data,
    mmtrain,
    stored,
    tiny_config,
    tiny_options,
)

from mmgen import imports
from trainer import load_model
from trainer.build import build_model
from trainer.latents import encode, flattened
from trainer.model import to_values
from trainer.source import open_source

COUNT = 70  # more than a batch of 64, no multiple of it
FIELDS = ("canvas=30", "frames=8", "digits=1..3")
NAMES = ["glyph_index", "index", "label", "latent", "position", "velocity"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("latents")
    make_data(root / "data", {"train": 8, "test": COUNT}, fields=FIELDS)
    mmtrain("fit", root / "data", "--run", root / "run", *tiny_options("steps=2"))
    return root


@pytest.fixture(scope="module")
def file(root):
    out = root / "all.h5"
    said = mmtrain("features", root / "run", root / "data", "-o", out).stdout
    assert said == f"{out}: {COUNT} latents of 24 values, test of {root}/data\n"
    with h5py.File(out) as opened:
        yield opened


def contents(file):
    return {name: file[name][()] for name in file}


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("cell", ["lstm", "peephole", "gru", "rnn"])
def test_a_latent_is_the_state_of_every_layer(root, cell, reference):
    torch.manual_seed(0)
    config = tiny_config(f"cell={cell}", "dropout=0.5").model
    model = build_model(config, (30, 30), reference=reference).double()
    frames = stored(root / "data", "test")[:3, :CONTEXT].reshape(3, CONTEXT, 900) / 255
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    silent = SimpleNamespace(input=None, between=(), output=None, is_shown=None)
    noise = SimpleNamespace(encoder=silent)
    expected = [
        np.concatenate([np.concatenate(layer) for layer in sequence.encode(frames[place])])
        for place in range(3)
        for sequence in [trainer_oracle.Sequence(weights, config.model_dump(), noise, place)]
    ]
    found = flattened(model.encode(torch.from_numpy(frames)))
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-10, atol=1e-12)
    found.sum().backward()
    assert model.encoder.lstm.weight_ih_l0.grad.abs().sum() > 0


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_batches_do_not_matter(root, file, batch_size):
    model = load_model(root / "run", "cpu")
    source = open_source(root / "data", "test")
    batches = list(encode(model, source, CONTEXT, 20, batch_size))
    assert [len(batch) for batch in batches][:2] == [min(batch_size, 20), batch_size][
        : len(batches)
    ]
    np.testing.assert_allclose(torch.cat(batches), file["latent"][:20], rtol=1e-5, atol=1e-6)
    assert not batches[0].requires_grad


def test_a_file_has_latents_of_the_context_alone(root, file):
    context = torch.from_numpy(stored(root / "data", "test")[:, :CONTEXT])
    with torch.no_grad():
        expected = flattened(load_model(root / "run", "cpu").encode(to_values(context)))
    assert file["latent"].dtype == np.float32
    np.testing.assert_allclose(file["latent"], expected, rtol=1e-5, atol=1e-6)


def test_a_file_has_the_truth_of_the_last_frame_of_the_context(root, file):
    assert sorted(file) == NAMES
    for name in ("label", "glyph_index", "index"):
        expected = stored(root / "data", "test", name)
        np.testing.assert_array_equal(file[name], expected)
        assert file[name].dtype == expected.dtype
    for name in ("position", "velocity"):
        expected = stored(root / "data", "test", name)[:, CONTEXT - 1]
        np.testing.assert_array_equal(file[name], expected)
        assert file[name].dtype == np.float32
    assert np.isnan(file["position"][()]).any()
    assert (file["label"][()] == -1).any()


def test_a_file_says_whose_latents_it_has(root, file):
    assert dict(file.attrs) == {
        "format": 1,
        "run": str(root / "run"),
        "checkpoint": "step-00000002.pt",
        "data": str(root / "data"),
        "split": "test",
        "context": CONTEXT,
    }
    assert {file[name].compression for name in file} == {"gzip"}
    assert not list(root.glob("*.partial"))


def test_live_data_have_the_latents_of_stored_ones(root, file):
    out = root / "live.h5"
    address = "live:srivastava?seed=3&" + "&".join(FIELDS)
    mmtrain("features", root / "run", address, "-o", out, "--sequences", 9)
    with h5py.File(out) as live:
        found = contents(live)
    assert sorted(found) == NAMES
    for name, values in found.items():
        np.testing.assert_array_equal(values, file[name][:9], err_msg=name)


def test_what_a_set_does_not_know_is_not_in_the_file(root):
    np.save(root / "frames.npy", stored(root / "data", "test")[:9])
    source = imports.open_source(root / "frames.npy", "NTHW")
    imports.import_dataset(source, root / "imported", {"test": (0, 9)})
    out = root / "imported.h5"
    mmtrain("features", root / "run", root / "imported", "-o", out)
    with h5py.File(out) as opened:
        assert sorted(opened) == ["index", "latent"]
        assert opened["latent"].shape == (9, 24)


def test_a_damaged_set_leaves_an_earlier_file_alone(root):
    folder = make_data(root / "torn", {"test": 3}, fields=FIELDS, shard_size=1)
    out = root / "torn.h5"
    out.write_bytes(b"earlier")
    with damaged(folder, "test", 2):
        error_line("features", root / "run", folder, "-o", out, code=1)
    assert out.read_bytes() == b"earlier"
    assert not list(root.glob("*.partial"))


def test_frames_that_the_model_cannot_read_are_refused(root):
    short = make_data(root / "short", {"test": 2}, fields=("canvas=30", "frames=3..8"))
    line = error_line("features", root / "run", short, "-o", root / "a.h5", code=2)
    assert line == (
        f"{short}: sequences of test have 3 frames, the model reads {CONTEXT}; take longer ones"
    )
    line = error_line("features", root / "run", "live:easy", "-o", root / "a.h5", code=2)
    assert line == "live:easy: frames are (64, 64), the model was trained on (30, 30)"
