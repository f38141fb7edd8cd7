"""What other commands left in a run's folder is believed only as far as it holds."""

import copy
import csv
import io
import json

import numpy as np
import pytest

from trainer.curves import hardness, horizon_curves
from trainer.errors import InputError
from trainer.findings import Evaluation, read_evaluation, read_finding, read_sequences
from trainer.published import PUBLISHED
from trainer.report import chosen
from trainer.report_table import is_published_task, published_rows, score_rows, shown_metrics

SCORES = {
    "mse": 2.0,
    "mae": 3.0,
    "psnr": 12.345,
    "ssim": 0.5,
    "ssim_openstl": None,
    "ce": None,
    "interval": {"mse": [1.5, 2.5], "ce": None},
    "per_frame": {"mse": [1.0, 3.0], "psnr": [13.0, 11.0], "ce": [None, None]},
}
RESULT = {
    "data": "live:easy",
    "split": "test",
    "sequences": 4,
    "checkpoint": "step-00000001.pt",
    "prediction": SCORES,
    "reconstruction": SCORES | {"mse": 1.0},
    "teacher_forced": {"prediction": SCORES | {"mse": 0.5}, "reconstruction": None},
    "baselines": {"copy-last": SCORES, "black": SCORES | {"mse": 9.0}, "known dynamics": None},
    "entropy_floor": 86.4,
    "skill": 0.25,
    "skill_interval": [0.2, 0.3],
    "out_of_domain": {
        "3 digits": {
            "prediction": SCORES,
            "reconstruction": None,
            "baselines": {"mean frame": SCORES, "known dynamics": None},
            "skill": None,
        },
        "fashion": None,
    },
}
TABLE = "index,prediction_mse,overlap,bounces,speed,prediction_mse_1,prediction_mse_2\n"
ROWS = "0,5.0,0.1,1,3,1,9\n1,2.0,0.2,2,3,2,2\n2,7.0,0.3,2,3,3,11\n3,4.0,0.1,0,3,2,6\n"


def test_the_table_has_a_row_a_predictor_with_intervals():
    evaluation = Evaluation.model_validate(RESULT)
    assert shown_metrics(evaluation) == ["mse", "psnr", "ce"]
    rows = {row.name: row.cells for row in score_rows(evaluation)}
    assert list(rows) == [
        "prediction",
        "prediction, teacher-forced",
        "black",
        "copy-last",
        "entropy floor",
        "reconstruction",
    ]
    assert rows["prediction"] == [("2.0", "1.5 to 2.5"), ("12.35", ""), ("infinite", "")]
    assert rows["entropy floor"] == [("0.0", ""), ("infinite", ""), ("86.4", "")]
    assert rows["prediction, teacher-forced"][0][0] == "0.5"
    assert rows["reconstruction"][0][0] == "1.0"


@pytest.mark.parametrize(
    "damage",
    [
        {"prediction": None, "reconstruction": None},
        {"prediction": 3},
        {"prediction": SCORES | {"per_frame": {"mse": []}}},
        {"prediction": SCORES | {"per_frame": {"mse": ["x"]}}},
        {"prediction": SCORES | {"mse": float("nan")}},
        {"baselines": {"black": {}}},
        {"out_of_domain": {"3 digits": {"prediction": SCORES, "baselines": {}}}},
        {"sequences": 0},
        {"data": ""},
        {"split": None},
    ],
)
def test_a_damaged_evaluation_is_one_line(tmp_path, damage):
    path = tmp_path / "evaluation.json"
    for text in (json.dumps(copy.deepcopy(RESULT) | damage), "{", "[]", "\xff" * 9):
        path.write_bytes(text.encode("latin1"))
        with pytest.raises(InputError) as error:
            read_evaluation(tmp_path)
        assert str(error.value) == f"{path}: does not parse; run `mmtrain evaluate` again"
    path.write_text(json.dumps(RESULT))
    assert read_evaluation(tmp_path).skill == 0.25
    path.unlink()
    assert read_evaluation(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mse\n3\n",
        "index\nx\n",
        "index\n0.5\n",
        "index\n-1\n",
        "index\n4\n",
        "index\n\n0,1\n",
        'index\n"0\n',
    ],
)
def test_a_damaged_table_of_sequences_is_one_line(tmp_path, text):
    assert read_sequences(tmp_path, 4) == {}
    path = tmp_path / "evaluation" / "sequences.csv"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_sequences(tmp_path, 4)
    assert str(error.value) == f"{path}: does not parse; run `mmtrain evaluate` again"


def read_table(tmp_path, text=TABLE + ROWS):
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "sequences.csv").write_text(text)
    return read_sequences(tmp_path, None)


def test_best_median_and_worst_are_chosen_by_the_table(tmp_path):
    evaluation = Evaluation.model_validate(RESULT)
    found = chosen(evaluation, read_table(tmp_path))
    assert [(name, index) for name, _, index in found] == [("best", 1), ("median", 3), ("worst", 2)]
    assert found[2][1] == "The worst: sequence 2, MSE 7.0"
    assert [index for *_, index in chosen(evaluation, {})] == [0, 1, 2]


def test_sequences_that_were_not_scored_are_never_chosen(tmp_path):
    evaluation = Evaluation.model_validate(RESULT)
    table = read_table(tmp_path, "index,prediction_mse\n5,\n6,2\n7,inf\n8,1\n")
    assert [index for *_, index in chosen(evaluation, table)] == [8, 8, 6]
    everything = {"index": np.array([3.0]), "prediction_mse": np.array([np.nan])}
    assert [index for *_, index in chosen(evaluation, everything)] == [0, 1, 2]


def test_horizon_curves_leave_out_what_is_infinite_and_show_the_spread(tmp_path):
    evaluation = Evaluation.model_validate(RESULT)
    plots = {plot.name: plot for plot in horizon_curves(evaluation, read_table(tmp_path))}
    assert list(plots) == ["horizon_mse", "horizon_psnr"]
    rows = list(csv.DictReader(io.StringIO(plots["horizon_mse"].csv)))
    assert [float(row["model"]) for row in rows] == [1, 3]
    assert [float(row["model, 90%"]) for row in rows] == [2.7, 10.4]
    assert "model 1 to 3; black 1 to 3" in plots["horizon_mse"].alt
    assert plots["horizon_psnr"].csv.startswith("frame,model,black,copy-last\n")


def test_hardness_is_drawn_where_it_varies(tmp_path):
    plots = {plot.name: plot for plot in hardness("prediction", read_table(tmp_path))}
    assert list(plots) == ["sequences_overlap", "sequences_bounces"]  # all have one speed
    assert plots["sequences_bounces"].csv.splitlines()[1:3] == ["0,1.0,5.0", "1,2.0,2.0"]
    assert plots["sequences_bounces"].alt.endswith("the mean goes from 4 to 4.5.")


def test_findings_are_pictures_and_tables_of_their_folder(tmp_path):
    assert read_finding(tmp_path, "probe") is None
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "notes.png").write_text("no picture")
    assert read_finding(tmp_path, "probe") is None
    (tmp_path / "probe.json").write_text('{"a": {"b": 0.123456, "n": 12}, "c": [1], "d": null}')
    (tmp_path / "probe" / "e.csv").write_text("x,y\n" + "1,2.34567\n" * 100)
    found = read_finding(tmp_path, "probe")
    assert found.pictures == {}
    rows = [["a / b", "0.1235"], ["a / n", "12"], ["d", ""]]
    assert found.tables["probe"] == (["", "value"], rows, 3)
    assert found.tables["e"] == (["x", "y"], 40 * [["1", "2.346"]], 100)
    (tmp_path / "probe.json").write_text("{")
    with pytest.raises(InputError, match=r"probe\.json: does not parse; run `mmtrain probe` again"):
        read_finding(tmp_path, "probe")


def test_published_numbers_name_their_test_set_and_source():
    for row in PUBLISHED:
        assert row.test_set
        assert row.source
        assert any(value is not None for value in row[3:])
    assert all(not (row.ssim and row.ssim_openstl) for row in PUBLISHED)
    assert len({(row.method, row.source) for row in PUBLISHED}) == len(PUBLISHED)
    groups = published_rows()
    assert sum(map(len, groups.values())) == len(PUBLISHED)
    pred_rnn = next(rows[0] for (source, _), rows in groups.items() if "clips" in source)
    assert [number for number, _ in pred_rnn.cells] == ["56.8", "126.1", "-", "0.867", "-", "-"]
    assert is_published_task((64, 64), 10, 10)
    assert not is_published_task((64, 64, 3), 10, 10)
    assert not is_published_task((64, 64), 10, 20)
