"""Progress on stderr: a bar on a terminal, a line every few seconds anywhere else."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_LINE_EVERY_S = 5.0


class Progress(Protocol):
    """What tells of finished work."""

    def __call__(self, amount: int, num_bytes: int = 0, /) -> None:
        """Add to the sequences done, and to the bytes written for them; safe in any thread."""


@contextmanager
def progress_bar(what: str, total: int, *, quiet: bool = False) -> Iterator[Progress]:
    """Show rate and time left, and where bytes are written their number."""
    if quiet:
        yield lambda _amount, _num_bytes=0, /: None
    elif sys.stderr.isatty():
        yield from _bar(what, total)
    else:
        yield _Lines(what, total).add


def _bar(what: str, total: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate = f"{task.speed:,.0f}/s" if task.speed else ""
            return Text(" ".join((rate, *_written(task.fields["num_bytes"]))))

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    lock = threading.Lock()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, num_bytes=0)

        def add(amount: int, num_bytes: int = 0, /) -> None:
            with lock:
                num_bytes += bar.tasks[0].fields["num_bytes"]
                bar.update(task, advance=amount, num_bytes=num_bytes)

        yield add


class _Lines:
    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.done = self.num_bytes = 0
        self.started = self.spoken = time.monotonic()
        self.lock = threading.Lock()

    def add(self, amount: int, num_bytes: int = 0, /) -> None:
        with self.lock:
            self.done += amount
            self.num_bytes += num_bytes
            now = time.monotonic()
            if now - self.spoken < _LINE_EVERY_S:
                return
            self.spoken = now
            rate = self.done / (now - self.started)
            left_s = (self.total - self.done) / rate if rate else 0
            parts = f"{self.what} {self.done}/{self.total}", f"{rate:.0f} sequences/s"
            written = (f"{size} written" for size in _written(self.num_bytes))
            line = ", ".join((*parts, *written, f"{left_s:.0f} s left"))
        print(line, file=sys.stderr, flush=True)


def _written(num_bytes: int) -> tuple[str, ...]:
    return (f"{num_bytes / 1e6:.1f} MB",) if num_bytes else ()
