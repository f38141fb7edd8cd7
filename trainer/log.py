"""What a run leaves behind while it runs: metrics.jsonl, timing.jsonl and lines on stderr.

metrics.jsonl holds only what config and seed determine, so that a resumed run's file is equal to an
undisturbed one's; clocks go to timing.jsonl.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmgen.shard.manifest import write_atomic

_LINE_EVERY_S = 5.0
_BAR_EVERY_S = 0.2
_BAR_WIDTH = 20


class RunLog:
    """The log of one run; of several ranks only the first one has any.

    run    its folder
    steps  how many there will be
    batch_size  sequences of a step
    start  the step it begins after; later lines of an interrupted run are cut off
    quiet  nothing on stderr
    is_first  whether this is the rank that writes and speaks
    stays  which of the lines of step `start` stay: the last ones of a run that grows longer do not

    looks  the val lines so far
    """

    def __init__(
        self,
        run: Path,
        steps: int,
        batch_size: int,
        start: int = 0,
        *,
        quiet: bool = False,
        is_first: bool = True,
        stays: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> None:
        self.run = run
        self.steps = steps
        self.batch_size = batch_size
        self.start = start
        self._is_first, self._speaks = is_first, is_first and not quiet
        self._began = self._spoken = self._marked = time.monotonic()
        self._marked_step = start
        self._waited_s = self._waited_unspoken_s = 0.0
        self._loss: float | None = None
        self._is_on_terminal = self._speaks and sys.stderr.isatty()
        self._is_line_open = False
        self.looks: list[dict[str, Any]] = []
        if is_first:
            for name in ("metrics.jsonl", "timing.jsonl"):
                _cut_back(run / name, start, stays)
            self.looks = read_looks(run)

    def metrics(self, line: dict[str, Any]) -> None:
        """Append to metrics.jsonl; `line` has a step."""
        self._loss = line.get("loss", self._loss)
        if "val" in line:
            self.looks.append(line)
        self._append("metrics.jsonl", line)

    def waited(self, seconds: float) -> None:
        """Note time in which there was nothing to do but wait for data."""
        self._waited_s += seconds
        self._waited_unspoken_s += seconds

    def timing(self, step: int) -> None:
        """Append the speed since the last call to timing.jsonl."""
        now = time.monotonic()
        elapsed_s, self._marked = now - self._marked, now
        done, self._marked_step = step - self._marked_step, step
        line = {
            "step": step,
            "seconds": round(now - self._began, 3),
            "sequences_per_s": round(done * self.batch_size / elapsed_s, 1),
            "data_wait": round(self._waited_s / elapsed_s, 4),
        }
        self._waited_s = 0.0
        self._append("timing.jsonl", line)

    def progress(self, step: int) -> None:
        """Say where the run is: a bar on a terminal, elsewhere a line every few seconds."""
        now = time.monotonic()
        silent_s = now - self._spoken
        if not self._speaks or silent_s < (_BAR_EVERY_S if self._is_on_terminal else _LINE_EVERY_S):
            return
        waited, self._waited_unspoken_s = self._waited_unspoken_s / silent_s, 0.0
        self._spoken = now
        rate = (step - self.start) / (now - self._began)
        loss = "" if self._loss is None else f"loss {self._loss:.5f}  "
        line = (
            f"step {step}/{self.steps}  {loss}{rate * self.batch_size:.0f} sequences/s  "
            f"{waited:.0%} waiting for data  {(self.steps - step) / rate / 60:.1f} min left"
        )
        if not self._is_on_terminal:
            self.say(line)
            return
        done = _BAR_WIDTH * step // self.steps
        bar = "#" * done + "." * (_BAR_WIDTH - done)
        whole = f"[{bar}] {line}"[: shutil.get_terminal_size().columns - 1]
        print(f"\r{whole}\x1b[K", end="", file=sys.stderr, flush=True)
        self._is_line_open = True

    def sync(self) -> None:
        """Bring metrics.jsonl onto the disk."""
        if self._is_first:
            with (self.run / "metrics.jsonl").open("a", encoding="utf-8") as file:
                os.fsync(file.fileno())

    def say(self, line: str) -> None:
        """Print a line on stderr."""
        if self._speaks:
            self.end_bar()
            print(line, file=sys.stderr, flush=True)

    def end_bar(self) -> None:
        """Leave the line of the bar, if there is one."""
        if self._is_line_open:
            print(file=sys.stderr, flush=True)
        self._is_line_open = False

    def _append(self, name: str, line: dict[str, Any]) -> None:
        if self._is_first:
            with (self.run / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")


def read_looks(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl that are looks at val."""
    return [line for line in read_jsonl(run / "metrics.jsonl") if "val" in line]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a log up to its end, or to a line that is none of ours: the last of a killed run."""
    lines = []
    if path.is_file():
        for text in path.read_bytes().splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                break
            if not _is_ours(line):
                break
            lines.append(line)
    return lines


def _is_ours(line: Any) -> bool:
    """Tell what a log holds, a step, numbers, and under val those of each decoder, from damage."""
    if not isinstance(line, dict) or type(line.get("step")) is not int:
        return False
    heads = line.get("val", {})
    if not isinstance(heads, dict) or not all(isinstance(one, dict) for one in heads.values()):
        return False
    numbers = [value for name, value in line.items() if name != "val"]
    numbers += [value for scores in heads.values() for value in scores.values()]
    return all(
        # NaN compares with nothing, and whole numbers may be larger than any float.
        value is None or (type(value) in (int, float) and abs(value) <= sys.float_info.max)
        for value in numbers
    )


def _cut_back(path: Path, step: int, stays: Callable[[dict[str, Any]], bool]) -> None:
    lines = read_jsonl(path)
    kept = (line for line in lines if line["step"] < step or (line["step"] == step and stays(line)))
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
