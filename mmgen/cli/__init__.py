"""The command `mmgen`, one file a command: parse, call, print.

Errors become one line here and nowhere else.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from mmgen import __version__
from mmgen.cli.export import export
from mmgen.cli.generate import generate
from mmgen.cli.import_ import import_
from mmgen.cli.info import info
from mmgen.cli.presets import presets
from mmgen.cli.preview import preview
from mmgen.cli.stats import stats
from mmgen.cli.verify import verify
from mmgen.errors import MmgenError, explain, say_any_text

_CONTINUED = ("generate", "import")  # what they have written so far is used by the next run


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, which clears away what is unfinished."""
    is_free = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_free:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if is_free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


class OneLineErrors(click.Group):
    """A group whose commands end in one line and the right exit code; bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        say_any_text()
        try:
            with _terminated_as_interrupted():
                return super().invoke(ctx)
        except (MmgenError, OSError, MemoryError, KeyboardInterrupt) as error:
            explained = explain(error)
            if isinstance(error, KeyboardInterrupt) and ctx.invoked_subcommand not in _CONTINUED:
                line = "interrupted: nothing unfinished is left; the same command starts anew"
                explained = line, explained[1] if explained else 1
            if explained is None or ctx.params.get("traceback"):
                raise
            click.echo(f"Error: {explained[0]}", err=True)
            ctx.exit(explained[1])


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--traceback", is_flag=True, help="Show where an error comes from.")
def main(traceback: bool) -> None:
    """Generate Moving MNIST sequences of exactly the difficulty you choose.

    Look at some first: mmgen preview --preset srivastava -o a.gif
    """


for command in (generate, info, verify, preview, stats, export, import_, presets):
    main.add_command(command)
