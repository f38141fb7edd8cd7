"""Annotations that a manifest vouches for and that are nonsense: one line, or what can be drawn."""

import json

import h5py
import numpy as np
import pytest
from PIL import Image

NAN, INF = np.float32("nan"), np.float32("inf")

# annotation and how it is changed -> what is said of it
REFUSED = {
    "reversed boxes": ("box", lambda a: a[..., [2, 3, 0, 1]], "ends before it begins, or has no d"),
    "empty boxes": ("box", np.zeros_like, "ends before it begins, or has no digit"),
    "boxes without digits": ("position", lambda a: a * NAN, "ends before it begins, or has no dig"),
    "half positions": ("position", lambda a: a * np.array([1, NAN]), "is infinite, or half a posi"),
    "infinite positions": ("position", lambda a: a - INF, "is infinite, or half a position"),
    "large labels": ("label", lambda a: a + np.int16(300), "is not within -1..255"),
    "small labels": ("label", lambda a: a - np.int16(300), "is not within -1..255"),
    "labels that are no integers": (
        "label",
        lambda a: a * 0.5,
        "is float64 (7, 2), expected",
    ),
    "one label": ("label", lambda a: a[:, 0], "is int16 (7,), expected is int16 (7, 1)"),
    "one digit more": ("label", lambda a: a[:, [0, 1, 1]], "is float32 (7, 5, 2, 2), expected is"),
    "a frame less": ("position", lambda a: a[:, 1:], "is float32 (7, 4, 2, 2), expected is float"),
    "float boxes": ("box", lambda a: a * 1.0, "is float64 (7, 5, 2, 4), expected is int16 (7, 5,"),
    "counted bounces": ("bounced", lambda a: a.astype(np.int8), "is int8 (7, 5, 2), expected is"),
}
REFUSED_BY_STATS = {
    "no velocity": ("velocity", lambda a: a * NAN, "is no number where the digit has a position"),
    "infinite velocity": ("velocity", lambda a: a - INF, "is no number where the digit has a pos"),
    "one component": ("velocity", lambda a: a[..., :1], "is float32 (7, 5, 2, 1), expected is fl"),
    "no share": ("visible", lambda a: a * NAN, "is not within 0..1 where the digit has a position"),
    "more than all": ("visible", lambda a: a + 2, "is not within 0..1 where the digit has a posit"),
    "less than nothing": ("visible", lambda a: a - 2, "is not within 0..1 where the digit has a p"),
    "one number": ("visible", lambda _: np.float32(1), "is float32 (), expected is float32 (7, 5,"),
    "too few sequences": ("visible", lambda a: a[:3], "is float32 (3, 5, 2), expected is float32"),
}


@pytest.fixture
def change(copied_dataset, vouch_for):
    """Change an annotation of the first shard of test, and let the manifest vouch for it."""

    def changed(name, how):
        with h5py.File(copied_dataset / "test/test-000000.h5", "a") as file:
            values = file[name][()]
            del file[name]
            new = np.asarray(how(values))
            file[name] = (
                new.astype(values.dtype) if values.dtype.kind == new.dtype.kind == "f" else new
            )
        vouch_for(copied_dataset, "test/test-000000.h5")
        return copied_dataset

    return changed


@pytest.mark.parametrize("damage", REFUSED)
def test_nonsense_is_not_drawn(run_mmgen, change, tmp_path, damage):
    name, how, _ = REFUSED[damage]
    data = change(name, how)
    out = tmp_path / "a.png"
    told = run_mmgen("preview", data, "--overlay", "--index", "2,8", "-o", out, code=1).stderr
    *_, line = told.splitlines()
    assert line.startswith(f"Error: {data}, test: ")
    assert line.endswith("; make the set again")
    assert not out.exists()
    run_mmgen("preview", data, "--index", "2,8", "-o", out)


@pytest.mark.parametrize("damage", REFUSED | REFUSED_BY_STATS)
def test_nonsense_is_not_counted(run_mmgen, change, damage):
    name, how, why = (REFUSED | REFUSED_BY_STATS)[damage]
    data = change(name, how)
    told = run_mmgen("stats", data, code=1).stderr
    *_, line = told.splitlines()
    assert line.startswith(f"Error: {data}/test/test-000000.h5: ")
    assert why in line
    assert line.endswith("; make the set again")


def test_the_sequence_is_named(run_mmgen, change, tmp_path):
    def spoil(box):
        box[5, 0, 0] = (9, 9, 3, 12)
        return box

    data = change("box", spoil)
    why = "box of sequence 5 ends before it begins, or has no digit; make the set again"
    told = run_mmgen("stats", data, code=1).stderr
    assert told == f"Error: {data}/test/test-000000.h5: {why}\n"
    arguments = "--overlay", "-o", tmp_path / "a.png", "--index"
    told = run_mmgen("preview", data, *arguments, "3..6", code=1).stderr
    assert told == f"Error: {data}, test: {why}\n"
    run_mmgen("preview", data, *arguments, "0..4,6")


def off_the_canvas(box):
    return np.where(box < 0, box, box + np.int16(1000))


STRANGE = {
    "boxes off the canvas": ("box", off_the_canvas),
    "boxes larger than the canvas": (
        "box",
        lambda a: np.where(a < 0, a, np.array([-32768, -9, 32767, 99], np.int16)),
    ),
    "positions far away": ("position", lambda a: a * np.float32(1e36)),
    "positions far away on both sides": ("position", lambda a: a * np.float32([1e30, -1e30])),
    "no labels": ("label", lambda a: a * 0 - np.int16(1)),
    "absurd speeds": ("velocity", lambda a: np.where(np.isnan(a), a, np.float32(3e38))),
}
IN_THE_PICTURE = ("boxes off the canvas", "absurd speeds")


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_merely_strange_is_drawn_and_counted(run_mmgen, change, tmp_path, strange):
    data = change(*STRANGE[strange])
    run_mmgen("preview", data, "--overlay", "-o", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (5 * 240 + 4 * 4, 4 * 192 + 3 * 4)
    picture = ("-o", tmp_path / "b.png") if strange in IN_THE_PICTURE else ()
    told = run_mmgen("stats", data, "--json", *picture).stdout
    json.loads(told, parse_constant=pytest.fail)  # NaN and Infinity are no JSON


def test_shards_that_differ_in_digits_are_not_drawn_together(
    run_mmgen, copied_dataset, vouch_for, tmp_path
):
    with h5py.File(copied_dataset / "test/test-000000.h5", "a") as file:
        for name in ("label", "position", "box", "bounced"):
            values = file[name][()]
            del file[name]
            file[name] = values[..., :1] if name in ("label", "bounced") else values[:, :, :1]
    vouch_for(copied_dataset, "test/test-000000.h5")
    arguments = "--overlay", "--index", "6,7", "-o", tmp_path / "a.png"
    told = run_mmgen("preview", copied_dataset, *arguments, code=1).stderr
    why = "shards of test differ in digits per sequence"
    assert told == f"Error: {copied_dataset}: {why}\n"
