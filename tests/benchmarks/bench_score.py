"""What scoring costs beside what is scored: metrics of a model's outputs, and its forward pass.

    python tests/benchmarks/bench_score.py [--sequences N] [--threads N]

Preset `small` with the weights that its seed draws, 10 + 10 frames of srivastava, batches of 64, as
`mmtrain evaluate` takes them. Rounds alternate; what to read is the ratio. The table goes to stdout
and, with the machine's name, to results/bench_score.md.
"""

import argparse
import platform
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch

import mmgen
from trainer.build import build_model
from trainer.config import load_config
from trainer.model import to_values
from trainer.scored import Gatherer
from trainer.world import pick_precision, product_dtype

RESULTS = Path(__file__).parent / "results" / "bench_score.md"
FRAME = (64, 64)
BATCH = 64
ROUNDS = 7


def timed_s(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def candidates(num_sequences: int) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name: all on the same sequences."""
    config = load_config("small")
    model = build_model(config.model, FRAME).eval()
    precision = pick_precision(config.run.precision, torch.device("cpu"))
    model.round_products(product_dtype(precision))
    frames = torch.from_numpy(mmgen.render("srivastava", num_sequences).frames)
    parts = [to_values(part) for part in frames.split(BATCH)]
    said = [model(part[:, :10], 10) for part in parts]

    def forward() -> None:
        for part in parts:
            model(part[:, :10], 10)

    def metrics() -> None:
        gatherer = Gatherer(FRAME)
        for part, decoded in zip(parts, said, strict=True):
            gatherer.add("reconstruction", decoded.reconstruction, part[:, :10])
            gatherer.add("prediction", decoded.prediction, part[:, 10:])

    return {
        f"forward pass, products in {precision}": forward,
        "all six metrics of both decoders": metrics,
    }


def machine(threads: int) -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = found.group(1) if found else platform.machine()
    return f"{threads} thread{'s' * (threads > 1)} on {name}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sequences", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        works = candidates(options.sequences)
        rounds = [{name: timed_s(work) for name, work in works.items()} for _ in range(ROUNDS + 1)]
    rounds = rounds[1:]  # the first one warms up
    forward, *_ = works
    lines = [
        "# bench_score.py",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine(options.threads)}. Medians of {ROUNDS} rounds, "
        "time on the wall.",
        "",
        "| what | ms a sequence | of the forward pass | asked |",
        "| --- | --: | --: | --: |",
    ]
    for name in works:
        cost = median(seconds[name] for seconds in rounds) / options.sequences * 1e3
        ratio = median(seconds[name] / seconds[forward] for seconds in rounds)
        asked = "< 1" if name.startswith("all") else ""
        lines.append(f"| {name} | {cost:.2f} | {ratio:.2f} | {asked} |")
    text = "\n".join(lines) + "\n"
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
