"""What is learned in how much time: preset `small` against the 2020 tutorial's code as written.

    python tests/benchmarks/bench_learning.py ours --steps 3600 [--seconds 1500] [--threads 2]
    python tests/benchmarks/bench_learning.py tutorial --seconds 1500
    python tests/benchmarks/bench_learning.py table

Both train on live:srivastava, 512 units, batches of 32, until their steps or seconds are over, and
are looked at every minute on 1 000 held-out sequences, digits nobody trained on, with the clock
stopped. `ours` follows a one-cycle over --steps, so they should be what the seconds suffice for;
`tutorial` is its model, loss and optimizer as written, Adam 5e-4 throughout. To compare them on a
busy machine start both at once, with one thread each. Looks go to results/learning_*.jsonl, `table`
makes results/bench_learning.md and examples/learning.png of them.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from measure import cpu_name
from torch import Tensor
from tutorial_model import TutorialModel, train_step

from trainer.build import build_model
from trainer.config import TrainConfig, load_config
from trainer.gradients import add_gradients
from trainer.look import look_at
from trainer.model import to_values
from trainer.noise import Noise
from trainer.optimizer import Updater
from trainer.schedule import learning_rate
from trainer.source import open_source
from trainer.stream import Batch, SequenceStream
from trainer.world import World, pick_precision, product_dtype

RESULTS = Path(__file__).parent / "results"
DATA = "live:srivastava"
NUM_SEQUENCES = 1000
LOOK_EVERY_S = 60.0
LABELS = {"ours": "preset small", "tutorial": "the 2020 tutorial's code, 512 units"}
FC_LSTM = 118.3  # prediction MSE per frame of FC-LSTM as PredRNN (2017) printed it, canonical file


def ours(config: TrainConfig) -> tuple[Callable[[Batch, int], object], Callable[[], Any]]:
    """Return what takes a step, and what gives the model."""
    model = build_model(config.model, (64, 64))
    precision = pick_precision(config.run.precision, torch.device("cpu"))
    model.round_products(product_dtype(precision))
    updater = Updater(model, config.optimizer, precision)
    world = World(0, 0, 1)

    def take(batch: Batch, step: int) -> Tensor:
        model.train()
        add_gradients(model, updater, batch, Noise(), config, world, is_varied=False)
        return updater.update(learning_rate(config.optimizer, step, config.run.steps))

    return take, lambda: model


def tutorial(config: TrainConfig) -> tuple[Callable[[Batch, int], object], Callable[[], Any]]:
    """Return what takes a step, and what gives a model of ours with the tutorial's weights."""
    model = TutorialModel("cpu", 64 * 64, config.model.hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    looked_at = build_model(config.model, (64, 64))

    def take(batch: Batch, step: int) -> Tensor:
        values = to_values(batch.frames)
        return train_step(model.train(), optimizer, values[:, :10], values[:, 10:])

    def get() -> Any:
        looked_at.load_state_dict(model.state_dict())
        return looked_at

    return take, get


def learn(who: str, seconds: float, steps: int, seed: int) -> Iterator[dict[str, Any]]:
    """Train, and yield looks at the split test."""
    config = load_config("small", assignments=[f"steps={steps}", f"seed={seed}"])
    torch.manual_seed(seed)
    take, model = {"ours": ours, "tutorial": tutorial}[who](config)
    test = open_source(DATA, "test")
    stream = SequenceStream(f"{DATA}?seed={seed}", config.data.batch_size)
    spent, looked, began = 0.0, 0.0, time.monotonic()
    for step, batch in enumerate(islice(stream, steps)):
        take(batch, step)
        spent = time.monotonic() - began
        is_last = step + 1 == steps or spent >= seconds
        if is_last or spent - looked >= LOOK_EVERY_S:
            scores = look_at(model(), test, config, NUM_SEQUENCES, World(0, 0, 1))
            errors = {head: score["mse"] for head, score in scores.items()}
            yield {"seconds": round(spent, 1), "step": step + 1, **errors}
            looked, began = spent, time.monotonic() - spent  # looking is not counted
        if is_last:
            return


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    first, *looks = map(json.loads, path.read_text().splitlines())
    return first, looks


def write_table() -> None:
    """Write the curves of all runs as a table and as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    lines = ["# bench_learning.py", ""]
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for path in sorted(RESULTS.glob("learning_*.jsonl")):
        about, looks = read(path)
        lines += [f"{about['who']}: {about['machine']}", ""]
        lines += ["| seconds | steps | prediction MSE | reconstruction MSE |"]
        lines += ["| --: | --: | --: | --: |"]
        lines += [
            f"| {x['seconds']:.0f} | {x['step']} | {x['prediction']:.1f} | "
            f"{x['reconstruction']:.1f} |"
            for x in looks
        ] + [""]
        minutes = [look["seconds"] / 60 for look in looks]
        label = f"{LABELS[about['who']]}, {about['threads']} thread{'s' * (about['threads'] > 1)}"
        axes.plot(minutes, [look["prediction"] for look in looks], label=label)
    axes.axhline(FC_LSTM, color="grey", linewidth=1, linestyle="--")
    axes.text(
        0.98,
        FC_LSTM + 1,
        "FC-LSTM as the PredRNN papers print it (canonical test file)",
        transform=axes.get_yaxis_transform(),
        ha="right",
        fontsize="small",
        color="grey",
    )
    axes.set(xlabel="minutes of training", ylabel="prediction MSE per frame", ylim=(95, 175))
    axes.legend(frameon=False)
    figure.savefig(Path(__file__).parents[2] / "examples" / "learning.png", dpi=110)
    (RESULTS / "bench_learning.md").write_text("\n".join(lines), encoding="utf-8")


def machine(threads: int) -> str:
    plural = "s" * (threads > 1)
    return f"{threads} thread{plural} on a shared {cpu_name()}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("who", choices=("ours", "tutorial", "table"))
    parser.add_argument("--seconds", type=float, default=1500.0)
    parser.add_argument("--steps", type=int, default=10**6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the file of looks, instead of the candidate's")
    options = parser.parse_args()
    if options.who == "table":
        write_table()
        return
    torch.set_num_threads(options.threads)
    path = RESULTS / f"learning_{options.name or options.who}.jsonl"
    about = {"who": options.who, "threads": options.threads, "seed": options.seed}
    with path.open("w", encoding="utf-8") as file:
        print(json.dumps(about | {"machine": machine(options.threads)}), file=file)
        for look in learn(options.who, options.seconds, options.steps, options.seed):
            print(json.dumps(look), file=file, flush=True)
            print(look, flush=True)


if __name__ == "__main__":
    main()
