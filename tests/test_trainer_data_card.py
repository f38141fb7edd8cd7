"""The data card counts what is stored, and says where it is from."""

import json

import numpy as np
import pytest
from trainer_data import make_data, stored

from mmgen.imports import PUBLISHED_SHA256, import_dataset, parse_splits
from mmgen.imports import open_source as open_file
from trainer.curves import histograms
from trainer.data_card import facts, measure, name_test_set
from trainer.source import open_scored, open_source

FIELDS = ("canvas=30", "frames=3..8", "digits=1..3", "speed=1..4", "appear=0..3")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("card") / "data", {"test": 9}, fields=FIELDS)


def test_histograms_count_the_first_sequences_of_the_files(data):
    counted = measure(open_source(data, "test"), 7)

    def first(name):
        return stored(data, "test", name)[:7]

    frames, num_frames = first("frames"), first("num_frames")
    labels, velocity, visible = first("label"), first("velocity"), first("visible")
    speeds, hidden, brightness = [], [], []
    for n in range(7):
        for t in range(num_frames[n]):
            brightness.append(frames[n, t].mean())
            for k in range(labels.shape[1]):
                if not np.isnan(velocity[n, t, k, 0]):
                    speeds.append(np.hypot(*velocity[n, t, k].astype(float)))
                    hidden.append(1 - visible[n, t, k])
    np.testing.assert_allclose(counted["brightness"], brightness)
    np.testing.assert_allclose(counted["speed"], speeds, rtol=1e-6)
    np.testing.assert_allclose(counted["hidden"], hidden, atol=1e-7)
    assert counted["label"].tolist() == labels[labels >= 0].tolist()
    assert counted["digits"].tolist() == (labels >= 0).sum(1).tolist()
    assert counted["bounces"].tolist() == first("bounced").sum((1, 2)).tolist()


def test_a_histogram_has_a_bar_a_whole_number_and_counts_all():
    bounces = np.array([0.0, 2, 2, 5])
    (plot,) = histograms({"bounces": bounces})
    rows = [line.split(",") for line in plot.csv.splitlines()[1:]]
    assert [int(row[2]) for row in rows] == [1, 0, 2, 0, 0, 1]
    assert [float(rows[0][0]), float(rows[-1][1])] == [-0.5, 5.5]
    assert "from 0 to 5, mean 2.25, 4 sequences" in plot.alt
    (plot,) = histograms({"speed": 3.6 + 1e-7 * np.arange(6)})  # one speed, as float32 has it
    counts = [int(line.split(",")[2]) for line in plot.csv.splitlines()[1:]]
    assert sorted(counts)[-2:] == [0, 6]


def test_facts_name_the_fields_that_are_not_the_default(data):
    told = facts(open_source(data, "test"))
    assert told == {
        "data": str(data),
        "split": "test, 9 sequences",
        "shape": "8 x 30 x 30",
        "origin": "generated here, seed 3",
        "canvas": "30x30",
        "frames": "3..8",
        "digits": "1..3",
        "speed": "1.0..4.0",
        "appear": "0..3",
    }
    assert name_test_set(open_source(data, "test")) == "generated here by other rules"
    assert name_test_set(open_source("live:srivastava?seed=8", "val")) == "generated here"
    live = facts(open_source("live:easy?seed=8", "val"))
    assert live["split"] == "val, no end of sequences"
    assert live["origin"] == "generated here, seed 8"
    assert live["digits"] == "1"


def test_the_published_file_is_told_from_any_other(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 3, 30, 30), np.uint8))
    file = open_file(tmp_path / "a.npy", "NTHW")
    import_dataset(file, tmp_path / "data", parse_splits("test", file))
    source = open_source(tmp_path / "data", "test")
    assert name_test_set(source) == "imported"
    path = tmp_path / "data" / "request.json"
    request = json.loads(path.read_text())
    request["source"]["sha256"] = PUBLISHED_SHA256
    path.write_text(json.dumps(request))
    assert name_test_set(source) == facts(source)["origin"] == "mnist_test_seq.npy"
    assert name_test_set(open_scored(tmp_path / "a.npy", "test")) == "imported"
    path.write_text("[]")
    assert name_test_set(source) == "imported"
