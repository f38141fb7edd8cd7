"""Data sets on disk: equal requests give equal bytes, whatever stops them on the way."""

import fcntl
import json
import os
import re
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
from shard_data import files

import mmgen
from mmgen.card import dataset_id
from mmgen.config import parse_config
from mmgen.errors import InputError, MmgenError, ShardError
from mmgen.pipeline import generate_dataset
from mmgen.presets import load_config
from mmgen.request import find_origin, read_manifest
from mmgen.shard.codecs import find_codec
from mmgen.verify import find_damage

COUNTS = {"train": 20, "val": 3, "test": 9}  # as `small_dataset`, seed 5, shards of 7
SHARD = "train/train-000001.h5"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def generate(small_config):
    """Generate the small data set, or what is asked for in its place."""

    def run(out, **changes):
        arguments = {"counts": COUNTS, "seed": 5, "shard_size": 7} | changes
        return generate_dataset(out, small_config, **arguments)

    return run


def test_workers_and_shard_size_change_nothing_but_the_files(small_dataset, generate, tmp_path):
    def content(root):
        dataset = mmgen.open(root)
        sequences = (sequence for split in dataset for sequence in dataset[split])
        return [
            [np.asarray(v).tobytes() for v in vars(sequence).values()] for sequence in sequences
        ]

    for workers, shard_size in product((1, 2), (7, 4096)):
        out = tmp_path / f"{workers}-{shard_size}"
        generate(out, workers=workers, shard_size=shard_size)
        assert content(out) == content(small_dataset)
    generate(tmp_path / "other", seed=6)
    assert content(tmp_path / "other") != content(small_dataset)


def test_equal_requests_give_equal_bytes(small_dataset, generate, tmp_path):
    generate(tmp_path / "again", workers=2)
    assert files(tmp_path / "again") == files(small_dataset)


def test_the_folder_holds_what_the_format_says(small_dataset, generate, tmp_path):
    shards = [f"train/train-00000{n}.h5" for n in range(3)] + ["val/val-000000.h5"]
    shards += ["test/test-000000.h5", "test/test-000001.h5"]
    assert sorted(files(small_dataset)) == sorted(
        [*shards, "README.md", "manifest.json", "request.json"]
    )
    manifest = mmgen.open(small_dataset).manifest
    assert json.loads((small_dataset / "request.json").read_text()) == {
        **{"format": 1, "config": manifest.config, "seed": 5, "counts": COUNTS, "shard_size": 7},
        **{"codec": "gzip", "masks": False, "glyphs_sha256": manifest.glyphs["sha256"]},
    }
    generate(tmp_path / "a/b", counts={"test": 2})
    assert names(tmp_path / "a/b") == [*("README.md", "manifest.json", "request.json", "test")]


@pytest.mark.parametrize(
    "lost",
    [
        [],
        ["manifest.json"],
        [SHARD],
        ["manifest.json", SHARD, "val"],
        ["manifest.json", "README.md", "train", "val", "test"],
        ["manifest.json", "README.md", "train", "val", "test", "request.json"],
    ],
)
def test_a_rerun_makes_what_is_missing_and_nothing_else(
    copied_dataset, small_dataset, generate, lost
):
    for name in lost:
        path = copied_dataset / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    is_started = "request.json" not in lost
    leftovers = ["README.md", "manifest.json", SHARD] if is_started else ["request.json"]
    for name in leftovers:  # what a killed writer leaves
        partial = copied_dataset / f"{name}.0f.partial"
        partial.parent.mkdir(exist_ok=True)
        partial.write_text("{")
    if is_started:
        os.link(copied_dataset / "request.json", copied_dataset / "request.json.1a.partial")
    kept = {path: path.stat().st_ino for path in copied_dataset.rglob("*.h5")}
    told, written = [], []

    def progress(amount, num_bytes):
        told.append(amount)
        written.append(num_bytes)

    manifest = generate(copied_dataset, progress=progress)
    assert sum(told) == sum(COUNTS.values())
    made = set(copied_dataset.rglob("*.h5")) - set(kept)
    assert sum(written) == sum(path.stat().st_size for path in made)
    assert manifest == mmgen.open(copied_dataset).manifest
    assert files(copied_dataset) == files(small_dataset)
    assert all(path.stat().st_ino == inode for path, inode in kept.items())


def test_the_manifest_comes_after_the_card(copied_dataset, generate):
    for name in ("README.md", "manifest.json"):
        (copied_dataset / name).unlink()
    (copied_dataset / "README.md").mkdir()  # so that the card cannot be written
    with pytest.raises(MmgenError, match=r"README.md: could not be written \(Is a directory\)"):
        generate(copied_dataset)
    assert not (copied_dataset / "manifest.json").exists()


def test_the_card_is_the_readers_own(copied_dataset, generate):
    card = copied_dataset / "README.md"
    card.write_text("mine")
    generate(copied_dataset)
    assert card.read_text() == "mine"
    card.unlink()
    assert not list(find_damage(mmgen.open(copied_dataset), lambda _: None))
    generate(copied_dataset)
    assert not card.exists()


@pytest.mark.parametrize("change", [{}, {"version": "0.0.9"}])
def test_a_rerun_of_a_complete_set_leaves_its_manifest_alone(
    copied_dataset, edit_manifest, generate, change
):
    edit_manifest(copied_dataset, lambda data: data.update(change))  # also: spaced otherwise
    path = copied_dataset / "manifest.json"
    before = path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns
    assert generate(copied_dataset) == mmgen.open(copied_dataset).manifest
    assert (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns) == before


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_a_bit_of_a_label(path):
    with h5py.File(path, "r") as file:
        start = file["label"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[start] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("is_listed", "damage"),
    [
        (True, flip_a_bit),
        (True, lambda path: os.truncate(path, 5000)),
        (False, flip_a_bit),
        (False, flip_a_bit_of_a_label),
        (False, lambda path: os.truncate(path, 5000)),
    ],
)
def test_a_rerun_makes_a_damaged_shard_again_and_says_so(
    copied_dataset, small_dataset, generate, caplog, is_listed, damage
):
    shard = copied_dataset / SHARD
    damage(shard)
    if not is_listed:
        (copied_dataset / "manifest.json").unlink()
    written = []
    generate(copied_dataset, progress=lambda _, num_bytes: written.append(num_bytes))
    assert caplog.messages == [f"{shard}: is damaged and is made again"]
    assert files(copied_dataset) == files(small_dataset)
    assert sum(written) == shard.stat().st_size


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_rerun_refuses_a_shard_of_another_request(copied_dataset, generate, tmp_path, is_listed):
    generate(tmp_path / "other", seed=6)
    (tmp_path / "other" / SHARD).replace(copied_dataset / SHARD)
    if not is_listed:
        (copied_dataset / "manifest.json").unlink()
    before = files(copied_dataset)
    problem = r"is a shard of another request \(seed is 6, not 5\); delete it, or overwrite the "
    with pytest.raises(ShardError, match=f"{SHARD}: {problem}"):
        generate(copied_dataset)
    assert files(copied_dataset) == before
    (copied_dataset / SHARD).unlink()
    generate(copied_dataset)
    assert mmgen.open(copied_dataset)["train"][7].index == 7


def test_a_failure_leaves_complete_shards_only(generate, tmp_path, small_dataset):
    calls = []

    def fail(amount, _):
        calls.append(amount)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        generate(tmp_path / "a", workers=1, progress=fail)
    found, expected = files(tmp_path / "a"), files(small_dataset)
    assert "manifest.json" not in found
    assert found.items() <= expected.items()
    generate(tmp_path / "a")
    assert files(tmp_path / "a") == expected


# Masks.


@pytest.fixture(scope="session")
def masked_dataset(tmp_path_factory, small_config):
    """Return the small data set with masks; for reading only."""
    path = tmp_path_factory.mktemp("masked") / "data"
    generate_dataset(path, small_config, COUNTS, seed=5, shard_size=7, masks=True)
    return path


def test_masks_are_stored_where_asked_for_and_change_nothing_else(masked_dataset, small_dataset):
    assert json.loads((masked_dataset / "request.json").read_text())["masks"] is True
    masked, plain = mmgen.open(masked_dataset), mmgen.open(small_dataset)
    assert dataset_id(masked.manifest) == dataset_id(plain.manifest)
    for split in plain:
        for with_mask, without in zip(masked[split], plain[split], strict=True):
            assert without.mask is None
            assert with_mask.mask.dtype == np.uint8
            assert ((with_mask.mask > 0) == (with_mask.frames > 0)).all()
            for name in vars(without).keys() - {"mask"}:
                there, here = getattr(with_mask, name), getattr(without, name)
                assert np.asarray(there).tobytes() == np.asarray(here).tobytes()


def test_a_set_with_masks_is_finished_and_made_again_with_them(
    masked_dataset, run_mmgen, generate, tmp_path
):
    out = Path(shutil.copytree(masked_dataset, tmp_path / "copy"))
    for name in ("manifest.json", "README.md", SHARD):
        (out / name).unlink()
    generate(out, masks=True)
    assert files(out) == files(masked_dataset)
    run_mmgen("generate", tmp_path / "again", "--from", masked_dataset, "--masks")
    assert files(tmp_path / "again") == files(masked_dataset)


# Codecs.


@pytest.mark.parametrize("codec", ["zstd", "lz4", "none"])
def test_a_codec_changes_how_frames_are_packed_and_nothing_else(
    small_dataset, run_mmgen, generate, tmp_path, codec
):
    pytest.importorskip("hdf5plugin")
    out = tmp_path / codec
    generate(out, codec=codec)
    assert json.loads((out / "request.json").read_text())["codec"] == codec
    ours, theirs = read_manifest(out), read_manifest(small_dataset)
    assert (ours.codec, theirs.codec, dataset_id(ours)) == (codec, "gzip", dataset_id(theirs))
    with h5py.File(out / SHARD) as shard, h5py.File(small_dataset / SHARD) as gzipped:
        assert gzipped["frames"].compression == "gzip"
        assert shard["frames"].compression != "gzip"
        for name in gzipped.keys() - {"checksum"}:  # of what is stored
            assert np.asarray(shard[name]).tobytes() == np.asarray(gzipped[name]).tobytes()
    run_mmgen("generate", tmp_path / "again", "--from", out)
    assert files(tmp_path / "again") == files(out)


@pytest.mark.parametrize(("field", "codec"), [("noise=0", "gzip"), ("noise=60", "none")])
def test_the_codec_auto_takes_gzip_unless_frames_hardly_shrink(run_mmgen, tmp_path, field, codec):
    sizes = *("--train", 0, "--val", 0, "--test", 3), *("--set", "canvas=32", "--set", "frames=2")
    request = *sizes, "--set", field, "--codec", "auto"
    run_mmgen("generate", tmp_path / "a", *request)
    assert json.loads((tmp_path / "a/request.json").read_text())["codec"] == codec
    assert "all there already" in run_mmgen("generate", tmp_path / "a", *request).stdout


def test_a_codec_without_its_library_is_refused_before_anything_is_made(
    run_mmgen, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    find_codec.cache_clear()
    line = run_mmgen("generate", tmp_path / "a", "--codec", "zstd", code=2).stderr
    assert re.fullmatch(r"Error: codec zstd needs the package zstandard: pip install '.*'\n", line)
    assert not (tmp_path / "a").exists()


# Made again from a manifest.


def test_a_manifest_makes_the_set_again_byte_for_byte(small_dataset, run_mmgen, tmp_path):
    alone = shutil.copy(small_dataset / "manifest.json", tmp_path / "theirs.json")
    for number, origin in enumerate((small_dataset, small_dataset / "manifest.json", alone)):
        run_mmgen("generate", tmp_path / str(number), "--from", origin, "--workers", 2)
        assert files(tmp_path / str(number)) == files(small_dataset)
    told = run_mmgen("generate", tmp_path / "0", "--from", small_dataset).stdout
    assert told.endswith(", all there already\n")
    (tmp_path / "0" / SHARD).unlink()
    told = run_mmgen("generate", tmp_path / "0", "--from", small_dataset).stdout
    assert "there" not in told
    assert files(tmp_path / "0") == files(small_dataset)
    run_mmgen("generate", tmp_path / "cut", "--from", small_dataset, "--shard-size", 99)
    assert names(tmp_path / "cut/train") == ["train-000000.h5"]
    ours, theirs = mmgen.open(tmp_path / "cut"), mmgen.open(small_dataset)
    assert dataset_id(ours.manifest) == dataset_id(theirs.manifest)
    assert ours["train"][19].frames.tobytes() == theirs["train"][19].frames.tobytes()


def test_a_split_without_sequences_is_none_again(generate, run_mmgen, tmp_path):
    generate(tmp_path / "a", counts={"val": 4})
    run_mmgen("generate", tmp_path / "b", "--from", tmp_path / "a")
    assert files(tmp_path / "b") == files(tmp_path / "a")


@pytest.fixture
def letters(tmp_path):
    """Return an npz of 24 glyphs of somebody's own."""
    images = np.random.default_rng(2).integers(0, 256, (24, 8, 8), np.uint8)
    (tmp_path / "theirs").mkdir()
    np.savez(tmp_path / "theirs/letters.npz", images=images, labels=np.arange(24))
    return tmp_path / "theirs/letters.npz"


OF_LETTERS = "--set", "canvas=20x24", "--set", "frames=3", "--train", 5, "--val", 2, "--test", 0


def test_glyphs_of_a_path_are_rendered_again_from_there_or_asked_for(letters, run_mmgen, tmp_path):
    data = tmp_path / "data"
    run_mmgen("generate", data, "--glyphs", letters, *OF_LETTERS)
    done = f"{data}: 7 sequences hold, all of each split rendered again and equal\n"
    assert run_mmgen("verify", data, "--regrow", "all").stdout == done
    ours = letters.rename(tmp_path / "ours.npz")
    problem = (
        rf"its glyphs are not here \(.*'{letters}' does not exist.*\); say with --glyphs where"
    )
    for command in (("verify", data, "--regrow", 1), ("generate", tmp_path / "b", "--from", data)):
        line = run_mmgen(*command, code=2).stderr.splitlines()[-1]
        assert re.fullmatch(f"Error: {data}: {problem} they lie", line)
    assert run_mmgen("verify", data, "--regrow", "all", "--glyphs", ours).stdout == done
    line = run_mmgen("verify", data, "--regrow", 1, "--glyphs", "mnist", code=2).stderr
    assert line.startswith(f"Error: {data}: was made from other glyphs (SHA-256 ")
    line = run_mmgen("verify", data, "--glyphs", ours, code=2).stderr
    assert line.endswith("Error: --glyphs is for rendering again; add --regrow, or leave it out\n")


def test_where_glyphs_lie_changes_the_manifest_alone(letters, run_mmgen, tmp_path):
    data, again = tmp_path / "data", tmp_path / "again"
    run_mmgen("generate", data, "--glyphs", letters, *OF_LETTERS)
    (tmp_path / "ours").mkdir()
    ours = letters.rename(tmp_path / "ours/letters.npz")
    run_mmgen("generate", again, "--from", data, "--glyphs", ours)
    there, here = files(data), files(again)
    assert {name for name in there if there[name] != here[name]} == {"manifest.json"}
    assert [read_manifest(path).config["glyphs"] for path in (data, again)] == [
        *(str(letters), str(ours))
    ]
    assert [name for name in here if bytes(ours) in here[name]] == ["manifest.json"]
    (data / "val/val-000000.h5").unlink()
    run_mmgen("generate", data, "--glyphs", ours, *OF_LETTERS)  # finished where they are now
    assert files(data) == here


def test_glyphs_that_lie_elsewhere_here_are_found_by_their_hash(copied_dataset, edit_manifest):
    edit_manifest(copied_dataset, lambda data: data["config"].update(glyphs="/home/them/digits"))
    manifest = read_manifest(copied_dataset)
    config, glyphs = find_origin(manifest, "theirs", "mnist")
    assert config == parse_config(manifest.config | {"glyphs": "mnist"})
    assert glyphs.sha256 == manifest.glyphs["sha256"]
    with pytest.raises(InputError, match="/home/them/digits"):
        find_origin(manifest, "theirs")


UNLIKE_HERE = {
    "other glyphs": (
        lambda data: data["glyphs"].update(sha256="0" * 64),
        rf"was made from other glyphs \(SHA-256 {'0' * 64}, here c2069063.*\); say with --glyphs "
        "where they lie",
    ),
    "another split of them": (
        lambda data: data["glyphs"].update(train=[0, 50000]),
        r"train was made from the glyphs 0\.\.49999, here it has 0\.\.54999; use the version.*",
    ),
    "later rendering": (
        lambda data: data["config"].update(rendering=2),
        r"was made by mmgen .* that this version, .*, does not know \(rendering: input should be 1,"
        r" got 2\); update mmgen",
    ),
    "later format": (
        lambda data: data.update(format=2),
        r"has format 2, this version reads 1; update mmgen",
    ),
    "later field": (
        lambda data: data["config"].update(fog=0.5),
        r"was made .* does not know \(field 'fog' does not exist; fields are: .*\); update mmgen",
    ),
    "imported": (
        lambda data: data.update(config=None),
        r"was imported; there is no config to render it from",
    ),
}


@pytest.mark.parametrize("difference", UNLIKE_HERE)
def test_a_manifest_that_this_machine_cannot_repeat_is_refused(
    copied_dataset, edit_manifest, run_mmgen, tmp_path, difference
):
    change, problem = UNLIKE_HERE[difference]
    edit_manifest(copied_dataset, change)
    manifest = copied_dataset / "manifest.json"
    line = run_mmgen("generate", tmp_path / "new", "--from", manifest, code=2).stderr
    assert re.fullmatch(f"Error: {manifest}: {problem}\n", line)
    assert not (tmp_path / "new").exists()


# In colour.


def test_a_set_in_colour_goes_through_every_command(run_mmgen, tmp_path):
    data, array, again = tmp_path / "data", tmp_path / "a.npy", tmp_path / "again"
    small = ["canvas=32x40", "frames=3..5", "color=random"]
    options = [word for field in small for word in ("--set", field)]
    run_mmgen("generate", data, *options, "--train", 3, "--val", 0, "--test", 4)
    regrown = run_mmgen("verify", data, "--regrow", "all").stdout
    assert regrown == f"{data}: 7 sequences hold, all of each split rendered again and equal\n"
    assert "  color = random\n" in run_mmgen("info", data).stdout
    frames = np.stack([sequence.frames for sequence in mmgen.open(data)["test"]])
    assert (frames[..., 0] != frames[..., 1]).any()
    assert frames.tobytes() == mmgen.render(load_config(assignments=small), 4).frames.tobytes()
    for name in ("a.png", "a.gif"):
        told = run_mmgen("preview", data, "--overlay", "-o", tmp_path / name).stdout
        assert told == f"{tmp_path / name}: 4 sequences of 5 frames\n"
    assert "frames of 32x40, RGB\n" in run_mmgen("stats", data).stdout
    line = run_mmgen("export", data, tmp_path / "folder", "--to", "npy", code=2).stderr
    problem = "is in colour, which torchvision would take for width; name a file that ends in .npy"
    assert line == f"Error: {data}: {problem}\n"
    run_mmgen("export", data, array, "--to", "npy")
    assert np.array_equal(np.load(array).swapaxes(0, 1), frames)
    run_mmgen("import", array, again)
    imported = np.stack([sequence.frames for sequence in mmgen.open(again)["test"]])
    assert np.array_equal(imported, frames)


# Whose folder it is.


FOREIGN = {
    "other-files": {"notes.txt": "mine"},
    "web-app": {"manifest.json": '{"name": "my app"}', "app.js": ""},
    "http-log": {"request.json": '{"url": "x"}', "train-000000.h5": ""},
    "no-json": {"request.json": "[" * 100_000, "manifest.json": "hello"},
    "hidden": {".gitignore": ""},
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_folder_is_left_alone(tmp_path, generate, overwrite, kind):
    root = tmp_path / kind
    root.mkdir()
    for name, content in FOREIGN[kind].items():
        (root / name).write_text(content)
    before = files(root)
    with pytest.raises(InputError, match=f"^{root}: (holds|is no data set of ours)"):
        generate(root, overwrite=overwrite)
    assert files(root) == before
    assert names(tmp_path) == [kind]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_is_free_and_a_file_is_not(generate, tmp_path, overwrite):
    (tmp_path / "empty").mkdir()
    generate(tmp_path / "empty", counts={"val": 1}, overwrite=overwrite)
    assert len(mmgen.open(tmp_path / "empty")["val"]) == 1
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=f"^{tmp_path}/file: is"):
        generate(tmp_path / "file", overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("put", [os.mkfifo, Path.touch, lambda path: path.symlink_to("nothing")])
def test_what_is_no_folder_where_a_split_belongs_is_named(copied_dataset, generate, put):
    shutil.rmtree(copied_dataset / "val")
    put(copied_dataset / "val")
    problem = f"^{copied_dataset}/val: is no folder; delete it, or name another for all$"
    with pytest.raises(InputError, match=problem):
        generate(copied_dataset)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"seed": 6}, "seed is 5, asked for is 6"),
        ({"counts": COUNTS | {"val": 4}}, "val is 3, asked for is 4"),
        ({"shard_size": 8}, "shard_size is 7, asked for is 8"),
        ({"masks": True}, "masks is False, asked for is True"),
        ({"codec": "none"}, "codec is gzip, asked for is none"),
    ],
)
def test_a_set_of_another_request_is_left_alone(
    copied_dataset, small_dataset, generate, changes, difference
):
    problem = rf"holds a data set of another request \({difference}\); name another folder, or over"
    with pytest.raises(InputError, match=problem):
        generate(copied_dataset, **changes)
    assert files(copied_dataset) == files(small_dataset)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_writer_is_told(copied_dataset, small_dataset, generate, overwrite):
    with (copied_dataset / "request.json").open() as first:
        fcntl.flock(first, fcntl.LOCK_SH)  # the weakest there is
        with pytest.raises(
            InputError, match=r"copy: another writer is at work there; wait for it$"
        ):
            generate(copied_dataset, overwrite=overwrite)
    assert files(copied_dataset) == files(small_dataset)


# Overwriting.


def test_overwriting_keeps_the_old_set_until_the_new_one_is_complete(
    copied_dataset, small_dataset, generate, tmp_path
):
    seen = []

    def look(*_):
        seen.append(files(copied_dataset) == files(small_dataset))

    generate(copied_dataset, seed=6, overwrite=True, progress=look)
    assert set(seen) == {True}
    generate(tmp_path / "new", seed=6)
    assert files(copied_dataset) == files(tmp_path / "new")
    assert names(tmp_path) == ["copy", "new"]


def test_an_interrupted_overwriting_harms_nothing_and_any_other_may_follow(
    copied_dataset, small_dataset, generate, tmp_path
):
    def interrupt(*_):
        raise KeyboardInterrupt

    for seed in (6, 7):
        with pytest.raises(KeyboardInterrupt):
            generate(copied_dataset, seed=seed, overwrite=True, progress=interrupt)
        assert files(copied_dataset) == files(small_dataset)
    generate(copied_dataset, seed=8, overwrite=True)
    assert mmgen.open(copied_dataset).manifest.seed == 8
    assert names(tmp_path) == ["copy"]


def test_overwriting_killed_between_its_two_renames_is_finished(copied_dataset, generate, tmp_path):
    generate(tmp_path / "copy.new.partial", seed=6)
    expected = files(tmp_path / "copy.new.partial")
    copied_dataset.replace(tmp_path / "copy.old.partial")
    generate(copied_dataset, seed=6, overwrite=True)
    assert files(copied_dataset) == expected
    assert names(tmp_path) == ["copy"]


def test_overwriting_works_through_a_link_and_from_inside(
    copied_dataset, generate, tmp_path, monkeypatch
):
    (tmp_path / "link").symlink_to(copied_dataset)
    generate(tmp_path / "link", seed=6, overwrite=True)
    assert mmgen.open(copied_dataset).manifest.seed == 6
    monkeypatch.chdir(copied_dataset)
    generate(Path(), seed=7, overwrite=True)
    assert mmgen.open(copied_dataset).manifest.seed == 7


# Several at once.


def test_of_two_first_writers_one_wins(tmp_path, generate):
    """Both may see an empty folder; then request, shards and manifest are of one of them."""
    for trial in range(8):
        out = tmp_path / str(trial)
        start = threading.Barrier(2)

        def write(seed, out=out, start=start):
            start.wait()
            try:
                generate(out, seed=seed)
            except InputError as error:
                return str(error)

        with ThreadPoolExecutor(2) as pool:
            refused = list(pool.map(write, (1, 2)))
        winner = mmgen.open(out).manifest.seed
        assert refused[winner - 1] is None
        assert str(out) in refused[2 - winner]
        assert json.loads((out / "request.json").read_text())["seed"] == winner
        assert not list(find_damage(mmgen.open(out), lambda _: None))
        assert not list(out.rglob("*.partial"))


def test_an_equal_request_may_be_written_otherwise(copied_dataset, generate):
    request = copied_dataset / "request.json"
    request.write_text(json.dumps(json.loads(request.read_text())))
    generate(copied_dataset)
