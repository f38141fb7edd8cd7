"""What a run leaves behind while it runs: metrics.jsonl, timing.jsonl and lines on stderr.

metrics.jsonl holds only what config and seed determine, so that a resumed run's file is equal to an
undisturbed one's; clocks go to timing.jsonl.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmgen.shard.manifest import write_atomic

_SPEAK_EVERY_S = 5.0


class RunLog:
    """The log of one run.

    run    its folder
    steps  how many there will be
    start  the step it begins after; later lines of an interrupted run are cut off
    quiet  nothing on stderr
    is_due  which of the kept lines stay: the last ones of a run that grows longer do not
    """

    def __init__(
        self,
        run: Path,
        steps: int,
        start: int = 0,
        *,
        quiet: bool = False,
        is_due: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> None:
        self.run = run
        self.steps = steps
        self.start = start
        self.quiet = quiet
        self._began = self._spoken = self._marked = time.monotonic()
        self._marked_step = start
        self._waited_s = self._waited_unspoken_s = 0.0
        for name in ("metrics.jsonl", "timing.jsonl"):
            _cut_back(run / name, start, is_due)

    def metrics(self, line: dict[str, Any]) -> None:
        """Append to metrics.jsonl; `line` has a step."""
        _append(self.run / "metrics.jsonl", line)

    def waited(self, seconds: float) -> None:
        """Note time in which there was nothing to do but wait for data."""
        self._waited_s += seconds
        self._waited_unspoken_s += seconds

    def timing(self, step: int, batch_size: int) -> None:
        """Append the speed since the last call to timing.jsonl."""
        now = time.monotonic()
        elapsed_s, self._marked = now - self._marked, now
        done, self._marked_step = step - self._marked_step, step
        line = {
            "step": step,
            "seconds": round(now - self._began, 3),
            "sequences_per_s": round(done * batch_size / elapsed_s, 1),
            "data_wait": round(self._waited_s / elapsed_s, 4),
        }
        self._waited_s = 0.0
        _append(self.run / "timing.jsonl", line)

    def step(self, step: int, loss: float, batch_size: int) -> None:
        """Say where the run is, every few seconds."""
        now = time.monotonic()
        if now - self._spoken < _SPEAK_EVERY_S:
            return
        waited, self._waited_unspoken_s = self._waited_unspoken_s / (now - self._spoken), 0.0
        self._spoken = now
        rate = (step - self.start) / (now - self._began)
        left_s = (self.steps - step) / rate
        self.say(
            f"step {step}/{self.steps}  loss {loss:.5f}  {rate * batch_size:.0f} sequences/s  "
            f"{waited:.0%} waiting for data  {left_s / 60:.1f} min left"
        )

    def sync(self) -> None:
        """Bring metrics.jsonl onto the disk."""
        with (self.run / "metrics.jsonl").open("a", encoding="utf-8") as file:
            os.fsync(file.fileno())

    def say(self, line: str) -> None:
        """Print a line on stderr."""
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a log; the torn last line of a killed run is left out."""
    lines = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def _cut_back(path: Path, step: int, is_due: Callable[[dict[str, Any]], bool]) -> None:
    kept = (line for line in read_jsonl(path) if line["step"] <= step and is_due(line))
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
