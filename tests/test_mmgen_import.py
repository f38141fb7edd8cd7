"""Imports: an npy file of frames becomes a data set with equal frames, or one line says why not."""

import hashlib
import json
import os
import signal
import time
import tracemalloc

import numpy as np
import pytest
from shard_data import files

import mmgen
from mmgen import imports
from mmgen.card import data_card, dataset_id
from mmgen.errors import InputError, MmgenError
from mmgen.imports import import_dataset, open_source, parse_splits
from mmgen.verify import find_damage


def noise(*shape):
    return np.random.default_rng(4).integers(0, 256, shape, np.uint8)


@pytest.fixture
def save(tmp_path):
    """Save an array; return the path."""

    def write(array, name="frames.npy"):
        np.save(tmp_path / name, array)
        return tmp_path / name

    return write


def frames_of(data, split):
    return np.stack([sequence.frames for sequence in mmgen.open(data)[split]])


def test_what_is_exported_and_imported_again_is_equal(run_mmgen, small_dataset, tmp_path):
    path, again = tmp_path / "a.npy", tmp_path / "again"
    run_mmgen("export", small_dataset, path, "--to", "npy", "--split", "train")
    told = run_mmgen("import", path, again, "--shard-size", 7).stdout
    size = sum(shard.stat().st_size for shard in again.rglob("*.h5"))
    assert told == f"{again}: 20 sequences in 3 shards, {size / 1e6:.1f} MB\n"
    assert np.array_equal(frames_of(again, "test"), frames_of(small_dataset, "train"))
    for n, sequence in enumerate(mmgen.open(again)["test"]):
        assert (sequence.index, sequence.num_frames, sequence.label) == (n, 5, None)


def test_an_imported_set_says_so_and_can_be_verified(run_mmgen, save, tmp_path):
    out = tmp_path / "a"
    run_mmgen("import", save(noise(3, 5, 6, 7)), out, "--split", "val")
    told = run_mmgen("info", out).stdout
    assert told.startswith(f"{out}: imported by mmgen {mmgen.__version__}\n")
    manifest = mmgen.open(out).manifest
    assert told.splitlines()[1] == f"  id {dataset_id(manifest)}"
    assert told.splitlines()[2].split()[:3] == ["val", "5", "sequences"]
    assert (out / "README.md").read_text() == data_card(manifest)
    assert told.endswith("glyphs unknown\n")
    assert json.loads(run_mmgen("info", out, "--json").stdout)["config"] is None
    imported = "; imported, so there is no config to render them from again"
    assert run_mmgen("verify", out).stdout == f"{out}: 5 sequences hold{imported}\n"
    line = run_mmgen("verify", out, "--regrow", 1, code=2).stderr.splitlines()[-1]
    assert line == f"Error: {out}: was imported; there is no config to render it from"
    shard = out / "val/val-000000.h5"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert list(find_damage(mmgen.open(out), lambda _: None))


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        (None, (4, 9, 6, 7)),
        (None, (4, 9, 6, 7, 3)),
        (None, (30, 9, 2, 2)),
        ("TNHW", (90, 20, 6, 7)),
        ("NTHW", (90, 20, 6, 7)),
        ("NTHW", (5, 4, 6, 7, 3)),
        ("NTHW", (3, 1, 1, 1)),
    ],
)
def test_both_orders_and_colour_are_read(save, tmp_path, axes, shape):
    frames = noise(*shape)
    source = open_source(save(frames), axes)
    import_dataset(source, tmp_path / "a", parse_splits("test", source), shard_size=4)
    expected = frames if axes == "NTHW" else frames.swapaxes(0, 1)
    assert np.array_equal(frames_of(tmp_path / "a", "test"), expected)


def test_splits_are_cut_from_the_start_in_the_order_named(run_mmgen, save, tmp_path):
    frames, out = noise(3, 12, 6, 7), tmp_path / "a"
    told = run_mmgen("import", save(frames), out, "--split", "test=2,train=5,val=1").stdout
    assert told.startswith(f"{out}: 8 of 12 sequences in 3 shards, ")
    by_sequence = frames.swapaxes(0, 1)
    for split, first, last in (("test", 0, 2), ("train", 2, 7), ("val", 7, 8)):
        assert np.array_equal(frames_of(out, split), by_sequence[first:last])
        assert [s.index for s in mmgen.open(out)[split]] == list(range(last - first))
    line = run_mmgen("import", save(frames), out, "--split", "train=5,test=2,val=1", code=2).stderr
    assert "holds a data set of another request (test is [0, 2], asked for is [5, 7])" in line


def test_the_tutorials_protocol_is_told_to_train_on_test_data(
    run_mmgen, save, tmp_path, monkeypatch
):
    path = save(noise(2, 10, 6, 7))
    warning = "split train is test data, as in the tutorial's protocol: "
    told = run_mmgen("import", path, tmp_path / "a", "--split", "train=9,test=1").stdout
    assert told.splitlines()[1:] == [f"{warning}test is cut from the same file"]
    told = run_mmgen("import", path, tmp_path / "b", "--split", "train").stdout
    assert told.count("\n") == 1
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(imports, "PUBLISHED_SHA256", sha256)
    published = f"{path} is the published test set of Srivastava et al. 2015"
    told = run_mmgen("import", path, tmp_path / "c").stdout
    assert told.splitlines()[1:] == [published]
    told = run_mmgen("import", path, tmp_path / "d", "--split", "train").stdout
    assert told.splitlines()[1:] == [published, f"{warning}the file is a test set"]
    told = run_mmgen("import", path, tmp_path / "e", "--split", "train=9,test=1", "--json").stdout
    size = sum(shard.stat().st_size for shard in (tmp_path / "e").rglob("*.h5"))
    assert json.loads(told) == {
        **{"path": f"{tmp_path}/e", "splits": {"train": 9, "test": 1}, "shards": 2, "bytes": size},
        **{"source": {"sha256": sha256, "is_published": True}, "trains_on_test_data": True},
    }


# What is refused.


class Bomb:
    """Writes a file when somebody unpickles it."""

    def __reduce__(self):
        return os.system, ("touch exploded",)


def truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1])


def as_npz(path):
    with path.open("wb") as file:
        np.savez(file, a=noise(2, 3, 4, 5))


def with_header(path, header):
    """Give a file an npy header of one's own."""
    text = header.encode().ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(100))


NO_NPY = "is no npy file; save the array with numpy.save"
SHAPE = "expected is (T, N, H, W), or (T, N, H, W, 3) in colour"
REFUSED = {
    "no such file": (lambda p: p.unlink(), "cannot be read (No such file or directory)"),
    "folder": (lambda p: (p.unlink(), p.mkdir()), "cannot be read (Is a directory)"),
    "text": (lambda p: p.write_text("hello"), NO_NPY),
    "empty": (lambda p: p.write_bytes(b""), NO_NPY),
    "npz": (as_npz, NO_NPY),
    "header cut off": (lambda p: p.write_bytes(p.read_bytes()[:50]), NO_NPY),
    "header of nonsense": (lambda p: with_header(p, "[" * 100), NO_NPY),
    "header of code": (lambda p: with_header(p, "__import__('os').abort()"), NO_NPY),
    "truncated": (
        truncated,
        "has 247 bytes, its header promises 248: truncated or damaged; get it again",
    ),
    "promises a tera": (
        lambda p: with_header(
            p, f"{{'descr': '|u1', 'fortran_order': False, 'shape': (1, {2**40}, 2, 2)}}"
        ),
        f"has 228 bytes, its header promises {2**42 + 128}: truncated or damaged; get it again",
    ),
    "negative shape": (
        lambda p: with_header(
            p, "{'descr': '|u1', 'fortran_order': False, 'shape': (1, -100, -1, 1)}"
        ),
        f"has the shape (1, -100, -1, 1); {SHAPE}",
    ),
    "float": (
        lambda p: np.save(p, np.zeros((2, 3, 4, 5), np.float32)),
        "holds float32, frames are uint8 0..255; save it so: whole numbers 0..255 by "
        "frames.astype(numpy.uint8), floats 0..1 by (255 * frames).round().astype(numpy.uint8)",
    ),
    "objects": (
        lambda p: np.save(p, np.array([Bomb()], object)),
        "holds object, frames are uint8 0..255; save it so: whole numbers 0..255 by "
        "frames.astype(numpy.uint8), floats 0..1 by (255 * frames).round().astype(numpy.uint8)",
    ),
    "three axes": (lambda p: np.save(p, noise(2, 3, 4)), f"has the shape (2, 3, 4); {SHAPE}"),
    "four channels": (
        lambda p: np.save(p, noise(2, 3, 4, 5, 4)),
        f"has the shape (2, 3, 4, 5, 4); {SHAPE}",
    ),
    "nothing": (
        lambda p: np.save(p, noise(2, 0, 4, 5)),
        f"has the shape (2, 0, 4, 5); {SHAPE}",
    ),
    "Fortran order": (
        lambda p: np.save(p, np.asfortranarray(noise(2, 3, 4, 5))),
        "is stored in Fortran order; save numpy.ascontiguousarray of it instead",
    ),
    "sequence first": (
        lambda p: np.save(p, noise(21, 20, 2, 2)),
        "(21, 20, 2, 2) looks like sequences first; say axes NTHW if it is so, TNHW if time is "
        "first",
    ),
    "many sequences first": (
        lambda p: np.save(p, noise(101, 30, 2, 2)),
        "(101, 30, 2, 2) looks like sequences first; say axes NTHW if it is so, TNHW if time is "
        "first",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_of_another_kind_ends_in_one_line(run_mmgen, save, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = save(noise(2, 3, 4, 5))
    spoil, problem = REFUSED[kind]
    spoil(path)
    told = run_mmgen("import", path, tmp_path / "out", code=2)
    assert (told.stdout, told.stderr) == ("", f"Error: {path}: {problem}\n")
    assert {entry.name for entry in tmp_path.iterdir()} <= {"frames.npy"}


ONE_OF = "is neither one of train, val, test nor sequences for each, such as train=9000,test=1000"
BAD_ARGUMENTS = {
    "--split dev": f"split 'dev' {ONE_OF}",
    "--split train=2,train=1": f"split 'train=2,train=1' {ONE_OF}",
    "--split train=0": f"split 'train=0' {ONE_OF}",
    "--split train=-1": f"split 'train=-1' {ONE_OF}",
    "--split train=2,": f"split 'train=2,' {ONE_OF}",
    "--split train=2,test=2": "split 'train=2,test=2' takes 4 sequences, {path} has 3",
    "--shard-size 0": "shard size: 0 is out of range, allowed are 1..1000000",
    "--axes THWN": "Invalid value for '--axes': 'THWN' is not one of 'TNHW', 'NTHW'.",
}


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS)
def test_bad_arguments_end_in_one_line(run_mmgen, save, tmp_path, arguments):
    path = save(noise(2, 3, 4, 5))
    told = run_mmgen("import", path, tmp_path / "out", *arguments.split(), code=2).stderr
    assert told.splitlines()[-1] == f"Error: {BAD_ARGUMENTS[arguments].format(path=path)}"
    assert not (tmp_path / "out").exists()


def test_a_sequence_too_long_for_a_shard_is_refused(tmp_path):
    path = tmp_path / "long.npy"
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (1025, 1, 1024, 1024))  # a sparse file
    array.flush()
    with pytest.raises(InputError, match=r"long\.npy: a sequence has 1074790400 bytes, allowed ar"):
        open_source(path, "TNHW")


@pytest.mark.parametrize("place", ["file", "foreign", "{data}"])
def test_an_out_that_holds_something_else_is_left_alone(
    run_mmgen, save, small_dataset, tmp_path, place
):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/notes.txt").write_text("mine")
    out = tmp_path / place.format(data=small_dataset)
    before = files(out)
    told = run_mmgen("import", save(noise(2, 3, 4, 5)), out, code=2).stderr
    assert told.startswith(f"Error: {out}: ")
    assert told.count("\n") == 1
    assert files(out) == before


def test_another_file_or_shard_size_is_another_request(save, tmp_path):
    def make(array, shard_size=None):
        source = open_source(save(array))
        import_dataset(source, tmp_path / "a", {"test": (0, 3)}, shard_size=shard_size)

    frames = noise(2, 3, 4, 5)
    make(frames)
    before = files(tmp_path / "a")
    with pytest.raises(InputError, match=r"another request \(sha256 is [0-9a-f]{64}, asked for is"):
        make(frames ^ 1)
    with pytest.raises(InputError, match=r"another request \(shard_size is 8192, asked for is 2\)"):
        make(frames, shard_size=2)
    make(frames)
    assert files(tmp_path / "a") == before


# Resuming.


def test_killed_at_any_moment_the_same_command_finishes_the_set(
    start_python, run_mmgen, save, tmp_path
):
    path, out, undisturbed = save(noise(2, 1500, 20, 20)), tmp_path / "a", tmp_path / "b"
    request = "--split", "train=1400,test=100", "--shard-size", 10
    for num_shards in (0, 40):
        process = start_python("-m", "mmgen", "import", path, out, *request)
        until = time.monotonic() + 60
        while not out.exists() or len(list(out.glob("train/*.h5"))) < num_shards:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "manifest.json").exists(), "it was too fast to be killed"
    run_mmgen("import", path, out, *request)
    run_mmgen("import", path, undisturbed, *request)
    assert files(out) == files(undisturbed)
    assert np.array_equal(frames_of(out, "test"), np.load(path).swapaxes(0, 1)[1400:])


@pytest.mark.parametrize("is_committed", [True, False])
def test_a_damaged_shard_is_named_and_made_again(save, tmp_path, caplog, is_committed):
    out, source = tmp_path / "a", open_source(save(noise(2, 6, 4, 5)))
    import_dataset(source, out, {"test": (0, 6)}, shard_size=2)
    before, shard = files(out), out / "test/test-000001.h5"
    if not is_committed:
        (out / "manifest.json").unlink()
    os.truncate(shard, 2000)
    import_dataset(source, out, {"test": (0, 6)}, shard_size=2)
    assert caplog.messages == [f"{shard}: is damaged and is made again"]
    assert files(out) == before


def test_a_file_that_shrinks_meanwhile_is_noticed(save, tmp_path):
    source = open_source(save(noise(2, 6, 4, 5)))
    truncated(source.path)
    with pytest.raises(
        MmgenError, match=r"frames\.npy: changed while it was read; import it again"
    ):
        import_dataset(source, tmp_path / "a", {"test": (0, 6)})
    assert not list(tmp_path.rglob("*.h5*"))


def test_memory_is_bounded(save, tmp_path):
    path = save(np.zeros((4, 800, 256, 256), np.uint8))  # 210 MB
    tracemalloc.start()
    source = open_source(path)
    import_dataset(source, tmp_path / "a", {"test": (0, 800)})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 120 << 20
