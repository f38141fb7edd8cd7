"""Progress on stderr: a bar on a terminal, a line every few seconds anywhere else."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_EVERY_S = 5.0


@contextmanager
def progress_bar(what: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Yield a function, safe in any thread, that adds to the number of sequences done."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        yield from _bar(what, total)
    else:
        yield _Lines(what, total).add


def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
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
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda amount: bar.advance(task, amount)


class _Lines:
    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.done = 0
        self.started = self.spoken = time.monotonic()
        self.lock = threading.Lock()

    def add(self, amount: int) -> None:
        with self.lock:
            self.done += amount
            now = time.monotonic()
            if now - self.spoken < _LINE_EVERY_S:
                return
            self.spoken = now
            rate = self.done / (now - self.started)
            left_s = (self.total - self.done) / rate if rate else 0
            line = (
                f"{self.what} {self.done}/{self.total}, {rate:.0f} sequences/s, {left_s:.0f} s left"
            )
        print(line, file=sys.stderr, flush=True)
