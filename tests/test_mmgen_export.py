"""Exports: other people's loaders read them unchanged, and give the frames that are stored."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import MovingMNIST

import mmgen
from mmgen.errors import InputError, MmgenError
from mmgen.export import export_split
from mmgen.imports import import_dataset, open_source


@pytest.fixture(scope="module")
def stored(small_dataset):
    """Return the frames of the split test, uint8 (9, 5, 32, 40); some are shorter than 5."""
    frames = np.stack([sequence.frames for sequence in mmgen.open(small_dataset)["test"]])
    assert not frames.any((2, 3)).all()
    return frames


@pytest.fixture
def imported(tmp_path):
    """Make a data set of given frames uint8 (N, T, H, W), with or without colour."""

    def make(frames):
        np.save(tmp_path / "frames.npy", frames)
        source = open_source(tmp_path / "frames.npy", "NTHW")
        import_dataset(source, tmp_path / "imported", {"train": (0, len(frames))})
        return mmgen.open(tmp_path / "imported")["train"]

    return make


def noise(*shape):
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


def test_torchvision_reads_the_folder_unchanged(run_mmgen, small_dataset, stored, tmp_path):
    told = run_mmgen("export", small_dataset, tmp_path / "a", "--to", "npy").stdout
    assert told == f"{tmp_path}/a/MovingMNIST/mnist_test_seq.npy: 9 sequences of 5 frames\n"
    for split, part in ((None, slice(None)), ("train", slice(3)), ("test", slice(3, None))):
        loaded = MovingMNIST(tmp_path / "a", split=split, split_ratio=3)
        assert len(loaded) == 9
        for n, frames in enumerate(stored):
            assert np.array_equal(loaded[n][:, 0], frames[part])
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "MovingMNIST", "mnist_test_seq.npy"]


def test_a_named_file_holds_time_first(run_mmgen, small_dataset, stored, tmp_path):
    path = tmp_path / "moving_mnist/mnist_test_seq.npy"  # where OpenSTL looks
    path.parent.mkdir()
    run_mmgen("export", small_dataset, path, "--to", "npy", "--split", "test")
    array = np.load(path)
    assert (array.dtype, array.shape) == (np.uint8, (5, 9, 32, 40))
    assert np.array_equal(array.swapaxes(0, 1), stored)
    run_mmgen("export", small_dataset, tmp_path / "b.npy", "--to", "npy", "--sequences", 2)
    assert np.array_equal(np.load(tmp_path / "b.npy"), array[:, :2])


def predrnn_batch(data):
    """Read all sequences as thuml/predrnn-pytorch does: (N, T, H, W, C), input before output."""
    raw, clips = data["input_raw_data"], data["clips"]
    halves = [[raw[start : start + length] for start, length in half] for half in clips]
    return np.moveaxis(np.concatenate([np.stack(half) for half in halves], 1), 2, -1)


def test_predrnn_reads_the_npz(run_mmgen, small_dataset, stored, tmp_path):
    out = tmp_path / "moving-mnist-example"
    told = run_mmgen("export", small_dataset, out, "--to", "npz").stdout
    assert told == f"{out}/moving-mnist-test.npz: 9 sequences of 5 frames\n"
    with np.load(out / "moving-mnist-test.npz") as data:
        assert sorted(data) == ["clips", "dims", "input_raw_data"]
        assert (data["clips"].dtype, data["dims"].dtype) == (np.int32, np.int32)
        assert data["dims"].tolist() == [[1, 32, 40]]
        assert data["clips"][:, 3].tolist() == [[15, 2], [17, 3]]
        raw = data["input_raw_data"]
        assert (raw.dtype, raw.shape) == (np.float32, (45, 1, 32, 40))
        assert (raw.min(), raw.max()) == (0, stored.max() / np.float32(255))
        assert np.array_equal(predrnn_batch(data)[..., 0], stored / np.float32(255))


@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("val", "valid")])
def test_the_files_of_predrnn_have_its_names(run_mmgen, small_dataset, tmp_path, split, name):
    run_mmgen("export", small_dataset, tmp_path, "--to", "npz", "--split", split)
    assert [path.name for path in tmp_path.iterdir()] == [f"moving-mnist-{name}.npz"]
    run_mmgen("export", small_dataset, tmp_path / "a.npz", "--to", "npz", "--split", split)
    content = (tmp_path / f"moving-mnist-{name}.npz").read_bytes()
    assert (tmp_path / "a.npz").read_bytes() == content, "equal content is equal bytes"


def test_colour_is_the_last_axis_of_npy_and_the_channels_of_npz(imported, tmp_path):
    frames = noise(4, 3, 5, 6, 3)
    split = imported(frames)
    array = np.load(export_split(split, tmp_path / "a.npy", "npy"))
    assert np.array_equal(array.swapaxes(0, 1), frames)
    with np.load(export_split(split, tmp_path / "a.npz", "npz")) as data:
        assert data["dims"].tolist() == [[3, 5, 6]]
        assert np.array_equal(predrnn_batch(data), frames / np.float32(255))
    with pytest.raises(InputError, match="is in colour, which torchvision would take for width; n"):
        export_split(split, tmp_path / "folder", "npy")
    assert not (tmp_path / "folder").exists()


def test_animations_fill_a_folder_with_the_frames_there_are(run_mmgen, small_dataset, tmp_path):
    out = tmp_path / "gifs"
    out.mkdir()
    told = run_mmgen("export", small_dataset, out, "--to", "gif", "--split", "train").stdout
    assert told == f"{out}: 16 sequences of 5 frames\n"
    assert sorted(path.name for path in out.iterdir()) == [f"train-{n:06d}.gif" for n in range(16)]
    lengths = set()
    for n, sequence in zip(range(16), mmgen.open(small_dataset)["train"], strict=False):
        with Image.open(out / f"train-{n:06d}.gif") as picture:
            assert picture.n_frames == sequence.num_frames
            lengths.add(picture.n_frames)
            shown = np.asarray(picture.convert("L"))[::6, ::6]  # 192 px high
            assert np.array_equal(shown, sequence.frames[0])
    assert len(lengths) > 1
    run_mmgen("export", small_dataset, tmp_path / "one", "--to", "gif", "--sequences", 1)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["test-000000.gif"]


REFUSED = {
    ("npy", "there.npy"): "there.npy: exists already; name another, or delete it",
    ("npy", "no/a.npy"): "no: is no folder; make it first",
    ("npy", "no/a"): "no: is no folder; make it first",
    ("npy", "a.npz"): "a.npz: is no name for npy; end it in .npy, or name a folder",
    ("npz", "a.gif"): "a.gif: is no name for npz; end it in .npz, or name a folder",
    ("npy", "there"): "there: is a file; name a folder, or a file that ends in .npy",
    ("npz", "there.npz"): "there.npz: exists already; name another, or delete it",
    ("gif", "a.gif"): "a.gif: gif makes one file a sequence; name a folder for them",
    ("mp4", "a.MP4"): "a.MP4: mp4 makes one file a sequence; name a folder for them",
    ("gif", "there"): "there: exists already; name an empty or a new folder",
    ("gif", "."): ".: exists already; name an empty or a new folder",
    ("gif", "no/a"): "{here}/no: is no folder; make it first",
    ("npy", "a.npy --sequences 10"): "10 sequences are out of range; test has 9, allowed are 1..9",
    ("npz", "a --sequences 0"): "0 sequences are out of range; test has 9, allowed are 1..9",
    ("npy", "a --split dev"): "{data}: has no split 'dev'; there are: train, val, test",
    (
        "npy",
        "a --to h5",
    ): "Invalid value for '--to': 'h5' is not one of 'npy', 'npz', 'gif', 'mp4'.",
}


@pytest.mark.parametrize(("kind", "arguments"), REFUSED)
def test_bad_input_ends_in_one_line_and_changes_nothing(
    run_mmgen, small_dataset, tmp_path, monkeypatch, kind, arguments
):
    monkeypatch.chdir(tmp_path)
    for name in ("there", "there.npy", "there.npz"):
        (tmp_path / name).write_text("mine")
    told = run_mmgen("export", small_dataset, "--to", kind, *arguments.split(), code=2).stderr
    line = REFUSED[kind, arguments].format(here=tmp_path, data=small_dataset)
    assert told.splitlines()[-1] == f"Error: {line}"
    there = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert there == dict.fromkeys(("there", "there.npy", "there.npz"), "mine")


def test_one_frame_has_no_input_and_output(imported, tmp_path):
    split = imported(noise(2, 1, 5, 6))
    with pytest.raises(InputError, match="has sequences of one frame; npz needs an input and outp"):
        export_split(split, tmp_path / "a.npz", "npz")


LEFT_BY_A_KILL = {
    "npy": "out/MovingMNIST/mnist_test_seq.npy.partial",
    "npz": "out/moving-mnist-test.npz.partial",
    "gif": "out.partial/test-000099.gif",
}


@pytest.mark.parametrize("kind", LEFT_BY_A_KILL)
def test_interrupted_or_killed_the_same_export_goes_on(small_dataset, tmp_path, kind):
    def interrupt(_):
        raise KeyboardInterrupt

    def files():
        return [path for path in tmp_path.rglob("*") if path.is_file()]

    split, out = mmgen.open(small_dataset)["test"], tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        export_split(split, out, kind, progress=interrupt)
    assert not files()
    leftover = tmp_path / LEFT_BY_A_KILL[kind]
    leftover.parent.mkdir(parents=True, exist_ok=True)
    leftover.write_text("half")
    export_split(split, out, kind)
    assert {path.suffix for path in files()} == {f".{kind}"}
    assert len(files()) == (9 if kind == "gif" else 1)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_memory_is_bounded(imported, tmp_path, kind):
    split = imported(np.zeros((400, 4, 256, 256), np.uint8))  # 105 MB
    tracemalloc.start()
    export_split(split, tmp_path / f"a.{kind}", kind)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 90 << 20


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_full_disk_ends_in_one_line(start_python, imported, tmp_path, kind):
    split = imported(noise(40, 4, 32, 32))
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
from mmgen.cli import main
main(sys.argv[1:])
"""
    path = tmp_path / f"a.{kind}"
    arguments = "export", split.address, path, "--to", kind, "--split", "train"
    process = start_python("-c", code, *arguments)
    _, err = process.communicate(timeout=60)
    assert process.returncode == MmgenError.exit_code
    assert err == f"Error: {path}: could not be written (File too large)\n"
    assert not list(tmp_path.glob("a*"))
