"""The benchmarks run, and no page of the front quotes a speed that their table does not show."""

import re
import subprocess
import sys
from pathlib import Path

import bench_all
import bench_generate
import bench_growth
import bench_render
import bench_step
import pytest
from measure import CPU, HEADER, TINY, Row, shown

ROOT = Path(__file__).parent.parent
TABLE = bench_all.RESULTS / "table.md"
PAGES = sorted(ROOT.glob("README*.md"))
NUMBER = r"\d+(?: \d{3})*(?:\.\d+)?"
TIMES = "times"
# 94 400 sequences/s; 33 times; 33-fold; 33배; 640 ms a step
QUOTED = re.compile(rf"({NUMBER})\**[\s-]*(sequences/s|times|fold|배|ms a step)")


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def figures_of(table: str) -> set[tuple[str, str]]:
    """Return every number of a table of benchmarks, with what it counts."""
    found = set()
    for line in table.partition(HEADER)[2].splitlines()[1:]:
        if not line.startswith("|"):
            break
        _, ours, _, theirs, ratio, unit = cells_of(line)
        found |= {(ours, unit), (theirs, unit), (ratio, TIMES)}
    return found


def quoted_in(page: str) -> list[tuple[str, str]]:
    """Return the speeds and ratios that a page states in sentences, and in columns of tables."""
    found = [
        (number, TIMES if unit in ("fold", "배") else unit) for number, unit in QUOTED.findall(page)
    ]
    header: list[str] = []
    for line in page.splitlines():
        cells = cells_of(line) if line.startswith("|") else []
        header = header if header and cells else cells
        for title, cell in zip(header, cells, strict=False):
            if "sequences/s" in title and (number := re.match(NUMBER, cell.strip("*"))):
                found.append((number[0], "sequences/s"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_front_page_quotes_only_speeds_of_the_table(page: Path) -> None:
    figures = figures_of(TABLE.read_text(encoding="utf-8"))
    unknown = [
        f"{number} {unit}"
        for number, unit in quoted_in(page.read_text(encoding="utf-8"))
        if (number, unit) not in figures
    ]
    assert not unknown, f"{page.name} says {unknown}, {TABLE.relative_to(ROOT)} does not"


def test_quoted_speeds_are_found_in_sentences_and_columns() -> None:
    page = """Renders **94 400** sequences/s, 33
times a loop (33-fold, 33배), in 640 ms a step, 20 frames, 10 000 sequences.

| preset | sequences/s | px |
| --- | --: | --: |
| `easy` | 64 100 | 12 |
"""
    assert set(quoted_in(page)) == {
        ("94 400", "sequences/s"),
        ("33", "times"),
        ("640", "ms a step"),
        ("64 100", "sequences/s"),
    }


def test_numbers_are_rounded_to_what_is_known_of_them() -> None:
    numbers = (94_425, 1388.1, 645.1, 4.59, 0.0873, 82_000_000)
    assert [shown(number, 3) for number in numbers] == [
        "94 400",
        "1 390",
        "645",
        "4.59",
        "0.0873",
        "82 000 000",
    ]
    row = Row("render", 94_425, "loop", 2897, 33.01, "sequences/s")
    assert str(row) == "| render | 94 400 | loop | 2 900 | 33 | sequences/s |"


def test_parts_of_the_table_and_a_curve_can_be_measured(tmp_path: Path) -> None:
    rows = [
        *bench_render.turned_rows(TINY),
        *bench_generate.store_rows(TINY, tmp_path),
        *bench_step.train_rows(bench_step.plan_of(CPU, TINY)),
    ]
    size = TINY._replace(points=2)
    plot = bench_growth.draw(bench_growth.rendering(size, "digits", "digits", (1, 2)))
    page = bench_all.page(rows, [plot], TINY, "here and now")
    assert {(shown(row.ours, 3), row.unit) for row in rows} <= figures_of(page)
    assert all(row.ours > 0 for row in rows)
    assert len(plot.csv.splitlines()) == 3
    assert f"({plot.name}.png)" in page


@pytest.mark.slow
def test_every_benchmark_runs(tmp_path: Path) -> None:
    script = ROOT / "tests" / "benchmarks" / "bench_all.py"
    subprocess.run([sys.executable, script, "--tiny", "--out", tmp_path], cwd=ROOT, check=True)
    page = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert len(figures_of(page)) > 50
    curves = {path.stem for path in tmp_path.glob("growth_*.png")}
    assert curves == {f"growth_{of}" for of in ("canvas", "digits", "memory", "ranks", "sequences")}
    assert curves == {path.stem for path in tmp_path.glob("growth_*.csv")}
