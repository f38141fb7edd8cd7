"""The command `mmtrain`: parse, call, print. Errors become one line here and nowhere else."""

import json
from pathlib import Path
from typing import Any

import click

from mmgen.errors import MmgenError, explain
from trainer.errors import InputError, TrainerError


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
            click.echo(f"Error: {explained[0]}", err=True)
            ctx.exit(explained[1])


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="moving-mnist")
@click.option("--traceback", is_flag=True, help="Show where an error comes from.")
def main(traceback: bool) -> None:
    """Train a video autoencoder on Moving MNIST shards, and measure what it learned."""


@main.command()
@click.argument("data", nargs=-1, required=True, metavar="DATA[=WEIGHT]...")
@click.option("--run", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option(
    "--preset", default="tutorial", show_default=True, help="tutorial (2048 units) or small."
)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with fields to change.")
@click.option(
    "--set", "assignments", metavar="FIELD=VALUE", multiple=True, help="Set one field: hidden=256."
)
@click.option("--steps", type=int, help="Optimizer steps.")
@click.option("--device", help="auto (CUDA when it is there), cpu, cuda or cuda:N.")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint, if there is one.")
@click.option("--overwrite", is_flag=True, help="Throw an earlier run in the folder away.")
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
    as_json: bool,
) -> None:
    """Train on the split train of DATA and watch its val.

    Several DATA are mixed by their weights (default 1), and the val of the first is watched. DATA
    is a folder, or live:PRESET or live:FILE.toml, rendered while training: `?seed=N&FIELD=VALUE`
    may follow, and --steps must.

    Example: mmtrain fit data/easy --run runs/easy --preset small --steps 500
    """
    from trainer.config import is_set, load_config

    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other")
    synonyms = {"steps": steps, "device": device}
    given = [f"{name}={value}" for name, value in synonyms.items() if value is not None]
    words = (*assignments, *given)
    resolved = load_config(preset, config, words)

    from trainer.loop import fit as train
    from trainer.source import is_live, parse_weighted

    weighted = parse_weighted(data)
    endless = next(filter(is_live, weighted), None)
    if endless and not is_set("steps", config, words):
        raise InputError(f"{endless}: live data have no end; say how far to go with --steps N")
    looked = train(resolved, weighted, run, resume=resume, overwrite=overwrite, quiet=as_json)
    if as_json:
        result = {"run": str(run), "steps": resolved.run.steps, "val": looked or None}
        click.echo(json.dumps(result))
    elif looked:
        click.echo(
            f"{run}: {resolved.run.steps} steps; val prediction MSE "
            f"{looked['prediction']['mse']:.1f}, reconstruction MSE "
            f"{looked['reconstruction']['mse']:.1f} per frame"
        )
    else:
        click.echo(f"{run}: {resolved.run.steps} steps")


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
