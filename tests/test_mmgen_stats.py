"""Statistics: every number equals what plain loops over the sequences find."""

import json
import math

import h5py
import numpy as np
import pytest
from matplotlib.image import imread
from strategies import table

import mmgen
from mmgen.errors import ShardError
from mmgen.shard import schema
from mmgen.shard.manifest import Manifest, SplitEntry
from mmgen.shard.writer import ShardWriter
from mmgen.stats import Tally, measure

N, T, K = 5, 22, 2
LENGTHS = (22, 20, 19, 22, 3)


def write_set(path, frames, annotations):
    """Write a test split of one shard from arrays; what is not given is as for absent digits."""
    (path / "test").mkdir(parents=True)
    attributes = schema.attributes("null", 0, "test", "", "0")
    absent = {"f": np.nan, "i": -1, "b": False}
    whole = {
        name: np.full((N, *about.shape(T, K)), absent[np.dtype(about.dtype).kind], about.dtype)
        for name, about in schema.ANNOTATIONS.items()
    }
    whole |= {"index": np.arange(N)} | annotations
    shard = path / "test/test-000000.h5"
    with ShardWriter(shard, N, frames.shape[1:], K, attributes) as writer:
        writer.write(frames, whole)
        entry = writer.commit()
    manifest = Manifest("0", None, 0, {}, "gzip", N, {"test": SplitEntry(N, (entry,))})
    (path / "manifest.json").write_text(manifest.to_json())
    return mmgen.open(path)["test"]


@pytest.fixture(params=[(), (3,)], ids=["grey", "colour"])
def split(request, tmp_path):
    """Five sequences of random dots; two digits, of which the second is in two sequences only."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (N, T, 6, 8, *request.param), dtype=np.uint8)
    frames[rng.random(frames.shape[:4]) < 0.5] = 0
    for n, length in enumerate(LENGTHS):
        frames[n, length:] = 0
    position = np.full((N, T, K, 2), np.nan, np.float32)
    for n, length in enumerate(LENGTHS):
        position[n, :length, 0] = 1
        position[n, 2 : length - 1, 1] = 2 if n < 2 else np.nan
    velocity = np.where(np.isnan(position), position, np.float32(0))
    velocity[1:, :, 0] += rng.uniform(0, 4, (N - 1, T, 2)).astype(np.float32)
    box = np.where(np.isnan(position[..., :1]), -1, (1, 1, 3, 3)).astype(np.int16)
    box[3, 4:9, 0] = -1
    annotations = {
        "num_frames": np.array(LENGTHS, np.int32),
        "label": np.array([[7, 3], [7, 7], [1, -1], [0, -1], [3, -1]], np.int16),
        "position": position,
        "velocity": velocity,
        "box": box,
        "visible": rng.random((N, T, K)).astype(np.float32),
        "bounced": (rng.random((N, T, K)) < 0.2) & ~np.isnan(position[..., 0]),
    }
    return write_set(tmp_path / "set", frames, annotations)


def entropy(frame):
    z = [value / 255 for value in frame.ravel().tolist() if 0 < value < 255]
    return -sum(p * math.log(p) + (1 - p) * math.log(1 - p) for p in z)


def squared(frame, guess):
    return float(((frame / 255 - guess / 255) ** 2).sum())


def mean(values):
    return sum(values) / len(values)


def test_pixels_equal_brute_force(split):
    told = measure(split).as_json()
    every = [frame for sequence in split for frame in sequence.frames[: sequence.num_frames]]
    assert (told["sequences"], told["frames"]) == (N, len(every)) == (5, sum(LENGTHS))
    assert told["frame_shape"] == list(every[0].shape)
    assert told["entropy_floor"] == pytest.approx(mean([entropy(f) for f in every]))
    guess = np.mean(every, axis=0)
    assert np.allclose(measure(split).all_frames.mean_frame, guess)
    assert told["baselines"] == {
        "black": {"mse": pytest.approx(mean([squared(f, 0) for f in every]))},
        "mean frame": {"mse": pytest.approx(mean([squared(f, guess) for f in every]))},
    }
    lit = [mean([pixel.any() for row in f for pixel in row]) for f in every]
    assert told["distributions"]["lit"]["mean"] == pytest.approx(mean(lit))
    brightness = told["distributions"]["brightness"]
    assert brightness["mean"] == pytest.approx(mean([f.mean() for f in every]))
    assert brightness["max"] == pytest.approx(max(f.mean() for f in every), abs=0.005)


def test_the_published_protocol_takes_frames_11_to_20_of_sequences_that_have_them(split):
    long_enough = [sequence.frames for sequence in split if sequence.num_frames >= 20]
    scored = [frame for frames in long_enough for frame in frames[10:20]]
    copied = [squared(frame, frames[9] * 1.0) for frames in long_enough for frame in frames[10:20]]
    guess = np.mean(scored, axis=0)
    assert measure(split).as_json()["protocol"] == {
        "frames": [11, 20],
        "sequences": 3,
        "entropy_floor": pytest.approx(mean([entropy(f) for f in scored])),
        "baselines": {
            "black": {"mse": pytest.approx(mean([squared(f, 0) for f in scored]))},
            "copy-last": {"mse": pytest.approx(mean(copied))},
            "mean frame": {"mse": pytest.approx(mean([squared(f, guess) for f in scored]))},
        },
    }


def test_digits_equal_brute_force(split):
    told = measure(split).as_json()
    speeds, hidden, bounces = [], [], []
    for sequence in split:
        bounces.append(int(sequence.bounced.sum()))
        for t, k in np.ndindex(T, K):
            if not np.isnan(sequence.position[t, k, 0]):
                speeds.append(math.hypot(*sequence.velocity[t, k].tolist()))
                hidden.append(1 - float(sequence.visible[t, k]))
    found = told["distributions"]
    assert found["digits"]["mean"] == 7 / 5
    assert told["labels"] == {"0": 1, "1": 1, "3": 2, "7": 3}
    assert told["still_digits"] == 3, "both of sequence 0 and the second of sequence 1"
    assert told["frames_with_digit_outside"] == 5
    assert told["frames_with_digit_absent"] == 2 * 3, "the first two and the last of two sequences"
    assert found["bounces"]["mean"] == mean(bounces)
    assert (found["bounces"]["min"], found["bounces"]["max"]) == (min(bounces), max(bounces))
    assert found["hidden"]["mean"] == pytest.approx(mean(hidden))
    assert found["speed"]["mean"] == pytest.approx(mean(speeds))
    median = np.quantile(speeds, 0.5, method="inverted_cdf")
    assert found["speed"]["median"] == pytest.approx(median, abs=0.00501)
    assert sum(found["speed"]["counts"]) == len(speeds)


def test_shards_and_a_part_of_the_split_count_alike(small_dataset):
    stored = mmgen.open(small_dataset)["test"]  # nine sequences, seven in the first shard
    done = []
    told = measure(stored, 8, done.append).as_json()
    assert told["sequences"] == sum(done) == 8
    assert told["frames"] == sum(sequence.num_frames for sequence in list(stored)[:8])
    labels = [label for sequence in list(stored)[:8] for label in sequence.label if label >= 0]
    assert sum(told["labels"].values()) == len(labels)
    assert told["protocol"] is None, "its sequences have 3 to 5 frames"


def test_a_histogram_holds_every_value_once():
    tally = Tally(0.5)
    tally.add(np.array([0.0, 0.2, 0.3, 100.0]))
    tally.add(np.array([7.0]))
    edges, counts = tally.histogram(max_bins=10)
    assert (len(edges), counts.sum(), counts[0], counts[-1]) == (11, 5, 4, 1)
    assert (edges[0], edges[1]) == (-0.25, 10.25)
    assert tally.summary() == {
        **{"mean": pytest.approx(21.5), "min": 0, "5%": 0},
        **{"median": 0.5, "95%": 100, "max": 100},
    }
    assert set(Tally(1).summary().values()) == {None}


def without(dataset, name, vouch_for):
    with h5py.File(dataset / "test/test-000001.h5", "a") as file:
        del file[name]
    vouch_for(dataset, "test/test-000001.h5")


def test_a_set_without_annotations_leaves_their_rows_out_and_says_so(
    run_mmgen, copied_dataset, vouch_for, tmp_path
):
    without(copied_dataset, "velocity", vouch_for)
    text = run_mmgen("stats", copied_dataset).stdout
    assert text.endswith("digits, motion and overlap: unknown, the set has no velocity\n")
    assert "brightness" in text
    assert not any(word in text for word in ("speed", "label", "bounces", "absent"))
    out = tmp_path / "a.png"
    told = json.loads(run_mmgen("stats", copied_dataset, "--json", "-o", out).stdout)
    assert list(told["distributions"]) == ["frames", "brightness", "lit"]
    assert told["labels"] is told["still_digits"] is told["protocol"] is None
    assert imread(out).shape[:2] == (600, 800)


def test_the_table_and_the_picture_say_what_json_says(run_mmgen, split, tmp_path):
    out = tmp_path / "a.png"
    path = str(split.address)
    table, told = (run_mmgen("stats", path, "-o", out, *more).stdout for more in ([], ["--json"]))
    told = json.loads(told)
    lines = {line[:30].strip(): line[30:].split() for line in table.splitlines()}
    speed = told["distributions"]["speed"]
    names = ("mean", "min", "5%", "median", "95%", "max")
    assert lines["speed, px per frame"] == [f"{speed[name]:.2f}" for name in names]
    assert lines["digits that never move"] == ["42.9%"]
    assert lines["share of digits"] == ["14.3%", "14.3%", "28.6%", "42.9%"]
    protocol = told["protocol"]
    errors = [protocol["baselines"][name]["mse"] for name in ("black", "copy-last", "mean frame")]
    written = [f"{value:.2f}" for value in (protocol["entropy_floor"], *errors)]
    assert lines["frames 11-20 of 3 sequences"] == written
    assert imread(out).shape[:2] == (900, 1200)


def test_annotations_of_another_shape_are_content_that_does_not_hold(copied_dataset, vouch_for):
    with h5py.File(copied_dataset / "test/test-000000.h5", "a") as file:
        visible = file["visible"][:, :-1]
        del file["visible"]
        file["visible"] = visible
    vouch_for(copied_dataset, "test/test-000000.h5")
    with pytest.raises(ShardError, match=r"test-000000.h5: visible is float32 \(7, 4, 2\), expect"):
        measure(mmgen.open(copied_dataset)["test"])


BAD_INPUT = table("""
--split dev => {data}: has no split 'dev'; there are: train, val, test
--sequences 10 => {data}: 10 sequences asked for, test has 9
--sequences 0 => {data}: 0 sequences asked for, test has 9
-o a.gif => a.gif: unknown kind of picture; end the name in .png
-o no/a.png => no: is no folder; make it first
""")


@pytest.mark.parametrize(("options", "line"), BAD_INPUT)
def test_bad_input_ends_in_one_line_and_exit_2(
    run_mmgen, small_dataset, tmp_path, monkeypatch, options, line
):
    monkeypatch.chdir(tmp_path)
    result = run_mmgen("stats", small_dataset, *options.split(), code=2)
    assert result.stderr == f"Error: {line.format(data=small_dataset)}\n"
    assert not list(tmp_path.iterdir())
