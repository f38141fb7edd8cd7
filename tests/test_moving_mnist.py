"""Where both commands begin: somebody else's packages of these names are one clear line."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mmgen
import moving_mnist
import trainer

ROOT = Path(mmgen.__file__).parents[1]


def start(command, *places):
    """Run `COMMAND --version` with these places in front of the path; return how it ended."""
    code = (
        f"import sys; sys.argv[1:] = ['--version']; import moving_mnist; moving_mnist.{command}()"
    )
    others = [place for place in sys.path if not Path(place, "mmgen", "__init__.py").is_file()]
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path += {others!r}; {code}"],
        cwd="/",  # not where ours would be found first
        env={"PYTHONPATH": ":".join(map(str, places))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def make_package(folder, content):
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(content)


def lay_over(site, name):
    """Make a place where ours is installed, and over it another distribution of that package."""
    shutil.copy(ROOT / "moving_mnist.py", site)
    for ours in ("mmgen", "trainer"):
        shutil.copytree(ROOT / ours, site / ours, ignore=shutil.ignore_patterns("__pycache__"))
    (site / name / "__init__.py").write_text("import nothing_there\n")
    info = site / "the_other-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: the-other\nVersion: 2.0\n")
    (info / "RECORD").write_text(f"{name}/__init__.py,,\n")
    (info / "top_level.txt").write_text(f"{name}\n")


@pytest.mark.parametrize("command", ["mmgen", "mmtrain"])
def test_both_commands_begin_here(command):
    code, out, err = start(command, ROOT)
    assert (code, err) == (0, "")
    assert "version" in out


@pytest.mark.parametrize("content", ["", "raise ValueError('theirs')"])
def test_a_folder_that_hides_ours_is_named(tmp_path, content):
    make_package(tmp_path / "trainer", content)
    code, _, err = start("mmtrain", tmp_path, ROOT)
    assert (code, err) == (
        2,
        f"Error: the package trainer in {tmp_path}/trainer hides that of moving-mnist; rename it, "
        "or take its folder off PYTHONPATH\n",
    )
    assert start("mmgen", tmp_path, ROOT)[0] == 0


@pytest.mark.parametrize(("name", "command"), [("mmgen", "mmgen"), ("trainer", "mmtrain")])
def test_another_distribution_over_ours_is_named(tmp_path, name, command):
    lay_over(tmp_path, name)
    code, _, err = start(command, tmp_path)
    assert code == 2
    assert re.fullmatch(
        rf"Error: the package {name} in {tmp_path}/{name} is that of the-other, which has taken "
        r"the place of moving-mnist's; install moving-mnist in an environment of its own\n",
        err,
    )
    (tmp_path / name / "__init__.py").unlink()  # as pip does when it takes the other one away
    shutil.rmtree(tmp_path / "the_other-2.0.dist-info")
    line = f"the package {name} in {tmp_path}/{name} is damaged; install moving-mnist again"
    assert start(command, tmp_path)[2] == f"Error: {line}\n"


def test_looking_costs_nothing():
    began = time.perf_counter()
    assert all(moving_mnist._is_ours(package.__name__) for package in (mmgen, trainer))
    assert time.perf_counter() - began < 0.01
