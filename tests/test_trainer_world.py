"""Ranks, devices by name, precisions, and too little memory.

The ranks are processes on this host, which gloo connects.
"""

import json
import os
import signal
import time
from textwrap import dedent, indent

import numpy as np
import pytest
import torch
from trainer_ranks import start_ranks

from trainer.config import ModelConfig
from trainer.errors import InputError, RunError
from trainer.model import VideoAutoencoder
from trainer.world import (
    World,
    find_world,
    float32_products,
    make_deterministic,
    one_line_when_out_of_memory,
    pick_device,
    pick_precision,
    product_dtype,
)

CPU = torch.device("cpu")
has_cuda = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not has_cuda, reason="needs a CUDA device")


# Where a process finds its place.

PLACE = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
MEETING_POINT = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def test_without_a_launcher_a_process_is_alone():
    assert find_world({"PATH": "/bin", **MEETING_POINT}) == World(rank=0, local_rank=0, size=1)


def test_a_launcher_gives_a_process_its_place():
    world = find_world(PLACE | MEETING_POINT)
    assert world == World(rank=1, local_rank=0, size=2)
    assert not world.is_first
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    assert find_world(alone) == World()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"RANK": "2"}, "RANK=2 and WORLD_SIZE=2 in the environment: RANK must be less"),
        ({"WORLD_SIZE": "0"}, "RANK=1 and WORLD_SIZE=0 in the environment: RANK must be less"),
        ({"RANK": "-1"}, "RANK='-1' in the environment: only whole numbers from 0 on go"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK='' in the environment: only whole numbers from 0 on go"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two' in the environment: only whole numbers"),
        ({"MASTER_PORT": "x"}, "MASTER_PORT='x' in the environment: only whole numbers"),
    ],
)
def test_a_place_that_makes_no_sense_is_refused(given, line):
    with pytest.raises(InputError, match=f"^{line}"):
        find_world(PLACE | MEETING_POINT | given)


@pytest.mark.parametrize("name", [*PLACE, *MEETING_POINT])
def test_half_a_place_is_refused(name):
    environment = PLACE | MEETING_POINT
    del environment[name]
    line = f" is in the environment, {name} is not; start ranks with torchrun, or unset "
    with pytest.raises(InputError, match=line):
        find_world(environment)


def test_alone_there_is_nobody_to_ask():
    world, values = World(), torch.tensor([1.0, 2.0])
    with world.joined(CPU):
        assert not torch.distributed.is_initialized()
        assert world.sum(values) is values
        assert world.any(True)
        assert not world.any(False)
        world.wait()


# Devices.


def test_auto_is_cuda_where_there_is_one():
    assert pick_device("auto").type == ("cuda" if has_cuda else "cpu")
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "CPU"])
def test_unknown_devices_are_refused(name):
    with pytest.raises(InputError, match=f"^device: '{name}' is unknown; use auto, cpu, cuda or c"):
        pick_device(name)
    with pytest.raises(
        InputError, match=r"^device: 'mps' is not supported; use auto, cpu, cuda or"
    ):
        pick_device("mps")


def test_a_device_that_is_not_there_is_refused():
    count = torch.cuda.device_count()
    line = rf"^device: 'cuda:{count}' is not there \({count} CUDA devices\); use cpu$"
    with pytest.raises(InputError, match=line):
        pick_device(f"cuda:{count}")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_rank_of_a_host_has_a_device_of_its_own(name):
    places = [World(rank, rank % 2, 4) for rank in range(4)]
    found = [str(pick_device(name, world)) for world in places]
    assert found == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert {pick_device("cpu", world) for world in places} == {CPU}
    line = (
        r"^device: rank 2 has no CUDA device of its own \(2 on its host\); "
        r"start 2 ranks a host, or use cpu$"
    )
    with pytest.raises(InputError, match=line):
        pick_device(name, World(2, 2, 3))


@pytest.mark.usefixtures("two_gpus")
def test_one_device_by_its_number_is_none_for_several_ranks():
    assert str(pick_device("cuda:1")) == "cuda:1"
    with pytest.raises(InputError, match="'cuda:1' is one device for 2 ranks; use cuda"):
        pick_device("cuda:1", World(0, 0, 2))


# Precisions.


def test_precision_auto_becomes_one_of_two():
    assert pick_precision("auto", pick_device("auto")) in ("fp32", "bf16")
    for name in ("fp32", "bf16", "fp16"):
        assert pick_precision(name, CPU) == name


@pytest.mark.parametrize(
    ("capability", "auto", "has_tf32"),
    [((7, 5), "fp32", False), ((8, 0), "bf16", True), ((9, 0), "bf16", True)],
)
def test_cuda_has_tf32_and_bf16_from_ampere_on(monkeypatch, capability, auto, has_tf32):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    device = torch.device("cuda", 0)
    assert pick_precision("auto", device) == auto
    if has_tf32:
        assert pick_precision("tf32", device) == "tf32"
    else:
        line = "^precision: tf32 needs a CUDA device of compute capability 8.0 or more; use fp32 or"
        with pytest.raises(InputError, match=line + " fp16$"):
            pick_precision("tf32", device)
    assert pick_precision("tf32", device, or_fp32=True) == ("tf32" if has_tf32 else "fp32")


def test_the_cpu_has_no_tf32():
    line = "^precision: tf32 needs a CUDA device of .* 8.0 or more; use fp32 or bf16$"
    with pytest.raises(InputError, match=line):
        pick_precision("tf32", CPU)
    assert pick_precision("tf32", CPU, or_fp32=True) == "fp32"


def test_a_precision_rounds_factors_or_leaves_them():
    assert {name: product_dtype(name) for name in ("fp32", "tf32", "bf16", "fp16")} == {
        "fp32": None,
        "tf32": None,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
    }


def test_tf32_is_on_only_for_a_while():
    before = torch.get_float32_matmul_precision()
    with float32_products("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
        with pytest.raises(ZeroDivisionError), float32_products("bf16"):
            assert 1 / (torch.get_float32_matmul_precision() != "highest")
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.cuda
@needs_cuda
def test_tf32_rounds_what_fp32_does_not():
    device = pick_device("cuda")
    pick_precision("tf32", device)
    a, b = torch.rand(2, 256, 256, dtype=torch.float64).to(device)
    errors = {}
    for name in ("fp32", "tf32"):
        with float32_products(name):
            errors[name] = ((a.float() @ b.float()).double() - a @ b).abs().max().item()
    assert errors["fp32"] < 1e-3 < errors["tf32"]


@pytest.mark.parametrize("chosen", [None, ":16:8"])
def test_deterministic_is_asked_of_torch_and_of_cublas(monkeypatch, chosen):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "so that it is restored")
    if chosen is None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    else:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", chosen)
    for name in ("deterministic", "benchmark"):
        monkeypatch.setattr(torch.backends.cudnn, name, name == "benchmark")
    try:
        make_deterministic()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (chosen or ":4096:8")
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark


@pytest.mark.cuda
@needs_cuda
def test_cuda_gives_what_the_cpu_gives():
    torch.manual_seed(0)
    model = VideoAutoencoder(ModelConfig(hidden=16), (8, 8)).double().eval()
    context = torch.rand(4, 5, 64, dtype=torch.float64)
    expected = model(context, 6)
    found = model.cuda()(context.cuda(), 6)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-10, atol=1e-12)


# Memory.


def says(error):
    def fail():
        raise error

    return fail


@pytest.mark.parametrize(
    "take",
    [
        lambda: torch.empty(2**48),
        lambda: torch.empty(2**40, 2**40),
        lambda: np.empty(2**50),
        says(RuntimeError("std::bad_alloc")),
        says(RuntimeError("CUDA error: out of memory")),
        says(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")),
        says(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")),
    ],
)
def test_too_little_memory_is_one_line(take):
    line = "^not enough memory; lower batch_size, hidden or layers, or raise accumulate$"
    with pytest.raises(RunError, match=line), one_line_when_out_of_memory():
        take()


@pytest.mark.cuda
@needs_cuda
def test_too_little_memory_of_the_device_is_one_line():
    with pytest.raises(RunError, match="not enough memory"), one_line_when_out_of_memory():
        torch.empty(2**48, device="cuda")


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="size"), one_line_when_out_of_memory():
        torch.ones(2) + torch.ones(3)


# Ranks.

RANK = """
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from trainer import world as world_module
from trainer.errors import InputError, RunError, TrainerError
from trainer.world import find_world

folder, timeout_s, world_module.HEAD_START_S = Path(sys.argv[1]), float(sys.argv[2]), {head_start_s}
world = find_world()

def meet():
    (folder / f"here-{{world.rank}}").touch()
    while len([*folder.glob("here-*")]) < world.size:
        time.sleep(0.01)

try:
    {before}
    with world.joined(torch.device("cpu"), timeout_s=timeout_s):
{inside}
except TrainerError as error:
    world.let_first_speak()
    rank = "" if world.is_first else f"rank {{world.rank}}: "
    print(f"Error: {{rank}}{{error}}", file=sys.stderr, flush=True)
    sys.exit(error.exit_code)
finally:
    assert not torch.distributed.is_initialized()
"""


@pytest.fixture
def start(tmp_path):
    """Start two ranks with lines of a program that each runs once joined; return them."""
    started = []

    def start(inside="", *, before="pass", ranks=(0, 1), timeout_s=60, head_start_s=0.1):
        program = tmp_path / "rank.py"
        inside = indent(dedent(inside).strip() or "pass", " " * 8)
        program.write_text(RANK.format(inside=inside, before=before, head_start_s=head_start_s))
        started.extend(start_ranks(tmp_path, program, tmp_path, timeout_s, ranks=ranks))
        return started

    yield start
    for rank in started:
        rank.kill()


def error_lines(lines):
    """Return what is our own of what a rank says; torch writes warnings of its own."""
    assert not any(line.startswith(("Traceback", "[rank")) for line in lines), lines
    return [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]


def test_two_ranks_share_sums_flags_and_the_end(start, tmp_path):
    started = start(
        """
        values = torch.rand(1000, generator=torch.Generator().manual_seed(world.rank))
        total = world.sum(values)
        flags = [world.any(False), world.any(world.rank == 1), world.any(True)]
        if world.is_first:
            time.sleep(0.3)
        reached = time.monotonic()
        world.wait()
        facts = {"flags": flags, "reached": reached, "left": time.monotonic()}
        facts |= {"values": values.tolist(), "total": total.tolist()}
        (folder / f"{world.rank}.json").write_text(json.dumps(facts))
        """
    )
    for rank in started:
        assert rank.ended() == (0, [])
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    values = [torch.tensor(facts["values"]) for facts in (first, second)]
    assert not values[0].equal(values[1])
    assert torch.tensor(first["total"]).equal(values[0] + values[1])
    assert first["total"] == second["total"]
    assert first["flags"] == second["flags"] == [False, True, True]
    assert second["left"] >= first["reached"]


@pytest.mark.parametrize("killed", [0, 1])
def test_where_a_rank_was_killed_the_other_ends_in_one_line(start, killed):
    started = start(
        f"""
        for step in range(1_000_000):
            if step == 100 and world.rank == {killed}:
                os.kill(os.getpid(), signal.SIGKILL)
            world.any(False)
        """
    )
    assert started[killed].ended()[0] == -signal.SIGKILL
    code, lines = started[1 - killed].ended()
    rank = "" if killed == 1 else "rank 1: "
    expected = (
        f"{rank}another rank has ended, or did not answer for 60 s; look what it says, then go on "
        "with --resume"
    )
    assert (code, error_lines(lines)) == (1, [expected])


def test_a_rank_that_does_not_answer_is_not_waited_for_without_end(start):
    started = start(
        """
        if world.rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        world.wait()
        """,
        before="meet()",
        timeout_s=2,
    )
    code, lines = started[0].ended()
    assert code == 1
    assert error_lines(lines)[0].startswith("another rank has ended, or did not answer for 2 s;")


def test_a_rank_nobody_comes_to_says_where_it_waited(start):
    (started,) = start(ranks=[0], timeout_s=1)
    code, lines = started.ended()
    assert code == 1
    (line,) = error_lines(lines)
    assert line.startswith("the 2 ranks do not meet at 127.0.0.1:")
    assert "1/2 clients joined" in line


def test_what_every_rank_finds_is_said_once(start):
    first, second = start(before="raise InputError('hidden is 0')", head_start_s=60)
    assert first.ended() == (2, ["Error: hidden is 0"])
    time.sleep(0.5)  # in which it would have said it as well
    second.send(signal.SIGTERM)  # as launchers do then
    assert second.ended() == (-signal.SIGTERM, [])


def test_what_one_rank_alone_finds_is_said_too(start):
    first, second = start(
        """
        if world.rank == 1:
            raise RunError("the disk is full")
        world.wait()
        """
    )
    assert second.ended() == (1, ["Error: rank 1: the disk is full"])
    code, lines = first.ended()
    assert code == 1
    assert "another rank has ended" in error_lines(lines)[0]


SHARES = """
from contextlib import nullcontext
from dataclasses import replace
from torch.nn.parallel import DistributedDataParallel
from trainer.config import load_config
from trainer.model import VideoAutoencoder
from trainer.noise import draw_noise, step_generator
from trainer.step import decode, make_task, task_losses

def task_of(rows):
    task = make_task(frames[rows], num_frames[rows], config.data)
    names = ("context", "reconstruction", "future")
    return replace(task, **{name: getattr(task, name).double() for name in names})

def gradients(model, shares, factor):
    \"\"\"Return the loss summed over shares of the batch, and the gradient of each parameter.\"\"\"
    model.zero_grad()
    total = 0.0
    for number, rows in enumerate(shares, 1):
        is_last = number == len(shares)
        with nullcontext() if is_last else model.no_sync():
            task = task_of(rows)
            decoded = decode(model, task, noise.rows(rows.start, rows.stop), training=True)
            loss = task_losses(decoded, task, config, num_values).loss
            (loss * factor).backward()
        total += loss.detach()
    return total, [parameter.grad for parameter in model.parameters()]

generator = torch.Generator().manual_seed(1)
frames = torch.randint(256, (8, 7, 6, 5), dtype=torch.uint8, generator=generator)
num_frames = torch.randint(2, 8, (8,), generator=generator)
for form in forms:
    words = ("hidden=6", "batch_size=8", "context=4", "predict=3", *form)
    config = load_config(assignments=words)
    noise = draw_noise(config.model, config.data, 8, 30, 0.5, step_generator(0, 1, "cpu"))
    whole = task_of(slice(0, 8))
    num_values = [exists.sum() * 30.0 for exists in (whole.has_reconstruction, whole.has_future)]
    torch.manual_seed(2 + world.rank)  # rank 0's weights are everybody's
    model = VideoAutoencoder(config.model, (6, 5)).double()
    has_unread = config.data.predict == 1  # a decoder of one frame reads no input
    joint = DistributedDataParallel(model, find_unused_parameters=has_unread)
    loss, expected = gradients(model, [slice(0, 8)], 1)
    begin, middle, end = (4 * world.rank + row for row in (0, 2, 4))
    for shares in ([slice(begin, end)], [slice(begin, middle), slice(middle, end)]):
        for _ in range(2):
            part, found = gradients(joint, shares, world.size)
        torch.testing.assert_close(world.sum(part), loss, rtol=1e-12, atol=0)
        for ours, wanted in zip(found, expected, strict=True):
            assert (ours is None) == (wanted is None)
            if wanted is not None:
                torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-14)
"""

FORMS = (
    ("dropout=0.5",),
    (
        *("cell=peephole", "decoder_input=scheduled", "input_dropout=0.2", "output_dropout=0.3"),
        *("output=sigmoid", "loss=ce", "loss_reduction=sum"),
    ),
    ("predict=1", "reverse=false"),
)


def test_halves_of_a_batch_on_two_ranks_make_the_gradients_of_the_whole(start):
    started = start(f"forms = {FORMS}\n{SHARES}")
    for rank in started:
        code, lines = rank.ended()
        assert code == 0, lines
