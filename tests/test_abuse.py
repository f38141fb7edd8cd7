"""A few hostile command lines and damaged files of `abuse.py`, which tries them by the thousand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmgen
import trainer

SCRIPT = Path(__file__).with_name("abuse.py")


def abuse(*options):
    done = subprocess.run(
        [sys.executable, SCRIPT, *options],
        env=os.environ | {"PYTHONPATH": str(Path(mmgen.__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_whatever_is_asked_or_damaged_ends_in_one_line():
    abuse("--trials", "200", "--seed", "1")


@pytest.mark.parametrize("package", [mmgen, trainer])
def test_no_time_is_taken_from_a_clock_that_may_jump(package):
    jumping = re.compile(r"time\.time\(|datetime\.\w*now|utcnow")
    for path in Path(package.__file__).parent.rglob("*.py"):
        assert not jumping.search(path.read_text(encoding="utf-8")), path
