"""When a run has to end early: signals and the clock only note it, the loop stops between steps."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Around training: notes that somebody wants it to end, so that a checkpoint comes first.

    The clock counts from entering, signals are noted from `listen` on. A second SIGINT does not
    wait. Outside the main thread signals cannot be listened to, and one that is ignored, as SIGINT
    is in a shell's background jobs, stays so.

    max_time_s  seconds from entering until it is enough; None for no limit
    """

    def __init__(self, max_time_s: float | None = None) -> None:
        self._max_time_s = max_time_s
        self._entered = time.monotonic()
        self._noted: list[str] = []
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int] = {}

    def __enter__(self) -> Self:
        self._entered = time.monotonic()
        return self

    def listen(self) -> None:
        """Only note signals from now on, until the end."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                # None: C code listens, and is let be.
                if handler is not None and handler != signal.SIG_IGN:
                    signal.signal(number, self._note)
                    self._before[number] = handler

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @property
    def reason(self) -> str | None:
        """Why to stop, "SIGINT", "SIGTERM" or "max-time"; None while nobody wants it."""
        if self._noted:
            return self._noted[0]
        is_late = (
            self._max_time_s is not None and time.monotonic() - self._entered >= self._max_time_s
        )
        return "max-time" if is_late else None

    def _note(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name == "SIGINT" and name in self._noted:
            raise KeyboardInterrupt
        self._noted.append(name)
