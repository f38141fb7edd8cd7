"""Importing stays cheap, and each part loads only what it may."""

import importlib
import json

import pytest

import mmgen

HEAVY = {"numba", "click", "pydantic", "torch", "PIL", "rich", "matplotlib"}


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import mmgen", []),
        ("import mmgen; mmgen.ShardError; mmgen.InputError; dir(mmgen)", []),
        ("import mmgen.shard, mmgen.shard.reader, mmgen.shard.writer", []),
        ("import mmgen; mmgen.open", []),
        ("import mmgen; mmgen.PRESETS", ["pydantic"]),
        ("import mmgen.cli", ["click"]),
        ("import mmgen; mmgen.render", ["numba", "pydantic"]),
    ],
)
def test_an_import_loads_no_more_than_it_needs(start_python, statement, allowed):
    code = f"import sys, json; {statement}; print(json.dumps(list(sys.modules)))"
    out, err = start_python("-Werror", "-c", code).communicate(timeout=60)
    assert HEAVY & set(json.loads(out)) <= set(allowed), err


def test_the_public_names_are_there():
    public = ["PRESETS", "GeneratorConfig", "InputError", "MmgenError", "ShardError"]
    assert mmgen.__all__ == [*public, "__version__", "open", "render", "show"]
    assert sorted(dir(mmgen)) == sorted(mmgen.__all__)
    assert all(getattr(mmgen, name) for name in mmgen.__all__)
    assert importlib.import_module("mmgen.generate").render is mmgen.render
    with pytest.raises(AttributeError, match="module 'mmgen' has no attribute 'train'"):
        _ = mmgen.train


def test_everything_works_with_torch_absent(start_python, tmp_path):
    code = """
import os, sys
sys.modules["torch"] = sys.modules["torchvision"] = None  # importing them raises ImportError
import mmgen
from mmgen.cli import main
os.chdir(sys.argv[1])
for command in (
    "generate a --train 2 --val 0 --test 0",
    "verify a --regrow all",
    "preview a --split train --index 0 -o a.gif",
):
    main(command.split(), standalone_mode=False)
assert mmgen.open("a")["train"][1].frames.any()
assert mmgen.show(mmgen.render(indices=1)).size
"""
    out, err = start_python("-Werror", "-c", code, tmp_path).communicate(timeout=60)
    assert not err
    assert out.count("\n") == 3
