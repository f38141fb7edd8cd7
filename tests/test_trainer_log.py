"""What a run says while it runs."""

import json

import pytest

from trainer import log as log_module
from trainer.log import RunLog, read_jsonl


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(log_module.time, "monotonic", lambda: now[0])
    return now


def test_the_share_of_time_spent_waiting_is_written_and_said(tmp_path, clock, capsys):
    log = RunLog(tmp_path, steps=100, batch_size=8)
    clock[0] += 4
    log.waited(1.0)
    log.metrics({"step": 10, "loss": 0.5})
    log.timing(10)
    log.progress(10)  # too early to speak
    clock[0] += 4
    log.waited(3.0)
    log.metrics({"step": 20, "loss": 0.25})
    log.timing(20)
    log.progress(20)
    clock[0] += 8
    log.metrics({"step": 60, "loss": 0.125})
    log.timing(60)
    log.progress(60)
    lines = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert [line["data_wait"] for line in lines] == [0.25, 0.75, 0]
    assert [line["sequences_per_s"] for line in lines] == [20, 20, 40]
    assert capsys.readouterr().err.splitlines() == [
        "step 20/100  loss 0.25000  20 sequences/s  50% waiting for data  0.5 min left",
        "step 60/100  loss 0.12500  30 sequences/s  0% waiting for data  0.2 min left",
    ]


def test_a_terminal_gets_one_line_that_is_written_again(tmp_path, clock, capsys, monkeypatch):
    monkeypatch.setattr(log_module.sys.stderr, "isatty", lambda: True, raising=False)
    log = RunLog(tmp_path, steps=4, batch_size=8)
    for step in (1, 2):
        clock[0] += 1
        log.progress(step)
    log.say("a look")
    log.end_bar()
    first, second, look, rest = capsys.readouterr().err.replace("\r", "\n").lstrip().split("\n")
    assert first.startswith("[#####...............] step 1/4  8 sequences/s  0% waiting")
    assert second.startswith("[##########..........] step 2/4  8 sequences/s  0% waiting")
    assert (look, rest) == ("a look", "")


def test_only_the_first_rank_writes_and_speaks(tmp_path, clock, capsys):
    log = RunLog(tmp_path, steps=4, batch_size=8, is_first=False)
    clock[0] += 9
    log.metrics({"step": 1, "loss": 0.5})
    log.timing(1)
    log.progress(1)
    log.say("a line")
    log.sync()
    assert capsys.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


def test_lines_behind_a_checkpoint_are_cut_off_and_those_at_it_may_be(tmp_path):
    lines = [{"step": step, "loss": 1.0} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    RunLog(tmp_path, steps=9, batch_size=8, start=2)
    assert read_jsonl(tmp_path / "metrics.jsonl") == lines[:2]
    RunLog(tmp_path, steps=9, batch_size=8, start=2, stays=lambda line: line["step"] == 1)
    assert read_jsonl(tmp_path / "metrics.jsonl") == lines[:1]


@pytest.mark.parametrize(
    "damaged",
    [
        *('{"step": 3, "lo', '{"loss": 1.0}', '{"step": "3"}', "[]", "7", "[" * 100_000),
        *('{"step": 3, "loss": "a"}', '{"step": 3, "loss": NaN}', '{"step": 3, "loss": 1e999}'),
        *('{"step": 3, "val": 1}', '{"step": 3, "val": {"prediction": [1]}}'),
        *('{"step": 3, "val": {"prediction": {"mse": []}}}', "\udcff"),
        '{"step": 3, "loss": 1' + "0" * 400 + "}",
    ],
)
def test_a_log_ends_where_it_is_damaged(tmp_path, damaged):
    good = {"step": 2, "loss": None, "val": {"prediction": {"mse": 1.5}}}
    text = "\n".join((json.dumps(good), damaged, json.dumps(good)))
    (tmp_path / "metrics.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    assert read_jsonl(tmp_path / "metrics.jsonl") == [good]
