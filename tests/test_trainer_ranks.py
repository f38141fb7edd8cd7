"""Several ranks train as one does, and end together, whatever becomes of one of them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trainer_data import assert_same, make_data, mmtrain, tiny_config, tiny_options
from trainer_ranks import start_ranks

import trainer
from trainer.checkpoint import list_checkpoints, load_checkpoint
from trainer.log import read_jsonl
from trainer.loop import fit

# Whatever a step may draw, keep or cut; the data bring sequences of different length.
EVERYTHING = (
    "batch_size=8",
    "layers=2",
    "dropout=0.4",
    "input_dropout=0.1",
    "decoder_input=scheduled",
    "truth_steps=12",
    "clip_norm=0.02",
    "ema=0.8",
    "accumulate=2",
    "log_every=1",
    "eval_every=6",
    "checkpoint_every=5",
)
STEPS = 18

MMTRAIN = """
from trainer import world
from trainer.cli import main

world.HEAD_START_S = {head_start_s}
main()
"""
FIT = """
import os
from pathlib import Path
from trainer.config import load_config
from trainer.loop import fit

rank = os.environ["RANK"]
config = load_config(assignments={fields})
fitted = fit(config, {data!r}, Path({run!r}), quiet=True, max_time_s={max_time_s}[int(rank)])
print(fitted.step, fitted.ended)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("ranks") / "data", fields=("canvas=30", "frames=3..8"))


@pytest.fixture(scope="module")
def started():
    """Hold what was started; it is killed at the end."""
    ranks = []
    yield ranks
    for rank in ranks:
        rank.kill()


@pytest.fixture(scope="module")
def start(started, tmp_path_factory):
    """Start two ranks that run the text of a program."""

    def start(program, *words):
        folder = tmp_path_factory.mktemp("program")
        (folder / "program.py").write_text(program)
        ranks = start_ranks(folder, folder / "program.py", *words)
        started.extend(ranks)
        return ranks

    assert_done(start("import trainer.loop"))  # what ranks are forked from needs seconds to start
    return start


@pytest.fixture(scope="module")
def start_fit(start, data):
    """Start `mmtrain fit` on two ranks."""

    def start_fit(run, *fields, resume=False, data=data, head_start_s=0.1):
        flags = ["--resume"] if resume else []
        words = ("fit", data, "--run", run, *flags, *tiny_options(*fields))
        return start(MMTRAIN.format(head_start_s=head_start_s), *words)

    return start_fit


@pytest.fixture(scope="module")
def undisturbed(start_fit, tmp_path_factory):
    """Return the run of two ranks to which nothing happened."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert_done(start_fit(run, *EVERYTHING, f"steps={STEPS}"))
    return run


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """Return the run of one rank."""
    run = tmp_path_factory.mktemp("alone") / "run"
    fit(tiny_config(*EVERYTHING, "steps=12"), data, run, quiet=True)
    return run


def assert_done(ranks):
    for rank in ranks:
        code, said = rank.ended()
        assert code == 0, said


def wait_for_checkpoint(run, step, is_running):
    """Wait until a run has a checkpoint of a step or a later one."""
    while not (there := list_checkpoints(run)) or step_of(there[-1]) < step:
        assert is_running()
        time.sleep(0.001)


def step_of(checkpoint):
    return int(checkpoint.stem.removeprefix("step-"))


def assert_equal_runs(run, other):
    files = [path / "metrics.jsonl" for path in (run, other)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert_same(*(load_checkpoint(list_checkpoints(path)[-1]) for path in (run, other)))


def assert_close_logs(run, other):
    """Compare the lines of two logs; losses and errors may differ by the order of their sums."""
    logs = [read_jsonl(path / "metrics.jsonl") for path in (run, other)]
    assert len(logs[0]) == len(logs[1])
    for ours, theirs in zip(*logs, strict=True):
        assert flat(ours) == pytest.approx(flat(theirs), rel=1e-5)
        for name in ("step", "lr", "share_shown", "skipped"):
            assert ours.get(name) == theirs.get(name)


def flat(line):
    heads = line.get("val", {})
    scores = {f"{head} {name}": heads[head][name] for head in heads for name in heads[head]}
    return {name: value for name, value in line.items() if name != "val"} | scores


# The same training.


def test_two_ranks_train_as_one_does(start_fit, alone, tmp_path):
    assert_done(start_fit(tmp_path / "two", *EVERYTHING, "steps=12"))
    assert len(read_jsonl(alone / "metrics.jsonl")) == 12 + 2
    assert_close_logs(tmp_path / "two", alone)


def test_two_ranks_go_on_where_one_was(start_fit, alone, data, tmp_path):
    run = tmp_path / "run"
    fit(tiny_config(*EVERYTHING, "steps=6"), data, run, quiet=True)
    assert_done(start_fit(run, *EVERYTHING, "steps=12", resume=True))
    assert_close_logs(run, alone)


def test_one_rank_goes_on_where_two_were(undisturbed, data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    for checkpoint in list_checkpoints(run)[1:]:
        checkpoint.unlink()
    assert step_of(list_checkpoints(run)[0]) < STEPS
    fit(tiny_config(*EVERYTHING, f"steps={STEPS}"), data, run, resume=True, quiet=True)
    assert_close_logs(run, undisturbed)


# The end of one.


@pytest.mark.parametrize("victim", [0, 1])
def test_where_a_rank_was_killed_both_go_on_as_if_nothing_had_been(
    start_fit, undisturbed, tmp_path, victim
):
    run, fields = tmp_path / "run", (*EVERYTHING, f"steps={STEPS}")
    ranks = start_fit(run, *fields)
    wait_for_checkpoint(run, 5, lambda: ranks[victim].is_running)
    ranks[victim].send(signal.SIGKILL)
    assert ranks[victim].ended()[0] == -signal.SIGKILL
    code, said = ranks[1 - victim].ended()
    assert code == 1
    assert said[-1].startswith("Error: another rank has ended, or did not answer for 600 s; look ")
    assert 5 <= load_checkpoint(list_checkpoints(run)[-1])["step"] < STEPS
    assert_done(start_fit(run, *fields, resume=True))
    assert_equal_runs(run, undisturbed)


def test_a_signal_to_one_rank_ends_both_with_a_checkpoint(start_fit, undisturbed, tmp_path):
    run, fields = tmp_path / "run", (*EVERYTHING, f"steps={STEPS}")
    ranks = start_fit(run, *fields)
    wait_for_checkpoint(run, 5, lambda: ranks[1].is_running)
    ranks[1].send(signal.SIGTERM)
    (code, said), (other_code, other_said) = (rank.ended() for rank in ranks)
    step = step_of(list_checkpoints(run)[-1])
    assert (code, other_code, other_said) == (130, 130, [])
    assert said[-1] == (
        f"Error: SIGTERM ended the run after step {step} of {STEPS}; its checkpoint is complete, "
        "go on with --resume"
    )
    assert_done(start_fit(run, *fields, resume=True))
    assert_equal_runs(run, undisturbed)


@pytest.mark.parametrize(
    ("fields", "max_time_s", "ended"),
    [
        ((), (None, 2), "max-time"),
        (("eval_every=1", "patience=2", "lr=1"), (None, None), "patience"),
    ],
)
def test_all_ranks_end_after_the_same_step(start, data, tmp_path, fields, max_time_s, ended):
    fields = ("device=cpu", "hidden=6", "batch_size=4", "context=4", "predict=3", *fields)
    run = tmp_path / "run"
    ranks = start(
        FIT.format(
            fields=(*fields, "steps=100000"),
            data=str(data),
            run=str(run),
            max_time_s=max_time_s,
        )
    )
    (code, said), (other_code, other_said) = (rank.ended() for rank in ranks)
    assert (code, other_code) == (0, 0), (said, other_said)
    saved = list_checkpoints(run)  # none if the time was over before the first step
    assert said == other_said == [f"{step_of(saved[-1]) if saved else 0} {ended}"]


# What cannot work.


@pytest.mark.parametrize(
    ("fields", "data_name", "line"),
    [
        (["batch_size=6", "accumulate=2"], "data", "batch_size: 6 is not divisible by 2 ranks ti"),
        (["hiden=6"], "data", "hiden"),
        ([], "none", "is no data set (no manifest.json)"),
        ([], "data", "holds a run; resume it, overwrite it, or name another folder"),
    ],
)
def test_bad_input_is_said_once(start_fit, undisturbed, data, fields, data_name, line):
    """The other rank waits to hear of it, and ends when the launcher says so."""
    place = data.with_name(data_name)
    first, second = start_fit(undisturbed, *fields, data=place, head_start_s=60)
    code, said = first.ended()
    assert (code, len(said)) == (2, 1), said
    assert said[0].startswith("Error: ")
    assert line in said[0]
    time.sleep(0.5)  # in which it would have said it as well
    second.send(signal.SIGTERM)
    assert second.ended() == (-signal.SIGTERM, [])


# Under a launcher.


@pytest.fixture
def launch(data):
    """Start torchrun with two ranks; return it."""
    launched = []

    def launch(run, *words):
        launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        command = ("-m", *launcher, "-m", "--", "trainer", "fit", data, "--run", run, *words)
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=Path(trainer.__file__).parents[1],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        launched.append(process)
        return process

    yield launch
    for process in launched:
        process.terminate()  # a launcher that is killed leaves its ranks behind
        process.communicate()


def rank_of(launcher, rank):
    """Return the process number of a rank."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    wanted = f"RANK={rank}".encode()
    (found,) = (
        int(child)
        for child in children
        if wanted in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
    )
    return found


def own_lines(process, timeout=120):
    """Return the exit code and the lines that are ours; a launcher says much of its own."""
    out, err = process.communicate(timeout=timeout)
    lines = [*out.splitlines(), *err.splitlines()]
    assert not any("/trainer/" in line for line in lines), lines  # as in a traceback of ours
    return process.returncode, [line for line in lines if line.startswith("Error: ")]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_launcher_ends_where_a_rank_was_killed(launch, undisturbed, tmp_path, victim):
    run, options = tmp_path / "run", tiny_options(*EVERYTHING, f"steps={STEPS}")
    launcher = launch(run, *options)
    wait_for_checkpoint(run, 5, lambda: launcher.poll() is None)
    os.kill(rank_of(launcher, victim), signal.SIGKILL)
    code, said = own_lines(launcher)
    assert code != 0
    assert all("another rank has ended" in line for line in said)
    assert 5 <= load_checkpoint(list_checkpoints(run)[-1])["step"] < STEPS
    assert own_lines(launch(run, "--resume", *options)) == (0, [])
    assert_equal_runs(run, undisturbed)


@pytest.mark.slow
def test_terminating_a_launcher_ends_its_ranks_with_a_checkpoint(launch, undisturbed, tmp_path):
    run, options = tmp_path / "run", tiny_options(*EVERYTHING, f"steps={STEPS}")
    launcher = launch(run, *options)
    wait_for_checkpoint(run, 5, lambda: launcher.poll() is None)
    launcher.terminate()
    code, (line,) = own_lines(launcher)
    step = step_of(list_checkpoints(run)[-1])
    assert code != 0
    assert line.startswith(f"Error: SIGTERM ended the run after step {step} of {STEPS}; ")
    assert own_lines(launch(run, "--resume", *options)) == (0, [])
    assert_equal_runs(run, undisturbed)


@pytest.mark.slow
def test_a_launcher_says_bad_input_once(launch, data, tmp_path):
    mmtrain("fit", data, "--run", tmp_path / "run", *tiny_options("steps=1"))
    code, (line,) = own_lines(launch(tmp_path / "run", *tiny_options("steps=1")))
    assert code != 0
    assert line.endswith("run: holds a run; resume it, overwrite it, or name another folder")
