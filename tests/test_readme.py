"""The README says what is so: its tree is the tree, and its commands run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def listed_files() -> set[str]:
    """Read the tree of the README: two spaces a level, a folder ends in a slash."""
    tree = re.search(r"```text\n(.*?)```", README, re.DOTALL)
    assert tree
    folders: list[str] = []
    found = set()
    for line in tree[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            found.add("".join(folders) + name)
    return found


def test_the_tree_is_the_tree() -> None:
    kinds = (".py", ".md", ".j2")
    product = {
        str(path.relative_to(ROOT))
        for package in ("mmgen", "trainer")
        for path in (ROOT / package).rglob("*")
        if path.suffix in kinds and not path.name.startswith("__")
    }
    listed = {name for name in listed_files() if name.startswith(("mmgen/", "trainer/"))}
    assert listed == product
    assert all((ROOT / name).exists() for name in listed_files())


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.slow
def test_the_commands_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    script = "set -e\n" + "\n".join(blocks)
    commands = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True, timeout=600)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_snippets_compile(block: str) -> None:
    compile(block, "README.md", "exec")
