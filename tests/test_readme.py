"""The README and docs/ say what is so: the tree is the tree, commands and snippets run."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import make_commands
import make_difficulty
import make_fields
import make_results
import pytest

from mmgen.cli import main as mmgen
from mmgen.config import GeneratorConfig
from mmgen.presets import PRESETS
from trainer.cli import main as mmtrain
from trainer.seeds import estimate

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = (README, CONTRIBUTING, *sorted((ROOT / "docs").glob("*.md")))
NAMES = [page.name for page in PAGES]
KOREAN = ROOT / "README.ko.md"  # the first half of the README; its commands are run there


def blocks_of(page: Path, language: str) -> list[str]:
    """Return fenced blocks: `sh` runs here; `bash` needs a Slurm, a Dask or an object store."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands_of(page: Path) -> list[list[str]]:
    """Return the words of each command of ours in its blocks of shell."""
    script = "".join(blocks_of(page, "sh") + blocks_of(page, "bash"))
    commands = []
    for line in script.splitlines():
        words = shlex.split(line.partition(" > ")[0], comments=True)
        if words and words[0] in ("mmgen", "mmtrain"):
            commands.append(words)
    return commands


def listed_files() -> set[str]:
    """Read the tree of docs/: two spaces a level, a folder ends in a slash."""
    (tree,) = blocks_of(ROOT / "docs" / "tree.md", "text")
    folders: list[str] = []
    found = set()
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            found.add("".join(folders) + name)
    return found


def test_the_tree_is_the_tree() -> None:
    kinds = (".py", ".md", ".j2", ".css", ".js")
    product = {
        str(path.relative_to(ROOT))
        for folder in ("mmgen", "trainer", "docs", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in kinds and not path.name.startswith("__")
    } | {path.name for path in ROOT.glob("*.py")}
    listed = {name for name in listed_files() if name.endswith(kinds)}
    assert listed == product
    assert all((ROOT / name).exists() for name in listed_files())


def test_the_front_page_is_a_page() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < 300


def test_a_model_of_ones_own_takes_twelve_lines() -> None:
    (block,) = (block for block in blocks_of(README, "python") if "trainer.score(" in block)
    assert len([line for line in block.splitlines() if line]) <= 12


def test_the_reference_is_what_the_commands_say() -> None:
    kept = make_commands.PAGE.read_text(encoding="utf-8")
    assert kept == make_commands.page(), "remake it: python docs/make_commands.py"


def test_the_published_rows_are_those_of_the_report() -> None:
    kept = make_results.PAGE.read_text(encoding="utf-8")
    assert kept == make_results.with_tables(), "remake it: python docs/make_results.py"


@pytest.mark.parametrize("page", make_difficulty.TABLES)
def test_the_tables_of_presets_are_those_of_the_files(page: str) -> None:
    kept = (ROOT / page).read_text(encoding="utf-8")
    remake = "remake it: python docs/make_difficulty.py --tables"
    assert kept == make_difficulty.with_tables(page), remake


def test_every_preset_has_a_row_and_a_small_picture() -> None:
    for path in (make_difficulty.SCORES, make_difficulty.SPEEDS):
        with path.open(newline="", encoding="utf-8") as file:
            assert [row["preset"] for row in csv.DictReader(file)] == list(PRESETS)
    for name in PRESETS:
        assert (make_difficulty.FOLDER / f"{name}.gif").stat().st_size < 60_000


def test_a_preset_scores_what_its_row_says() -> None:
    found = make_difficulty.scores("easy", 64)
    kept = make_difficulty.read(make_difficulty.SCORES)["easy"]
    for name, value in found.items():  # 64 of its 1 000 sequences
        assert float(value) == pytest.approx(float(kept[name]), rel=0.15), name


def test_every_field_has_a_row_and_a_picture() -> None:
    kept = make_fields.PAGE.read_text(encoding="utf-8")
    assert kept == make_fields.with_table(), "remake it: python docs/make_fields.py"
    shown = {*make_fields.SHOWN_VALUES, *make_fields.NOT_SHOWN}
    assert shown == set(GeneratorConfig.model_fields)
    pictures = {path.stem: path.stat().st_size for path in make_fields.FOLDER.iterdir()}
    assert set(pictures) == set(make_fields.SHOWN_VALUES)
    assert sum(pictures.values()) < 600_000


def test_the_korean_page_says_what_the_readme_says() -> None:
    text, korean = README.read_text(encoding="utf-8"), KOREAN.read_text(encoding="utf-8")
    blocks = re.findall(r"```\w+\n.*?```", korean, re.DOTALL)
    assert len(blocks) > 3
    assert [block for block in blocks if block not in text] == []
    prose = re.sub(r"```.*?```", "", korean, flags=re.DOTALL)
    numbers = {number.strip() for number in re.findall(r"\d[\d ]*(?:\.\d+)?", prose)}
    assert [number for number in sorted(numbers) if number not in text] == []


@pytest.mark.parametrize("page", [*PAGES, KOREAN], ids=[*NAMES, KOREAN.name])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_has_the_options_it_is_shown_with(page: Path) -> None:
    groups = {"mmgen": mmgen, "mmtrain": mmtrain}
    for program, name, *arguments in commands_of(page):
        command = groups[program].commands[name]
        try:
            command.make_context(name, arguments)
        except click.UsageError as error:
            pytest.fail(f"{page.name}: {program} {name}: {error.format_message()}")


def test_the_commands_of_dask_have_the_options_they_are_shown_with() -> None:
    cli = pytest.importorskip("distributed.cli.dask_worker", reason="the extra `cluster` is absent")
    (shown,) = (
        line
        for line in blocks_of(ROOT / "docs" / "large_sets.md", "bash")
        for line in line.splitlines()
        if line.startswith("dask worker")
    )
    cli.main.make_context("worker", shlex.split(shown)[2:])


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_and_snippets_run(page: Path, tmp_path: Path) -> None:
    script = ["set -e", "pip() { :; }", *blocks_of(page, "sh")]  # what runs here is installed
    if snippets := blocks_of(page, "python"):
        (tmp_path / "snippets.py").write_text("\n".join(snippets))
        script.append(f"{shlex.quote(sys.executable)} snippets.py")
    commands = Path(sys.executable).parent
    # A second thread gains these small models nothing, and waiting for it on a busy core takes
    # most of the time.
    environment = os.environ | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=tmp_path, env=environment, check=True, timeout=300
    )


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_snippets_compile(page: Path) -> None:
    for block in blocks_of(page, "python"):
        compile(block, page.name, "exec")


def test_the_figure_to_cite_says_what_the_front_page_says() -> None:
    """Each mean and interval of its table is that of the seeds in the CSV."""
    skills: dict[tuple[str, str], dict[float, list[float]]] = {}
    with (ROOT / "examples/skill.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["panel"] == "passes":
                curve = skills.setdefault((row["model"], row["set"]), {})
                curve.setdefault(float(row["x"]), []).append(float(row["skill"]))
    assert len(skills) == 6
    text = README.read_text(encoding="utf-8")
    for curve in skills.values():
        found = estimate(curve[max(curve)])
        assert found.count == 3
        assert found.interval is not None
        low, high = found.interval
        assert f" {found.mean:.3f} [{low:.3f}, {high:.3f}]" in text
