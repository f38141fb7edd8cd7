"""What can go wrong in mmgen, and what a command line says about it.

`cli` turns every error into one line and an exit code through `explain`; nothing here knows of
click, and this file imports nothing of the project.
"""

import io
import sys

_LONGEST = 2000  # characters of an error: all fields of a config are 700


class MmgenError(Exception):
    """Anything mmgen refuses or cannot finish; the message is one line a person can act on."""

    exit_code = 1


class InputError(MmgenError):
    """Bad input, seen before work starts: a field, a path, a file that does not parse."""

    exit_code = 2


class ShardError(MmgenError):
    """Stored content that does not hold what its manifest vouches for."""


def explain(error: BaseException) -> tuple[str, int] | None:
    """Return the line and the exit code for an error of the user or the machine, None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted: what has its final name is complete; the same command goes on", 130
    if isinstance(error, BrokenPipeError):
        return None  # `mmgen info DATA | head`: click ends that quietly
    if isinstance(error, MemoryError):
        return "not enough memory; lower canvas, frames or the shard size", 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", 1
    code = getattr(error, "exit_code", None)
    if isinstance(code, int) and isinstance(error, Exception):
        return _as_line(str(error)), code
    return None


def _as_line(text: str) -> str:
    """Make what quotes a value of a file or a command line one line that a person can read."""
    line = " ".join(text.splitlines())
    return (
        line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 4 :]}"
    )


def say_any_text() -> None:
    """Let stdout show what its encoding lacks, as hexadecimal: a path may be no UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
