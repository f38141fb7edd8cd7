"""What is released says one version everywhere, stands alone, and starts at once."""

import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mmgen

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def printed(*arguments: object) -> str:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


def test_the_version_is_one() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version, date = re.findall(r"^## (\S+) \((.+)\)$", changes, re.MULTILINE)[0]
    assert version == mmgen.__version__
    assert f'\nversion: "{version}"\n' in citation
    assert f'\ndate-released: "{date}"\n' in citation
    for module in ("mmgen", "trainer"):
        assert printed("-m", module, "--version").endswith(f", version {version}\n")


def test_the_long_description_needs_no_file_beside_it() -> None:
    hook = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    text = "".join((ROOT / part["path"]).read_text(encoding="utf-8") for part in hook["fragments"])
    for each in hook["substitutions"]:
        text = re.sub(each["pattern"], each["replacement"], text)
    links = re.findall(r"\]\(([^)]*)\)|(?:src|href)=\"([^\"]*)\"", text)
    assert [link for link in map("".join, links) if not link.startswith("http")] == []


def test_every_dependency_has_a_lowest_version() -> None:
    requirements = list(PROJECT["project"]["dependencies"])
    for extra in PROJECT["project"]["optional-dependencies"].values():
        requirements += extra
    pinned = [requirement.replace(">=", "==") for requirement in requirements]
    assert printed(".ci/lowest.py").splitlines() == pinned


def children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(("module", "limit_s"), [("mmgen", 0.3), ("trainer", 0.5)])
def test_help_is_there_at_once(module: str, limit_s: float) -> None:
    """In CPU time, which is the time on the wall of a free machine, also on a busy one."""
    took_s = []
    for _ in range(3):
        start = children_s()
        printed("-m", module, "--help")
        took_s.append(children_s() - start)
    assert min(took_s) < limit_s, took_s
