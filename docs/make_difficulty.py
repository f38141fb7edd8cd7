"""Make what docs/difficulty.md and docs/shards_or_live.md show of every preset.

    python docs/make_difficulty.py           # animations, baselines, tables: some minutes
    python docs/make_difficulty.py --tables  # the tables alone, from the CSV files

Baselines are those of `mmtrain evaluate`, on 1 000 test sequences of `live:PRESET`. The skills are
typed into presets.csv by whoever trained the models, and stay; sequences/s and GB are read from
what tests/benchmarks/bench_shards_or_live.py has left.
"""

import csv
import sys
from pathlib import Path

from made_block import with_block

from mmgen.presets import PRESETS

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "presets"
SCORES = FOLDER / "presets.csv"
SPEEDS = ROOT / "tests" / "benchmarks" / "results" / "bench_shards_or_live.csv"
SEQUENCES = 1000
BASELINES = ("known dynamics", "constant velocity", "mean frame", "copy-last", "black")
SKILLS = ("lstm_skill", "convlstm_skill")  # optional: a column that is empty is not shown
FACTOR = 2  # of a GIF's pixels to a frame's
GREYS = 16  # of a GIF: noise would take four times as many bytes with 256
SHOWN = 11  # which sequence of test

FOR_WHOM = {
    "srivastava": "the digits of Srivastava et al.; to compare with the 2015 paper and FC-LSTM",
    "openstl": "the same motion by the name under which OpenSTL, SimVP and PhyDNet train on it",
    "tfds": "who comes from TensorFlow Datasets",
    "svg-deterministic": "who compares with SVG where nothing is random",
    "svg-stochastic": "stochastic predictors: every wall draws a new velocity",
    "mnist++": "who compares with HKO-7 and TrajGRU: digits turn, grow and dim",
    "tencia": "who has files of the much copied gist, or of vp-suite",
    "easy": "a first look, a laptop, a lesson: a small model shows in minutes that it learns",
    "medium": "comparing ideas: two digits at different speeds, nothing random",
    "hard": "models that are past `medium`: three turning digits, walls nobody can foresee",
    "extreme": "robustness: noise, an occluder, missing frames; no skill is defined",
    "circle": "motion that is not straight: does a model know more than the last step?",
}


def draw(name: str) -> None:
    """Write the GIF of a preset: one sequence at ten frames a second."""
    from PIL import Image

    import mmgen

    frames = mmgen.render(name, [SHOWN], split="test", seed=0, truth=()).frames[0]
    pictures = [
        Image.fromarray(frame // (256 // GREYS) * (255 // (GREYS - 1))).resize(
            (FACTOR * frame.shape[1], FACTOR * frame.shape[0]), Image.Resampling.NEAREST
        )
        for frame in frames
    ]
    path = FOLDER / f"{name}.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, loop=0)


def scores(name: str, num_sequences: int = SEQUENCES) -> dict[str, str]:
    """Score what needs no training on a preset: squared error per frame, and the floor in nats."""
    import torch

    import trainer

    def nothing(context: torch.Tensor, steps: int) -> torch.Tensor:
        return torch.zeros(len(context), steps, *context.shape[2:])

    table = trainer.score(nothing, f"live:{name}", num_sequences=num_sequences).as_json()
    errors = {what: f"{table['baselines'][what]['mse']:.1f}" for what in BASELINES}
    return {"entropy floor": f"{table['entropy_floor']:.1f}", **errors}


def read(path: Path) -> dict[str, dict[str, str]]:
    """Read a CSV file with a row a preset; nothing where there is no file yet."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["preset"]: row for row in csv.DictReader(file)}


def score_all() -> None:
    """Write presets.csv anew, but for the skills in it."""
    known = read(SCORES)
    names = ("preset", "entropy floor", *BASELINES, *SKILLS)
    with SCORES.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for name in PRESETS:
            kept = {skill: known.get(name, {}).get(skill, "") for skill in SKILLS}
            writer.writerow({"preset": name, **scores(name), **kept})


def table(columns: list[tuple[str, str]], rows: list[list[str]]) -> str:
    """Lay rows out as Markdown; columns are (title, how it is aligned)."""
    lines = [[title for title, _ in columns], [align for _, align in columns], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def preset_table() -> str:
    """Return a row a preset: how it looks, for whom it is, what two models make of it."""
    known, speeds = read(SCORES), read(SPEEDS)
    titles = {"lstm_skill": "LSTM", "convlstm_skill": "ConvLSTM"}
    shown = [name for name in SKILLS if any(row[name] for row in known.values())]
    columns = [("", "---"), ("preset", "---"), ("for whom", "---")]
    columns += [(f"skill, {titles[name]}", "--:") for name in shown]
    columns += [("entropy floor", "--:")] + ([("sequences/s, live", "--:")] if speeds else [])
    rows = []
    for name, row in known.items():
        picture = f"![one sequence of {name}](../examples/presets/{name}.gif)"
        cells = [picture, f"`{name}`", FOR_WHOM[name], *(row[skill] for skill in shown)]
        cells.append(row["entropy floor"])
        if speeds:
            cells.append(speeds[name]["live"])
        rows.append(cells)
    return table(columns, rows)


def baseline_table() -> str:
    """Return squared errors per frame of what needs no training, a row a preset."""
    columns = [("preset", "---")] + [(what, "--:") for what in BASELINES]
    rows = [[f"`{name}`", *(row[what] for what in BASELINES)] for name, row in read(SCORES).items()]
    return table(columns, rows)


def speed_table() -> str:
    """Return sequences/s live and out of shards, and GB on disk, a row a preset."""
    columns = [
        ("preset", "---"),
        ("live, sequences/s", "--:"),
        ("shards, sequences/s", "--:"),
        ("shards written, sequences/s", "--:"),
        ("GB per million", "--:"),
    ]
    rows = [
        [f"`{name}`", row["live"], row["shards"], row["written"], row["GB per million"]]
        for name, row in read(SPEEDS).items()
    ]
    return table(columns, rows)


TABLES = {
    "docs/difficulty.md": {"presets": preset_table, "baselines": baseline_table},
    "docs/shards_or_live.md": {"speeds": speed_table},
}


def with_tables(page: str) -> str:
    """Return the text of a page with its tables made anew, each between two comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, make in TABLES[page].items():
        text = with_block(text, name, make())
    return text


def main() -> None:
    """Make all of it, or the tables alone."""
    if "--tables" not in sys.argv[1:]:
        FOLDER.mkdir(exist_ok=True)
        for name in PRESETS:
            draw(name)
        score_all()
    for page in TABLES:
        (ROOT / page).write_text(with_tables(page), encoding="utf-8")


if __name__ == "__main__":
    main()
