"""The command `mmtrain`: parse, call, print. Errors become one line here and nowhere else."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmgen.errors import MmgenError, explain
from trainer.errors import InputError, Stopped, TrainerError

if TYPE_CHECKING:
    from trainer.config import TrainConfig
    from trainer.loop import Fitted


class OneLineErrors(click.Group):
    """A group whose commands end in one line and the right exit code; bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (MmgenError, TrainerError, OSError, MemoryError, KeyboardInterrupt) as error:
            explained = explain(error)
            if isinstance(error, KeyboardInterrupt):
                is_fit = ctx.invoked_subcommand == "fit"
                how = ": checkpoints are complete; go on with --resume" if is_fit else ""
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
@click.version_option(package_name="moving-mnist")
@click.option("--traceback", is_flag=True, help="Show where an error comes from.")
def main(traceback: bool) -> None:
    """Train a video autoencoder on Moving MNIST shards, and measure what it learned."""


@main.command()
@click.argument("data", nargs=-1, required=True, metavar="DATA[=WEIGHT]...")
@click.option("--run", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option(
    "--preset",
    default="tutorial",
    show_default=True,
    help="tutorial, paper-1layer, paper-2layer, shi-fc-lstm, or small: minutes on a CPU.",
)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with fields to change.")
@click.option(
    "--set", "assignments", metavar="FIELD=VALUE", multiple=True, help="Set one field: hidden=256."
)
@click.option("--steps", type=int, help="Optimizer steps.")
@click.option("--device", help="auto (CUDA when it is there), cpu, cuda or cuda:N.")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint, if there is one.")
@click.option("--overwrite", is_flag=True, help="Throw an earlier run in the folder away.")
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    help="First weights: a checkpoint, or a state dict such as the tutorial's model.bin.",
)
@click.option("--reference", is_flag=True, help="Train the plain model, the fast one's oracle.")
@click.option("--deterministic", is_flag=True, help="Make equal runs equal in each bit on CUDA.")
@click.option(
    "--max-time",
    "max_time_s",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds after which a checkpoint is written and the run ends.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and train nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def fit(
    data: tuple[str, ...],
    run: Path,
    preset: str,
    config: Path | None,
    assignments: tuple[str, ...],
    steps: int | None,
    device: str | None,
    resume: bool,
    overwrite: bool,
    init_from: Path | None,
    reference: bool,
    deterministic: bool,
    max_time_s: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train on the split train of DATA and watch its val.

    Several DATA are mixed by their weights (default 1), and the val of the first is watched. DATA
    is a folder, or live:PRESET or live:FILE.toml, rendered while training: `?seed=N&FIELD=VALUE`
    may follow, and --steps must. On several GPUs each rank trains with its part of every batch:
    torchrun --nproc-per-node 8 --no-python -- mmtrain fit DATA ... (mind the two dashes).

    Example: mmtrain fit data/easy --run runs/easy --preset small --steps 500
    """
    from trainer.config import is_set, load_config

    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other")
    synonyms = {"steps": steps, "device": device}
    given = [f"{name}={value}" for name, value in synonyms.items() if value is not None]
    words = (*assignments, *given)
    resolved = load_config(preset, config, words)

    from trainer.dry_run import as_text
    from trainer.dry_run import dry_run as look_ahead
    from trainer.loop import fit as train
    from trainer.source import is_live, parse_weighted
    from trainer.world import find_world

    weighted = parse_weighted(data)
    endless = next(filter(is_live, weighted), None)
    if endless and not is_set("steps", config, words):
        raise InputError(f"{endless}: live data have no end; say how far to go with --steps N")
    start: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "init_from": init_from}
    if dry_run:
        found = look_ahead(resolved, weighted, run, **start)
        if find_world().is_first:
            click.echo(json.dumps(found) if as_json else as_text(found), nl=as_json)
        return
    fitted = train(
        resolved,
        weighted,
        run,
        **start,
        reference=reference,
        deterministic=deterministic,
        max_time_s=max_time_s,
        quiet=as_json,
    )
    if not find_world().is_first:
        return
    if as_json:
        result = {"run": str(run), "steps": fitted.step, "ended": fitted.ended}
        best = fitted.best._asdict() if fitted.best else None
        click.echo(json.dumps(result | {"val": fitted.val or None, "best": best}))
        return
    click.echo(f"{run}: {_told(fitted, resolved)}")


def _told(fitted: "Fitted", config: "TrainConfig") -> str:
    """Say how a run ended."""
    all_steps = config.run.steps
    how = {
        "steps": f"{fitted.step} steps",
        "patience": f"ended after {fitted.step} of {all_steps} steps, {config.run.patience} looks "
        "at val without a new best",
        "max-time": f"{fitted.step} of {all_steps} steps in the time given; go on with --resume",
    }[fitted.ended]
    heads = [
        f"{head} MSE {fitted.val[head]['mse']:.1f}"
        for head in ("prediction", "reconstruction")
        if head in fitted.val
    ]
    return f"{how}; val {', '.join(heads)} per frame" if heads else how


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option(
    "--sequences",
    type=click.IntRange(min=1),
    help="The first ones.  [default: all, or 1000 of live data]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def evaluate(
    run: Path, data: str, split: str, sequences: int | None, device: str, as_json: bool
) -> None:
    """Score the newest checkpoint of RUN on DATA, beside predictors that know nothing.

    MSE and MAE are summed over a frame's pixels, CE is nats per frame. The result also goes into
    the run's folder, for `mmtrain report`.

    Example: mmtrain evaluate runs/easy data/easy
    """
    from trainer.evaluation import evaluate_run, metric_rows

    result = evaluate_run(run, data, split, sequences, device)
    if as_json:
        click.echo(json.dumps(result))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{split} of {data}, {result['sequences']} sequences, per frame")
    for column in ("", "MSE", "MAE", "CE (nats)"):
        table.add_column(column, justify="left" if not column else "right")
    for row in metric_rows(result):
        table.add_row(*row)
    Console().print(table)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help=".gif or .png")
@click.option("--split", default="test", show_default=True, help="train, val or test.")
@click.option("--index", default=0, show_default=True, help="Which sequence.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def rollout(run: Path, data: str, out: Path, split: str, index: int, device: str) -> None:
    """Draw context, truth, reconstruction and prediction side by side.

    Example: mmtrain rollout runs/easy data/easy -o rollout.gif
    """
    from trainer.rollout import check_picture, roll_out, write_rollout

    check_picture(out)
    write_rollout(out, roll_out(run, data, split, index, device))
    click.echo(f"{out}: sequence {index} of {split}")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="FILE.html")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def report(run: Path, out: Path, device: str) -> None:
    """Write one self-contained HTML page: curves, scores, animations.

    Example: mmtrain report runs/easy -o report.html
    """
    from trainer.report import write_report

    write_report(run, out, device)
    click.echo(f"{out}: report of {run}")


@main.command()
@click.option(
    "--preset", default="tutorial", show_default=True, help="tutorial (2048 units) or small."
)
@click.option(
    "--set", "assignments", metavar="FIELD=VALUE", multiple=True, help="Set one field: hidden=256."
)
@click.option("--device", help="auto (CUDA when it is there), cpu, cuda or cuda:N.")
@click.option("--reference", is_flag=True, help="Measure the plain model's step, not the fused.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def bench(
    preset: str, assignments: tuple[str, ...], device: str | None, reference: bool, as_json: bool
) -> None:
    """Measure a training step, beside the least time that this machine needs for one.

    The least time is that of its operations at the speed of a large matrix product, and of its
    bytes at the speed of a large copy, both measured first. On a CPU the preset tutorial takes
    minutes and 5 GB.

    Example: mmtrain bench --preset small
    """
    from trainer.bench import bench as run
    from trainer.bench import print_result
    from trainer.config import load_config

    given = [] if device is None else [f"device={device}"]
    config = load_config(preset, None, (*assignments, *given))
    result = run(config, reference=reference, say=lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps(result))
    else:
        print_result(result)
