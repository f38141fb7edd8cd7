"""What the tests of trainer share: tiny data sets and runs, and `mmtrain` in this process."""

from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from click.testing import CliRunner

from mmgen.pipeline import generate_dataset
from mmgen.presets import load_config as load_generator_config
from trainer.cli import main
from trainer.config import load_config

# Products this small gain nothing from a second thread, and waiting for one on a busy core costs
# 100 ms an optimizer step.
torch.set_num_threads(1)

CONTEXT, PREDICT = 4, 3
TINY = ("device=cpu", "hidden=6", "batch_size=4", f"context={CONTEXT}", f"predict={PREDICT}")
COUNTS = {"train": 22, "val": 5, "test": 7}


def make_data(
    folder, counts=COUNTS, *, fields=("canvas=30", "frames=8"), shard_size=8, seed=3, **options
):
    """Generate a data set; by default 8 frames of 30 x 30."""
    config = load_generator_config(assignments=fields)
    generate_dataset(folder, config, counts, seed=seed, shard_size=shard_size, workers=1, **options)
    return folder


def tiny_config(*assignments):
    return load_config(assignments=(*TINY, *assignments))


def tiny_options(*assignments):
    return [word for assignment in (*TINY, *assignments) for word in ("--set", assignment)]


def stored(data, split, name="frames"):
    """Read a whole split as FORMAT.md describes it, without our reader."""
    parts = []
    for path in sorted((Path(data) / split).glob("*.h5")):
        with h5py.File(path) as file:
            parts.append(file[name][()])
    return np.concatenate(parts)


@contextmanager
def damaged(data, split, index):
    """Flip one bit of a sequence for a while; the data set has one sequence a shard."""
    path = Path(data) / split / f"{split}-{index:06d}.h5"
    good = path.read_bytes()
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    path.write_bytes(bad)
    try:
        yield
    finally:
        path.write_bytes(good)


def mmtrain(*args, code=0):
    """Run the command line in this process and check its exit code; bugs keep their traceback."""
    result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def error_line(*args, code):
    """Run a command that must fail; return its `Error:` line, the last on stderr."""
    lines = mmtrain(*args, code=code).stderr.splitlines()
    assert [line.startswith("Error: ") for line in lines].count(True) == 1, lines
    assert lines[-1].startswith("Error: "), lines
    return lines[-1].removeprefix("Error: ")


def assert_same(one, other):
    """Compare containers of tensors bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other
