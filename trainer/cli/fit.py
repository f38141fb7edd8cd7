"""Train a model: `mmtrain fit`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainer.errors import InputError

if TYPE_CHECKING:
    from trainer.config import TrainConfig
    from trainer.loop import Fitted


@click.command()
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

    from trainer.address import is_live, parse_weighted
    from trainer.dry_run import as_text
    from trainer.dry_run import dry_run as look_ahead
    from trainer.loop import fit as train
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
