"""The figure to cite: what an LSTM and a ConvLSTM learn of how much, and what they do elsewhere.

mmtrain experiment ../experiments/fixed_sets.toml -o FOLDER/fixed_sets    # the LSTM, on two cores
mmtrain experiment ../experiments/presets.toml -o FOLDER/presets          # fifty minutes
python skill.py FOLDER        # the ConvLSTM on the same data, one hour, and all that is drawn

Killed anywhere, the same command goes on with the run it was at. `--draw` only draws again.
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import convlstm
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import trainer
from trainer.seeds import estimate

DATA = "live:srivastava"
SETS = {
    "endless": None,
    "10 000 fixed": 10_000,
    "1 000 fixed": 1_000,
}  # as fixed_sets.toml has them
PRESETS = (  # as presets.toml has them, roughly from the most skill to none
    *("easy", "tencia", "tfds", "srivastava", "medium", "mnist++", "circle"),
    *("svg-deterministic", "svg-stochastic", "hard"),
)
SEEDS = 0, 1, 2
HIDDEN, BATCH = 24, 16  # of the ConvLSTM
LOOKS = 50, 100, 150, 200, 300, 400, 500, 600, 700, 800, 900, 1000  # steps
PRESET_STEPS = 600  # 9 600 sequences, as many as the LSTM sees of a preset
VAL, TEST = 256, 300  # sequences scored at a look, and at a point of difficulty
AXES: dict[str, list[float]] = {"speed": [1, 2, 3, 3.6, 4, 5, 7], "digits": [1, 2, 3]}
COLORS = {"LSTM": "C0", "ConvLSTM": "C3"}
LINES = {"endless": "-", "10 000 fixed": "--", "1 000 fixed": ":"}
COLUMNS = "panel", "model", "set", "x", "seed", "skill"

Predict = Callable[[Tensor, int], Tensor]
Scores = dict[str, Any]  # as `mmtrain evaluate --json` prints them
Row = tuple[str, str, str, float | str, int, float]  # COLUMNS; x is where in its panel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with the experiments fixed_sets and presets")
    parser.add_argument("--draw", action="store_true", help="draw FOLDER/skill.csv again, no more")
    args = parser.parse_args()
    folder, table = args.folder, args.folder / "skill.csv"
    if not args.draw:
        (folder / "convlstm").mkdir(exist_ok=True)
        rows = [*passes(folder), *elsewhere(folder), *presets(folder)]
        with table.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    draw(table, folder / "skill.png")
    print(f"{folder}: skill.csv, skill.png")


def score(predict: Predict, data: str, split: str, count: int | None) -> Scores:
    limits = "mean frame", "known dynamics"
    asked = {"split": split, "num_sequences": count, "baselines": limits}
    return trainer.score(predict, data, **asked).as_json()


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def passes(folder: Path) -> Iterator[Row]:
    """Say what both saw of val while they were trained on sets of three sizes."""
    black = score(lambda seen, steps: torch.zeros(len(seen), steps, 64, 64), DATA, "val", VAL)
    worst = black["baselines"]["mean frame"]["mse"]
    for run in read(folder / "fixed_sets/results.csv"):
        path = folder / "fixed_sets/runs" / run["run"]
        batch = json.loads((path / "config.json").read_text())["config"]["data"]["batch_size"]
        for line in (path / "metrics.jsonl").read_text().splitlines():
            if run["data"] in SETS and "val" in (look := json.loads(line)):
                skill = 1 - look["val"]["prediction"]["mse"] / worst  # known dynamics err by 0
                yield "passes", "LSTM", run["data"], look["step"] * batch, int(run["seed"]), skill
    for seed in SEEDS:
        for name in SETS:
            stored = folder / "fixed_sets/data" / name.replace(" ", "-")
            _, looks = trained(folder, name, DATA if name == "endless" else stored, seed, LOOKS)
            for step, skill in looks:
                yield "passes", "ConvLSTM", name, step * BATCH, seed, skill


def elsewhere(folder: Path) -> Iterator[Row]:
    """Score what was trained on the endless stream on other speeds and numbers of digits."""
    models: dict[str, Predict] = {}
    for seed in SEEDS:
        run = folder / f"fixed_sets/runs/composite--endless--seed{seed}"
        models[f"LSTM/{seed}"] = trainer.load_model(run).generate
        models[f"ConvLSTM/{seed}"], _ = trained(folder, "endless", DATA, seed, LOOKS)
    for axis, values in AXES.items():
        out = folder / axis
        found = trainer.difficulty(models, {axis: values}, out, base=DATA, num_sequences=TEST)
        for point in found["points"]:
            model, seed = point["model"].split("/")
            yield axis, model, "endless", point["at"][axis], int(seed), point["skill"]


def presets(folder: Path) -> Iterator[Row]:
    """Score both on the test split of the preset that they were trained on."""
    for run in read(folder / "presets/results.csv"):
        if run["data"] in PRESETS:
            yield "presets", "LSTM", "", run["data"], int(run["seed"]), float(run["skill"])
    for seed in SEEDS:
        for name in PRESETS:
            data = f"live:{name}"
            predict, _ = trained(folder, name, data, seed, (PRESET_STEPS,))
            skill = score(predict, data, "test", None)["skill"]
            yield "presets", "ConvLSTM", "", name, seed, skill


def trained(
    folder: Path, name: str, data: str | Path, seed: int, looks: Sequence[int]
) -> tuple[Predict, list[tuple[int, float]]]:
    """Train a ConvLSTM until the last look, unless an earlier call has; say its skill at each."""
    path = folder / "convlstm" / f"{name.replace(' ', '-')}--seed{seed}.pt"
    torch.manual_seed(seed)
    model = convlstm.Forecaster(HIDDEN).to(convlstm.DEVICE)
    model.forward = torch.autocast(convlstm.DEVICE, torch.bfloat16)(model.forward)

    def predict(context: Tensor, steps: int) -> Tensor:
        return model(context.to(convlstm.DEVICE) / 255, steps).sigmoid()

    said = path.with_suffix(".json")
    if not said.exists():
        stream = trainer.SequenceStream(data, batch_size=BATCH, seed=seed)
        found = []
        for step, _ in convlstm.train(model, stream, looks[-1]):
            if step in looks:
                asked = data if isinstance(data, str) else DATA
                found.append((step, score(predict, asked, "val", VAL)["skill"]))
                print(f"{name}, seed {seed}, step {step}: skill {found[-1][1]:.3f}", flush=True)
        torch.save(model.state_dict(), path)
        said.write_text(json.dumps(found))  # last: it says that the run is finished
    model.load_state_dict(torch.load(path, map_location=convlstm.DEVICE))
    return predict, [(step, skill) for step, skill in json.loads(said.read_text())]


def draw(table: Path, out: Path) -> None:
    """Draw means over the seeds and their 95 % t intervals."""
    rows = read(table)
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    layout = [["passes", "presets"], ["speed", "digits"]]
    panels = figure.subplot_mosaic(layout, sharey=True, width_ratios=(5, 4))
    for name, axes in panels.items():
        axes.axhline(1, color="0.15", linestyle="-.", linewidth=1)
        axes.axhline(0, color="0.55", linestyle="-.", linewidth=1)
        axes.grid(alpha=0.3)
        groups: dict[tuple[str, str], dict[str, list[float]]] = {}
        for row in rows:
            if row["panel"] == name:
                group = groups.setdefault((row["model"], row["set"]), {})
                group.setdefault(row["x"], []).append(float(row["skill"]))
        for (model, size), group in groups.items():
            draw_group(axes, model, size, group)
    passes, presets = panels["passes"], panels["presets"]
    passes.set(xscale="log", xlabel="sequences seen in training", ylim=(-0.45, 1.15))
    small = {"fontsize": "small", "transform": passes.get_yaxis_transform()}
    passes.text(0.02, 1.04, "known dynamics (the oracle)", **small)
    passes.text(0.02, -0.1, "mean frame", color="0.45", **small)
    passes.legend(frameon=False, fontsize="small", loc=(0.02, 0.5))
    passes.set_title("trained on sets of three sizes", fontsize="medium")
    presets.set_xticks(range(len(PRESETS)), PRESETS, rotation=35, ha="right")
    presets.set_title("trained on 9 600 sequences of each preset", fontsize="medium")
    panels["speed"].set(xlabel="speed (px per frame)", xticks=AXES["speed"])
    panels["digits"].set(xlabel="digits", xticks=AXES["digits"])
    for axis in AXES:
        panels[axis].set_title(
            "trained on two digits at 3.6 px per frame, then tested", fontsize="medium"
        )
    for axes in (passes, panels["speed"]):
        axes.set_ylabel("skill")
    figure.savefig(out, dpi=150)


def draw_group(axes: Axes, model: str, size: str, group: dict[str, list[float]]) -> None:
    """Draw what one model has learned of one set, or of each preset."""
    found = [estimate(skills) for skills in group.values()]
    means = [one.mean for one in found]
    lows, highs = zip(*(one.interval or (one.mean, one.mean) for one in found), strict=True)
    color = COLORS[model]
    if size:
        at = [float(x) for x in group]
        count = SETS[size]
        passes = f", {at[-1] / count:.1f} passes" if count else ""
        axes.plot(at, means, LINES[size], color=color, label=f"{model}, {size}{passes}")
        axes.fill_between(at, lows, highs, color=color, alpha=0.2, linewidth=0)
    else:
        at = [PRESETS.index(x) + (-0.12 if model == "LSTM" else 0.12) for x in group]
        axes.plot(at, means, "o", color=color, markersize=4)
        axes.vlines(at, lows, highs, color=color, linewidth=2)


if __name__ == "__main__":
    main()
