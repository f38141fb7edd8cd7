"""A run's folder belongs to one process at a time, and to one request for ever."""

import fcntl
import subprocess
import sys

import pytest
from trainer_data import error_line, make_data, mmtrain, tiny_config, tiny_options

from trainer.errors import InputError
from trainer.run_folder import Request, check_run_folder, first_weights, held_folder

CONFIG = tiny_config("steps=3")
REQUEST = Request(CONFIG, {"/data": 1.0})
IN_USE = "run: another process trains there; wait, or name another run$"


def begin(run, request=REQUEST):
    with held_folder(run, request, overwrite=False):
        pass


def test_a_run_in_use_is_refused_until_its_process_ends(tmp_path):
    run = tmp_path / "run"
    with held_folder(run, REQUEST, overwrite=False):
        kept = (run / "config.json").read_bytes()
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(InputError, match=IN_USE):
                check_run_folder(run, REQUEST, **({"resume": False, "overwrite": False} | options))
        for overwrite in (False, True):
            with (
                pytest.raises(InputError, match=IN_USE),
                held_folder(run, REQUEST, overwrite=overwrite),
            ):
                raise AssertionError("two in one folder")
        assert (run / "config.json").read_bytes() == kept
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
    check_run_folder(run, REQUEST, resume=True, overwrite=False)
    begin(run)


def test_whoever_comes_while_a_run_begins_is_refused(tmp_path):
    """Both found an empty folder; the partial config has its lock before its final name."""
    run = tmp_path / "run"
    run.mkdir()
    with (run / "config.json.partial").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=IN_USE), held_folder(run, REQUEST, overwrite=False):
            raise AssertionError("two in one folder")
    begin(run)
    assert [path.name for path in run.iterdir()] == ["config.json"]


def test_a_second_fit_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    data, run = make_data(tmp_path / "data"), tmp_path / "run"
    begin(run, Request(CONFIG, {str(data): 1.0}))
    code = (
        "import fcntl, sys, time\nfile = open(sys.argv[1], 'r+b')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\nprint('held', flush=True)\ntime.sleep(600)\n"
    )
    words = [sys.executable, "-c", code, run / "config.json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        command = ("fit", data, "--run", run, "--resume", *tiny_options("steps=3"))
        expected = f"{run}: another process trains there; wait, or name another run"
        assert error_line(*command, code=2) == expected
        holder.kill()
    mmtrain(*command)


def test_a_run_goes_on_from_the_weights_it_began_with(tmp_path):
    run = tmp_path / "run"
    assert first_weights(run) is None
    begin(run, Request(CONFIG, {"/data": 1.0}, "/weights/model.bin"))
    assert first_weights(run) == "/weights/model.bin"
    check_run_folder(run, REQUEST, resume=True, overwrite=False)
    other = Request(CONFIG, {}, "/weights/other.bin")
    line = "it began from /weights/model.bin, asked for is /weights/other.bin$"
    with pytest.raises(InputError, match=line):
        check_run_folder(run, other, resume=True, overwrite=False)
    begin(tmp_path / "drawn")
    with pytest.raises(
        InputError, match="it began from weights drawn by its seed, asked for is /w"
    ):
        check_run_folder(tmp_path / "drawn", other, resume=True, overwrite=False)
