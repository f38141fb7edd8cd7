"""What several test files share: one small data set, and `mmgen` in this process and in another."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import settings

import mmgen
from mmgen.cli import main
from mmgen.pipeline import generate_dataset
from mmgen.presets import load_config

# Fixed seeds, and no deadline: the first call of a kernel compiles it.
settings.register_profile("fixed", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("few", deadline=None, derandomize=True, max_examples=5)
settings.load_profile("fixed")

# These are compiled once more inside `follow_classic`, which knows the number of the first digit.
CALLED_BY_OTHERS = ("draw_block", "move_classic", "deform")


@pytest.fixture(autouse=True, scope="session")
def interrupts_arrive():
    """Started in the background by a shell, tests and what they start would ignore SIGINT."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def each_kernel_has_one_signature():
    """A second one means that a wrapper let a strided, read-only or wider array through."""
    yield
    for module in ("tracks", "paint", "picture", "effects"):
        kernels = sys.modules.get(f"mmgen.kernels.{module}")
        for name, kernel in vars(kernels).items() if kernels else ():
            if not name.startswith("_") and getattr(kernel, "__module__", "") == kernels.__name__:
                allowed = 2 if name in CALLED_BY_OTHERS else 1
                assert len(getattr(kernel, "signatures", ())) <= allowed, (name, kernel.signatures)


@pytest.fixture(scope="session")
def small_config():
    return load_config(assignments=["canvas=32x40", "frames=3..5", "digits=1..2", "speed=2..5"])


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory, small_config):
    """20, 3 and 9 sequences of seed 5 in shards of 7; for reading only."""
    path = tmp_path_factory.mktemp("small") / "data"
    counts = {"train": 20, "val": 3, "test": 9}
    generate_dataset(path, small_config, counts, seed=5, shard_size=7, workers=1)
    return path


@pytest.fixture
def copied_dataset(small_dataset, tmp_path):
    """Return a copy of the small data set, for damaging."""
    return Path(shutil.copytree(small_dataset, tmp_path / "copy"))


@pytest.fixture
def edit_manifest():
    """Change the JSON of a data set's manifest in place."""

    def edit(dataset, change):
        path = dataset / "manifest.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return edit


@pytest.fixture
def vouch_for(edit_manifest):
    """Make the manifest say of a shard what its file is now."""

    def vouch(dataset, name):
        content = (dataset / name).read_bytes()
        split, _, number = Path(name).stem.partition("-")
        now = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        edit_manifest(dataset, lambda d: d["splits"][split]["shards"][int(number)].update(now))

    return vouch


@pytest.fixture
def run_mmgen():
    """Run the command line in this process and check its exit code; bugs keep their traceback."""

    def run(*args, code=0):
        result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return run


def listen_to_interrupts():
    """Undo what a shell does to the jobs it starts in the background, pytest perhaps."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start_python():
    """Start an interpreter that sees this mmgen; what still runs at the end is killed."""
    started = []
    checkout = {"PYTHONPATH": str(Path(mmgen.__file__).parents[1])}

    def start(*args, **environment):
        process = subprocess.Popen(
            [sys.executable, *map(str, args)],
            env=os.environ | checkout | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=listen_to_interrupts,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
