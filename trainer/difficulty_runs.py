"""The difficulty curves of runs: what a run must be for one, and what its axes start from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen.config import GeneratorConfig
from trainer.address import is_live
from trainer.checkpoint import open_run
from trainer.config import DataConfig
from trainer.difficulty_axes import find_points
from trainer.difficulty_curves import DEFAULT_BASE, difficulty
from trainer.errors import InputError
from trainer.model import VideoAutoencoder
from trainer.result_files import check_folder
from trainer.run_folder import trained_on
from trainer.source import LIVE_SEQUENCES
from trainer.world import one_line_when_out_of_memory


@dataclass(frozen=True)
class _Run:
    path: Path
    checkpoint: str
    model: VideoAutoencoder
    data: DataConfig


@one_line_when_out_of_memory()
def difficulty_of_runs(
    paths: Sequence[Path],
    axes: Mapping[str, Sequence[object]],
    out: Path,
    *,
    base: str | None = None,
    num_sequences: int = LIVE_SEQUENCES,
    device: str = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Score the newest checkpoints of runs as `difficulty` does, for one figure.

    base    None: what the first run was trained on where that is one live address, else srivastava
            with its canvas and as many frames as it shows and predicts
    raises  InputError before anything is scored, for runs that cannot stand in one figure too
    """
    check_folder(out)
    runs = _named([_load(path, device) for path in paths])
    first, *others = runs.values()
    for other in others:
        _check_alike(other, first)
    context, steps = first.data.context, first.data.predict
    base = _own_base(first) if base is None else base
    for point in find_points(base, axes, context, steps):
        if point.frame_shape != first.model.frame_shape:
            raise InputError(
                f"{point.address}: frames are {point.frame_shape}, the model of {first.path} was "
                f"trained on {first.model.frame_shape}"
            )
    return difficulty(
        {name: run.model.generate for name, run in runs.items()},
        axes,
        out,
        base=base,
        num_sequences=num_sequences,
        context=context,
        steps=steps,
        about={
            name: {"run": str(run.path), "checkpoint": run.checkpoint} for name, run in runs.items()
        },
        say=say,
    )


def _load(path: Path, device: str) -> _Run:
    name, _, config, model = open_run(path, device)
    if not config.model.predicts:
        raise InputError(f"{path}: only reconstructs; name a run with the decoder predict")
    return _Run(path, name, model, config.data)


def _named(runs: Sequence[_Run]) -> dict[str, _Run]:
    """Name runs by their folders, or their paths where two folders have one name."""
    short = {run.path.resolve().name: run for run in runs}
    named = short if len(short) == len(runs) else {str(run.path): run for run in runs}
    if len(named) < len(runs):
        raise InputError("a run is named twice; once is enough")
    return named


def _check_alike(run: _Run, first: _Run) -> None:
    """Refuse runs of which each would need a figure of its own."""
    for what, here, there in (
        ("frames are", run.model.frame_shape, first.model.frame_shape),
        ("context is", run.data.context, first.data.context),
        ("predict is", run.data.predict, first.data.predict),
    ):
        if here != there:
            raise InputError(
                f"{run.path}: {what} {here}, of {first.path} {there}; only equals share a figure"
            )


def _own_base(run: _Run) -> str:
    data = list(trained_on(run.path))
    if len(data) == 1 and is_live(data[0]):
        return data[0]
    height, width, *colors = run.model.frame_shape
    needed = {
        "canvas": f"{height}x{width}",
        "frames": run.data.context + run.data.predict,
        "color": "random" if colors else "grey",
    }
    usual = GeneratorConfig().model_dump()
    fields = [f"{name}={value}" for name, value in needed.items() if value != usual[name]]
    return DEFAULT_BASE + ("?" if fields else "") + "&".join(fields)
