"""`mmgen verify` names what does not hold, and regrowing finds what checksums cannot."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

import mmgen
from mmgen.errors import InputError
from mmgen.glyphs import load_glyphs
from mmgen.pipeline import generate_dataset
from mmgen.verify import find_damage, find_difference

SHARDS = ["train/train-000000.h5", "train/train-000002.h5", "test/test-000001.h5"]


def damage_of(path):
    return list(find_damage(mmgen.open(path), lambda _: None))


def difference_of(path, num_sequences=None):
    return list(find_difference(mmgen.open(path), num_sequences, lambda _: None))


def test_a_sound_set_has_no_damage_and_regrows_equal(small_dataset):
    dataset, checked, rendered = mmgen.open(small_dataset), [], []
    assert not list(find_damage(dataset, checked.append))
    assert not list(find_difference(dataset, None, rendered.append))
    assert sum(checked) == sum(rendered) == 32
    del rendered[:]
    assert not list(find_difference(dataset, 4, rendered.append))
    assert sum(rendered) == 4 + 3 + 4


def test_each_damaged_shard_is_named_once(copied_dataset):
    missing, flipped, truncated = (copied_dataset / name for name in SHARDS)
    missing.unlink()
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    truncated.write_bytes(truncated.read_bytes()[:-1])
    problems = "is missing", "is not the file that the manifest lists", "has "
    for name, problem, line in zip(SHARDS, problems, damage_of(copied_dataset), strict=True):
        assert line.startswith(f"{copied_dataset / name}: {problem}")


def test_regrowing_notices_a_wrong_seed_that_shard_and_manifest_agree_on(
    copied_dataset, vouch_for, edit_manifest
):
    edit_manifest(copied_dataset, lambda data: data.update(seed=6))
    for name in [*SHARDS, "train/train-000001.h5", "val/val-000000.h5", "test/test-000000.h5"]:
        with h5py.File(copied_dataset / name, "r+") as file:
            file.attrs["seed"] = 6
        vouch_for(copied_dataset, name)
    assert not damage_of(copied_dataset)
    lines = difference_of(copied_dataset)
    assert len(lines) == 32
    assert lines[0].startswith(f"{copied_dataset}: train sequence 0: ")
    assert all(line.endswith(" differs from what its config renders") for line in lines)


@pytest.mark.parametrize("name", ["num_frames", "label", "glyph_index", "position", "velocity"])
def test_regrowing_compares_every_annotation(copied_dataset, vouch_for, name):
    with h5py.File(copied_dataset / SHARDS[0], "r+") as file:
        file[name][3] = np.where(file[name][3] == 3, 4, 3)
    vouch_for(copied_dataset, SHARDS[0])
    assert not damage_of(copied_dataset)
    assert difference_of(copied_dataset) == [
        f"{copied_dataset}: train sequence 3: {name} differs from what its config renders"
    ]


def test_a_generated_shard_without_its_annotations_is_named(copied_dataset, vouch_for):
    with h5py.File(copied_dataset / SHARDS[0], "r+") as file:
        for name in ("label", "velocity", "box", "visible"):
            del file[name]
        file["position"][3] = 0
    vouch_for(copied_dataset, SHARDS[0])
    (line,) = damage_of(copied_dataset)
    missing = "box, label, velocity, visible missing, which other shards or the config ha"
    assert line.startswith(f"{copied_dataset / SHARDS[0]}: {missing}")
    assert difference_of(copied_dataset) == [  # compares what there is
        f"{copied_dataset}: train sequence 3: position differs from what its config renders"
    ]


def test_a_shard_that_lost_its_masks_or_has_damaged_ones_is_named(
    tmp_path, small_config, vouch_for
):
    path, (first, third, _) = tmp_path / "masked", SHARDS
    generate_dataset(path, small_config, {"train": 20}, masks=True, shard_size=7)
    assert not damage_of(path)
    with h5py.File(path / first, "r+") as file:
        place = file["mask"].id.get_chunk_info(4).byte_offset
    with h5py.File(path / third, "r+") as file:
        del file["mask"]
    content = bytearray((path / first).read_bytes())
    content[place + 20] ^= 1
    (path / first).write_bytes(content)
    for name in (first, third):
        vouch_for(path, name)
    damaged, lost = damage_of(path)
    assert damaged.startswith(f"{path / first}: is damaged; delete")
    assert lost.startswith(f"{path / third}: mask missing, which other shards or the config")


def test_regrowing_compares_masks(tmp_path, small_config, vouch_for):
    path = tmp_path / "masked"
    generate_dataset(path, small_config, {"train": 5}, masks=True)
    assert not damage_of(path)
    assert not difference_of(path)
    with h5py.File(path / SHARDS[0], "r+") as file:
        file["mask"][3] = 9
    vouch_for(path, SHARDS[0])
    assert difference_of(path) == [
        f"{path}: train sequence 3: mask differs from what its config renders"
    ]


def test_regrowing_goes_on_behind_a_damaged_shard(copied_dataset, vouch_for):
    with h5py.File(copied_dataset / SHARDS[2], "r+") as file:
        file["label"][0] = -9
    vouch_for(copied_dataset, SHARDS[2])
    (copied_dataset / SHARDS[0]).unlink()
    *lost, last = difference_of(copied_dataset)
    assert len(lost) == 7
    assert all(line.startswith(f"{copied_dataset / SHARDS[0]}: is missing") for line in lost)
    assert last.startswith(f"{copied_dataset}: test sequence 7: label differs")


def test_regrowing_draws_from_the_glyphs_whose_hash_it_has_compared(
    copied_dataset, vouch_for, edit_manifest, monkeypatch
):
    """The set under that name may be another one by the time something renders."""
    glyphs = load_glyphs()
    inverse = replace(glyphs, images=255 - glyphs.images)
    monkeypatch.setattr("mmgen.request.load_glyphs", lambda _: inverse)
    edit_manifest(copied_dataset, lambda data: data["glyphs"].update(sha256=inverse.sha256))
    lines = difference_of(copied_dataset)
    assert len(lines) == 32
    assert all(": frames differs" in line for line in lines)


def test_an_imported_set_is_checked_and_said_to_be_one(small_dataset, run_mmgen, tmp_path):
    array, imported = tmp_path / "array.npy", tmp_path / "imported"
    run_mmgen("export", small_dataset, array, "--to", "npy")
    run_mmgen("import", array, imported)
    told = run_mmgen("verify", imported).stdout
    problem = "imported, so there is no config to render them from again"
    assert told == f"{imported}: 9 sequences hold; {problem}\n"
    line = f"Error: {imported}: was imported; there is no config to render it from\n"
    assert run_mmgen("verify", imported, "--regrow", 1, code=2).stderr == line


def test_regrowing_needs_config_and_glyphs_of_the_set(copied_dataset, edit_manifest):
    sha256_here = mmgen.open(copied_dataset).manifest.glyphs["sha256"]
    edit_manifest(copied_dataset, lambda data: data["glyphs"].update(sha256="0" * 64))
    with pytest.raises(InputError, match=r"was made from other glyphs \(SHA-256 0{64}, here c206"):
        difference_of(copied_dataset)
    edit_manifest(copied_dataset, lambda data: data["glyphs"].update(sha256=sha256_here))
    edit_manifest(copied_dataset, lambda data: data["glyphs"].update(val=[54000, 60000]))
    with pytest.raises(InputError, match=r"val was made from the glyphs 54000\.\.59999, here it h"):
        difference_of(copied_dataset)
    edit_manifest(copied_dataset, lambda data: data.update(config={"digits": 0}))
    with pytest.raises(InputError, match=r"digits: 0 is out of range, allowed are 1\.\.255"):
        difference_of(copied_dataset)
    edit_manifest(copied_dataset, lambda data: data.update(config=None))
    with pytest.raises(InputError, match="was imported; there is no config to render it from"):
        difference_of(copied_dataset)


def test_a_flipped_bit_is_named_by_shard_and_sequence(copied_dataset):
    path = copied_dataset / "train" / "train-000001.h5"
    with h5py.File(path) as file:
        chunk = file["frames"].id.get_chunk_info(4)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(content)
    (line,) = damage_of(copied_dataset)
    assert line.startswith(f"{path}: is not the file that the manifest lists (SHA-256 differs)")
    assert line.endswith(
        "; damaged there: sequence 11"
    )  # 7 sequences a shard, the fifth of the second


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda data: data["config"].update(canvas="64x64"), "config"),
        (lambda data: data.update(config=None), "config"),
        (lambda data: data.update(codec="lz4"), "codec"),
        (lambda data: data["glyphs"].update(sha256="0" * 64), "glyph set"),
    ],
)
def test_a_manifest_that_contradicts_its_shards_is_told(
    copied_dataset, edit_manifest, change, what
):
    edit_manifest(copied_dataset, change)
    lines = damage_of(copied_dataset)
    assert len(lines) == 6
    assert all(f": was written with another {what} than manifest.json says" in x for x in lines)
