"""The command `mmtrain`, one file a command: parse, call, print.

Errors become one line here and nowhere else.
"""

from typing import Any

import click

from mmgen import __version__
from mmgen.errors import MmgenError, explain, say_any_text
from trainer.cli.bench import bench
from trainer.cli.classify import classify
from trainer.cli.difficulty import difficulty
from trainer.cli.evaluate import evaluate
from trainer.cli.experiment import experiment
from trainer.cli.features import features
from trainer.cli.fit import fit
from trainer.cli.probe import probe
from trainer.cli.report import report
from trainer.cli.rollout import rollout
from trainer.cli.score import score
from trainer.errors import InputError, Stopped, TrainerError

_HOW_TO_GO_ON = {
    "fit": ": checkpoints are complete; go on with --resume",
    "experiment": ": what is complete stays; the same command goes on",
}


class OneLineErrors(click.Group):
    """A group whose commands end in one line and the right exit code; bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        say_any_text()
        try:
            return super().invoke(ctx)
        except (MmgenError, TrainerError, OSError, MemoryError, KeyboardInterrupt) as error:
            explained = explain(error)
            if isinstance(error, KeyboardInterrupt):
                how = _HOW_TO_GO_ON.get(ctx.invoked_subcommand or "", "")
                explained = (f"interrupted{how}", 130)
            if explained is None or ctx.params.get("traceback"):
                raise
            if not (ctx.invoked_subcommand == "fit" and _is_said_by_first(error)):
                click.echo(f"Error: {explained[0]}", err=True)
            ctx.exit(explained[1])


def _is_said_by_first(error: BaseException) -> bool:
    """Tell whether another rank says this; wait a little, so that it can, where that is unsure."""
    from trainer.world import find_world

    try:
        world = find_world()
    except InputError:  # the environment is wrong: every rank has to say that
        return False
    if isinstance(error, Stopped):
        return not world.is_first
    world.let_first_speak()
    return False


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--traceback", is_flag=True, help="Show where an error comes from.")
def main(traceback: bool) -> None:
    """Train a video autoencoder on Moving MNIST shards, and measure what it learned."""


for command in (
    *(fit, evaluate, score, rollout, difficulty, experiment),
    *(features, probe, classify, report, bench),
):
    main.add_command(command)
