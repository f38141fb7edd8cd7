"""A run that has to end early."""

import signal
import threading

import pytest

from trainer.stopping import Stop


@pytest.fixture(autouse=True)
def usual_handlers():
    """Listen as an interpreter does that a person started, whoever started this one."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_is_only_noted(name):
    with Stop() as stop:
        stop.listen()
        assert stop.reason is None
        signal.raise_signal(signal.Signals[name])
        assert stop.reason == name


def test_until_it_listens_signals_do_what_they_did():
    with Stop(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_second_interrupt_does_not_wait():
    with Stop() as stop:
        stop.listen()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.reason == "SIGINT"


def test_terminating_twice_waits_and_an_interrupt_after_it_too():
    with Stop() as stop:
        stop.listen()
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert stop.reason == "SIGTERM"  # what came first
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_afterwards_signals_do_what_they_did():
    def ours(number, frame):
        pass

    signal.signal(signal.SIGTERM, ours)
    with Stop() as stop:
        stop.listen()
        assert signal.getsignal(signal.SIGTERM) is not ours
    assert signal.getsignal(signal.SIGTERM) is ours
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Stop() as stop:
        stop.listen()
        signal.raise_signal(signal.SIGINT)
        assert stop.reason is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.reason == "SIGTERM"
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_the_clock_counts_from_entering(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stop = Stop(max_time_s=60)
    now = 1000.0
    with stop:
        assert stop.reason is None
        now += 59.9
        assert stop.reason is None
        now += 0.1
        assert stop.reason == "max-time"
        stop.listen()
        signal.raise_signal(signal.SIGINT)
        assert stop.reason == "SIGINT"  # somebody wants it to end now, and may ask again


def test_other_threads_hear_the_clock_alone():
    reasons = []

    def train():
        with Stop() as stop:
            stop.listen()
            reasons.append(stop.reason)
        with Stop(max_time_s=0) as stop:
            reasons.append(stop.reason)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert reasons == [None, "max-time"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
