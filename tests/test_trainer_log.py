"""What a run says while it runs."""

import json

import pytest

from trainer import log as log_module
from trainer.log import RunLog


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(log_module.time, "monotonic", lambda: now[0])
    return now


def test_the_share_of_time_spent_waiting_is_written_and_said(tmp_path, clock, capsys):
    log = RunLog(tmp_path, steps=100)
    clock[0] += 4
    log.waited(1.0)
    log.timing(10, batch_size=8)
    log.step(10, 0.5, batch_size=8)  # too early to speak
    clock[0] += 4
    log.waited(3.0)
    log.timing(20, batch_size=8)
    log.step(20, 0.25, batch_size=8)
    clock[0] += 8
    log.timing(60, batch_size=8)
    log.step(60, 0.125, batch_size=8)
    lines = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert [line["data_wait"] for line in lines] == [0.25, 0.75, 0]
    assert [line["sequences_per_s"] for line in lines] == [20, 20, 40]
    assert capsys.readouterr().err.splitlines() == [
        "step 20/100  loss 0.25000  20 sequences/s  50% waiting for data  0.5 min left",
        "step 60/100  loss 0.12500  30 sequences/s  0% waiting for data  0.2 min left",
    ]
