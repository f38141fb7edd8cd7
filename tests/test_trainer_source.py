"""DATA addresses: what they mean, and one line for those that mean nothing."""

import pickle

import numpy as np
import pytest
from trainer_data import make_data

from mmgen.presets import load_config
from trainer.address import absolute, as_weighted, parse_live, parse_weighted
from trainer.errors import InputError
from trainer.source import find_source, open_source


def test_live_addresses_name_preset_or_file_seed_and_fields(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('canvas = "30x40"\n')
    wide = load_config(path=path)
    for address, expected in (
        ("live:medium", (load_config("medium"), 0)),
        ("live:medium?", (load_config("medium"), 0)),
        ("live:medium?seed=7", (load_config("medium"), 7)),
        ("live:medium?digits=1..3&seed=7", (load_config("medium", None, ["digits=1..3"]), 7)),
        (f"live:{path}", (wide, 0)),
        (f"live:{path}?speed=3&seed=2", (load_config(path=path, assignments=["speed=3"]), 2)),
    ):
        assert parse_live(address) == expected


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("live:", "live:: names no preset; write live:srivastava or live:FILE.toml"),
        ("live:?seed=3", "live:?seed=3: names no preset; write "),
        ("live:easier", "live:easier: preset 'easier' does not exist; choose from: srivastava, "),
        ("live:no.toml", "live:no.toml: no.toml: cannot be read (No such file or directory)"),
        ("live:easy?size=3", "live:easy?size=3: field 'size' does not exist; fields are: "),
        ("live:easy?digits", "live:easy?digits: 'digits' is no FIELD=VALUE, such as digits=3"),
        ("live:easy?digits=-1", "live:easy?digits=-1: digits: -1 is out of range, allowed are "),
        ("live:easy?seed=-1", f"live:easy?seed=-1: seed is no whole number from 0 to {2**63 - 1}"),
        ("live:easy?seed=", f"live:easy?seed=: seed is no whole number from 0 to {2**63 - 1}"),
        ("live:easy?seed=1&seed=x", "live:easy?seed=1&seed=x: seed is no whole number from 0 to "),
        (f"live:easy?seed={'9' * 5000}", f"live:easy?seed={'9' * 5000}: seed is no whole number "),
        (f"live:easy?seed={2**63}", f"live:easy?seed={2**63}: seed is no whole number from 0 to "),
        ("live:easy?canvas=20", "live:easy?canvas=20: canvas: 20x20 is smaller than a glyph of "),
        ("live:easy?glyphs=none.npz", "live:easy?glyphs=none.npz: "),
    ],
)
def test_bad_live_addresses_are_refused_before_work(address, line):
    with pytest.raises(InputError) as caught:
        open_source(address, "train")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_split_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"^live:easy: .*'tset'"):
        open_source("live:easy", "tset")


def test_weights_stand_behind_the_last_equals_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.5").mkdir()
    for words, expected in (
        (["A"], {"A": 1}),
        (["A=0.7", "B=0.3"], {"A": 0.7, "B": 0.3}),
        (["A=2", "B"], {"A": 2, "B": 1}),
        (["lr=0.5"], {"lr=0.5": 1}),  # it exists as it is written
        (["lr=0.5=3"], {"lr=0.5": 3}),
        (["A=b"], {"A=b": 1}),
        (["live:easy=2"], {"live:easy": 2}),
        (["live:easy?seed=3"], {"live:easy?seed=3": 1}),
        (["live:easy?seed=3=2"], {"live:easy?seed=3": 2}),
        (["live:easy?seed=3&speed=2"], {"live:easy?seed=3&speed=2": 1}),
        (["live:easy?seed=3&speed=2=0.5"], {"live:easy?seed=3&speed=2": 0.5}),
    ):
        assert parse_weighted(words) == expected
    for words, line in (
        (["A=0"], "A=0: a weight is a number above 0"),
        (["A=-1"], "A=-1: a weight is a number above 0"),
        (["A=nan"], "A=nan: a weight is a number above 0"),
        (["A=inf"], "A=inf: a weight is a number above 0"),
        (["A=1", "A=2"], "A: is named twice; add its weights up"),
        ([""], "DATA is empty; name a data set's folder or address, or live:PRESET"),
        (["=0.7"], "DATA is empty; name a data set's folder or address, or live:PRESET"),
    ):
        with pytest.raises(InputError, match=f"^{line}$"):
            parse_weighted(words)


@pytest.mark.parametrize(
    ("weight", "written"),
    [(0.0, "0"), (10**400, "inf"), (None, "nan"), ("much", "nan")],
    ids=["zero", "huge", "none", "word"],
)
def test_a_weight_is_a_finite_number_above_0(weight, written):
    with pytest.raises(InputError, match=f"^A={written}: a weight is a number above 0$"):
        as_weighted({"A": weight})


def test_data_that_name_nothing_are_refused():
    with pytest.raises(InputError, match=r"^no DATA; name a data set's folder or address, or li"):
        as_weighted({})
    for data in (["A", "B"], ("A", "B"), None):
        name = type(data).__name__
        with pytest.raises(InputError, match=f"^DATA is a {name}; .* write {{address: weight}}$"):
            as_weighted(data)
    for find in (open_source, find_source):
        with pytest.raises(InputError, match=r"^DATA is empty; name a data set's folder or addr"):
            find("", "train")


@pytest.mark.parametrize("frames", ["9" * 5000, f"{'9' * 5000}..6"], ids=["one", "range"])
def test_a_config_of_absurd_lengths_shortens_nothing(copied_dataset, edit_manifest, frames):
    edit_manifest(copied_dataset, lambda data: data["config"].update(frames=frames))
    source = open_source(copied_dataset, "train")
    assert source.shortest == source.sequence_shape[0]


def test_addresses_are_kept_so_that_they_hold_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address, expected in (
        ("sets/a", f"{tmp_path}/sets/a"),
        ("live:easy?seed=1", "live:easy?seed=1"),
        ("live:a.toml?seed=1", f"live:{tmp_path}/a.toml?seed=1"),
        ("s3://bucket/set", "s3://bucket/set"),
    ):
        assert absolute(address) == expected


@pytest.mark.parametrize("masks", [False, True])
def test_the_truth_of_live_sequences_is_that_of_stored_ones(tmp_path, masks):
    data = make_data(tmp_path / "data", fields=("canvas=30", "frames=6..8"), masks=masks)
    stored = open_source(data, "test")
    pickled_bytes = len(pickle.dumps(stored))
    live = open_source("live:srivastava?canvas=30&frames=6..8&seed=3", "test")
    for indices in ([3, 0, 6], [6]):
        for one, other in zip(stored.truth(indices), live.truth(indices), strict=True):
            assert ("mask" in one) == masks
            one.pop("mask", None)
            assert list(one) == list(other)
            for name in one:
                np.testing.assert_array_equal(one[name], other[name], strict=True)
    assert len(pickle.dumps(stored)) < pickled_bytes + 500  # what was read stays behind
    again = pickle.loads(pickle.dumps(stored))
    assert again.truth([2])[0]["index"] == 2


def test_the_truth_comes_the_same_from_many_shards(tmp_path):
    fields = ("canvas=30", "frames=6..8")
    one, many = (
        open_source(make_data(tmp_path / name, fields=fields, shard_size=size), "train")
        for name, size in (("one", 22), ("many", 1))
    )
    for a, b in zip(one.truth([21, 3]), many.truth([21, 3]), strict=True):
        assert list(a) == list(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], strict=True)
