"""Hostile command lines and damaged files by the thousand: what ends in more than one clear line?

    python tests/abuse.py --trials 3000 --seed 0
    python tests/abuse.py --seed 0 --only 1234        one of them again, with all it says

A trial is a command line that works, made worse: values that no field allows, options that
contradict each other, paths that are folders, pipes or devices, files cut short, flipped, swapped
or edited by somebody who knows the format. Commands, options and fields are asked of click and of
the configs, so that a new one is tried without a word here. Everything follows from the seed.

Each trial runs in a fork of one process that has everything imported, in a copy of the same folder,
with a limit on time and memory. Wrong is: a traceback or a warning of Python; a death by a signal;
an exit code that is none of ours, or without its line; a wait for nothing, or no end after Ctrl-C;
a file changed that the command was not given; any change at all where the input was called bad.
"""

import argparse
import contextlib
import gzip
import hashlib
import importlib
import io
import json
import math
import os
import pkgutil
import random
import re
import resource
import select
import shlex
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import click
import h5py
import numpy as np
import torch
from PIL import Image

import mmgen.cli
import trainer.cli
from mmgen.config import GeneratorConfig
from mmgen.generate import TRUTH
from trainer.classifier import ClassifyConfig
from trainer.config import field_parts

MAINS = {"mmgen": mmgen.cli.main, "mmtrain": trainer.cli.main}
CPU_S = 3.0  # of work, then it is interrupted
PATIENCE_S = 30.0  # however busy the machine is
GRACE_S = 30.0  # then it is killed
MEMORY_BYTES = 3 << 30  # above what the forked process has
FILE_BYTES = 64 << 20

# Command lines that work; {tiny} keeps them short.
TINY_DATA = "--set canvas=30 --set frames=8"
TINY_RUN = "--set hidden=6 --set batch_size=4 --set context=4 --set predict=3 --device cpu"
LIVE = "live:srivastava?canvas=30&frames=8"
LINES = f"""
mmgen generate new {TINY_DATA} --train 5 --val 1 --test 2 --shard-size 3
mmgen generate data {TINY_DATA} --train 22 --val 5 --test 7 --shard-size 8 --seed 3 --masks
mmgen generate new --config gen.toml --train 2 --val 0 --test 1 --glyphs glyphs.npz
mmgen generate new {TINY_DATA} --train 2 --val 0 --test 1 --glyphs png
mmgen generate new {TINY_DATA} --train 2 --val 0 --test 1 --glyphs idx
mmgen generate new --from small
mmgen generate small --overwrite {TINY_DATA} --train 1 --val 0 --test 1
mmgen generate new {TINY_DATA} --train 4 --val 0 --test 0 --shard-size 2 --task 0/2
mmgen info data
mmgen info small --json
mmgen verify data
mmgen verify small --regrow 2
mmgen preview data -o new.png --index 0,1 --overlay
mmgen preview {TINY_DATA} -o new.gif --index 0..2
mmgen stats small --json
mmgen stats data -o new.png
mmgen export small new --to npy
mmgen export small new.npz --to npz
mmgen export small new --to gif --sequences 2
mmgen import frames.npy new
mmgen import frames.npy new --split train=3,test=2 --axes TNHW --json
mmgen presets easy
mmtrain fit data --run new {TINY_RUN} --steps 1
mmtrain fit data --run run {TINY_RUN} --steps 2 --resume
mmtrain fit data=2 {LIVE} --run new --config fit.toml --steps 1 --init-from model.bin
mmtrain fit data --run run {TINY_RUN} --steps 1 --overwrite --dry-run
mmtrain evaluate run data --json
mmtrain evaluate run frames.npy --sequences 2
mmtrain evaluate run {LIVE} --sequences 2
mmtrain score predictions.npy data --context 4 -o new
mmtrain rollout run small -o new.gif --frames 3
mmtrain rollout run data -o new.png --index 2
mmtrain difficulty run --axis speed=1,2 --sequences 2 -o new
mmtrain features run data -o new.h5
mmtrain probe run small --steps 1
mmtrain classify small --run new --steps 1 --set hidden=4 --set batch_size=4 --device cpu
mmtrain classify small --run rows --steps 1 --set hidden=4 --set batch_size=4 --overwrite
mmtrain report run -o new.html
mmtrain report scores -o new.html
mmtrain experiment experiment.toml -o experiment
mmtrain experiment experiment.toml -o experiment --table --json
mmtrain bench --set hidden=4 --set batch_size=2 --set context=1 --set predict=1 --device cpu
"""
# The commands that fill the folder; --brief leaves out all but the first three.
SETUP = f"""
mmgen generate data {TINY_DATA} --train 22 --val 5 --test 7 --shard-size 8 --seed 3 --masks
mmgen generate small {TINY_DATA} --set digits=1 --train 12 --val 2 --test 2
mmtrain fit data --run run {TINY_RUN} --steps 2 --set log_every=1
mmtrain evaluate run data
mmtrain score predictions.npy data --context 4 -o scores
mmtrain classify small --run rows --steps 1 --set hidden=4 --set batch_size=4 --device cpu
mmtrain experiment experiment.toml -o experiment
"""
FILES = {
    "gen.toml": 'canvas = "30x30"\nframes = "7..8"\ndigits = 2\nspeed = "1.0..3.5"\n',
    "fit.toml": "[data]\ncontext = 4\npredict = 3\nbatch_size = 4\n"
    '[model]\nhidden = 6\n[run]\ndevice = "cpu"\n',
    "experiment.toml": 'title = "Which?"\nset = {hidden = 4, batch_size = 4, context = 4, '
    'predict = 3, steps = 1, device = "cpu"}\nseeds = [0]\ntest = "small"\n'
    '[variants]\nboth = {}\n[data]\nfew.train = "small"\n',
    "foreign/notes.txt": "mine\n",
    "text": "mine too\n",
}
OURS = ("data", "small", "run", "rows", "scores", "experiment")  # what a command may change

NUMBERS = [
    *("nan", "inf", "-inf", "-1", "0", "-0.0", "1", "2", "3", "5.5", "1e3", "1e308", "-1e308"),
    *("1e-320", "1e9", "99999", "2147483648", "4294967296", "9223372036854775807", "1_000", "٣"),
    *("9223372036854775808", "18446744073709551616", "0x10", "9" * 400, "9" * 5000, "1..2"),
    *("2..1", "nan..1", "0..inf", "0..1e308", "-1..1", "1..", "..", "1,2", "[1, 2]", "1/0", "0/0"),
]
TEXTS = [
    *("", " ", "None", "null", "true", "auto", "all", "none", "{}", "[]", "=", "a=b", "a=", "%s"),
    *("한글", "\udcff", "\n", "\x1b[31m", "🙂", "x" * 300, "x" * 5000, "a/b", "../a", "-", "a\tb"),
    *("64x64", "1x1", "30x30x3", "0x0", "4096x4096", "train", "test", "val", "live", "lstm"),
]
PATHS = [
    *(".", "..", "", "foreign", "text", "pipe", "null", "gone", "gone/a", "loop", "loop/a"),
    *("text/a", "missing/a", "한글 폴더/새 것", "new", "new.npy", "new.png", "data", "data/train"),
    *("data/manifest.json", "run", "run/checkpoints", "run/config.json", "rows", "experiment"),
    *("scores", "frames.npy", "predictions.npy", "model.bin", "gen.toml", "~", "~nobody/a", "new/"),
    *("/proc/nothing/a", "/sys/a", "file://data", "file://", "memory://a", "nothing://a", "s3://"),
    *("http://", "live:", "live:easy", LIVE, "live:easy?", "live:easy?seed=-1", "live:gen.toml"),
    *("live:easy?frames=8&canvas=30&canvas=31", "live:pipe.toml", "live:easy?=", "data=nan", "x:y"),
    *("data=1e308", "data=inf", "data=1e-320", "null.png", "pipe.gif", "text/a.png", "\udcff.png"),
]


@dataclass
class Trial:
    """A command line as items, an option and its value, and what happens to the files before."""

    program: str
    command: click.Command
    items: list[tuple[str, str | None]]
    damages: list[tuple[str, int]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def words(self):
        inner = [word for item in self.items for word in item if word]
        return [self.command.name, *inner]

    def values_of(self, *names):
        """Return the values given to parameters of these names."""
        arguments = iter([p for p in self.command.params if isinstance(p, click.Argument)])
        options = {opt: p for p in self.command.params for opt in p.opts}
        argument, found = None, []
        for option, value in self.items:
            if option:
                param = options.get(option)
            else:
                param = argument = next(arguments, argument)
            if param is not None and param.name in names and value is not None:
                found.append(value)
        return found

    def __str__(self):
        line = shlex.join([self.program, *self.words])
        before = "".join(f"\n    before: {name}, {number}" for name, number in self.damages)
        around = "".join(f"{name}={value} " for name, value in self.environment.items())
        return around + (line if len(line) < 1500 else f"{line[:700]} ... {line[-700:]}") + before


def parse_line(line):
    program, name, *words = line.split()
    command = MAINS[program].commands[name]
    flags = {opt for p in command.params for opt in p.opts if getattr(p, "is_flag", False)}
    items, words = [], iter(words)
    for word in words:
        if not word.startswith("-"):
            items.append(("", word))
        else:
            items.append((word, None if word in flags else next(words)))
    return Trial(program, command, items)


BASES = [parse_line(line) for line in LINES.strip().splitlines()]


def make_trial(seed, number, files):
    """Make a working line worse, by up to four changes."""
    rng = random.Random(f"{seed} {number}")
    base = rng.choice(BASES)
    trial = Trial(base.program, base.command, list(base.items))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        change = rng.choices(CHANGES, WEIGHTS)[0]
        change(trial, rng, files)
    return trial


def replace_value(trial, rng, files):
    places = [place for place, (_, value) in enumerate(trial.items) if value is not None]
    if places:
        place = rng.choice(places)
        option, value = trial.items[place]
        trial.items[place] = (option, hostile(trial, option, value, rng))


def add_option(trial, rng, files):
    options = [p for p in trial.command.params if isinstance(p, click.Option)]
    option = rng.choice(options or MAINS[trial.program].params)
    name = rng.choice(option.opts)
    value = None if option.is_flag else hostile(trial, name, "", rng)
    trial.items.insert(rng.randint(0, len(trial.items)), (name, value))


def set_field(trial, rng, files):
    option = next((p for p in trial.command.params if p.name in ("assignments", "axes")), None)
    if option is not None:
        trial.items.append((option.opts[0], hostile(trial, option.opts[0], "=", rng)))
    elif any(value and value.startswith("live:") for _, value in trial.items):
        replace_value(trial, rng, files)


def drop(trial, rng, files):
    if trial.items:
        trial.items.pop(rng.randrange(len(trial.items)))


def double(trial, rng, files):
    if trial.items:
        trial.items.append(rng.choice(trial.items))


def stray(trial, rng, files):
    trial.items.append(("", rng.choice((*PATHS, *TEXTS, "--", "--nothing", "-x", "--json", "-h"))))


def disturb(trial, rng, files):
    name = rng.choice(("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "RANK", "COLUMNS"))
    trial.environment[name] = rng.choice([text for text in NUMBERS if len(text) < 1000])


def damage(trial, rng, files):
    """Damage a file that the command reads, or any other."""
    named = [value.partition("=")[0].removeprefix("live:") for _, value in trial.items if value]
    read = [name for name in files if any(name == v or name.startswith(v + "/") for v in named)]
    trial.damages.append((rng.choice(read or files), rng.randrange(1 << 30)))


CHANGES = (replace_value, add_option, set_field, drop, double, stray, disturb, damage)
WEIGHTS = (20, 15, 20, 4, 4, 4, 1, 32)


def hostile(trial, option, value, rng):
    """Return a value for an option: of its kind, or of none."""
    param = next((p for p in trial.command.params if option in p.opts), None)
    if param is not None and param.name in ("assignments", "axes"):
        return assignment(trial, rng)
    if value.startswith("live:") and rng.random() < 0.6:
        name = rng.choice(list(GeneratorConfig.model_fields))
        return f"{LIVE}&{name}={of_field(GeneratorConfig.model_fields[name], rng)}"
    if rng.random() < 0.15:
        return rng.choice(NUMBERS + TEXTS + PATHS)
    kind = getattr(param, "type", None)
    if isinstance(kind, click.Choice):
        return rng.choice([*kind.choices, *TEXTS])
    if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        return rng.choice(NUMBERS)
    return rng.choice(PATHS if rng.random() < 0.8 else TEXTS + NUMBERS)


def assignment(trial, rng):
    if trial.program == "mmgen" or trial.command.name == "difficulty":
        fields = GeneratorConfig.model_fields
    elif trial.command.name == "classify":
        fields = ClassifyConfig.model_fields
    else:
        parts = trainer.config.TrainConfig.model_fields
        fields = {
            name: parts[part].annotation.model_fields[name] for name, part in field_parts().items()
        }
    if rng.random() < 0.05:
        return rng.choice(TEXTS)
    name = rng.choice(list(fields))
    return f"{name}={of_field(fields[name], rng)}"


def of_field(info, rng):
    words = re.findall(r"'([^']*)'", str(info.annotation))  # of a literal
    if words and rng.random() < 0.8:
        return rng.choice(words)
    return rng.choice(rng.choice((NUMBERS, NUMBERS, NUMBERS, TEXTS, PATHS)))


# What becomes of a file.


def damage_file(box, name, number):
    """Change a file of a trial's folder in a way that the number decides."""
    rng, path = random.Random(number), box / name
    if not path.is_file():
        return  # it has been damaged already
    special = DAMAGES_OF.get(path.suffix, ())
    if special and rng.random() < 0.6:
        change = rng.choice(special)
    else:
        change = rng.choice((cut, cut, empty, flip, flip, overwrite, replace_by_other, append))
    with contextlib.suppress(KeyError, ValueError, OSError, RuntimeError):  # nothing to do it to
        change(path, rng)
    if path.suffix == ".h5" and rng.random() < 0.8:
        vouch_for(path)


def cut(path, rng):
    os.truncate(path, rng.randrange(path.stat().st_size))


def empty(path, rng):
    os.truncate(path, 0)


def flip(path, rng):
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 8, 64))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def overwrite(path, rng):
    content = bytearray(path.read_bytes())
    first = rng.randrange(len(content))
    content[first : first + rng.randrange(200)] = rng.randbytes(rng.randrange(200))
    path.write_bytes(content)


def append(path, rng):
    with path.open("ab") as file:
        file.write(rng.randbytes(50) if rng.random() < 0.5 else path.read_bytes())


def replace_by_other(path, rng):
    """Put something else in its place: a folder, a pipe, a link, another file."""
    box = next(p for p in path.parents if p.name == "box")
    path.unlink()
    kind = rng.randrange(7)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to("nothing")
    elif kind == 3:
        path.symlink_to(path.name)
    elif kind == 4:
        others = sorted(p for p in box.rglob(f"*{path.suffix}") if p.is_file())
        if others:
            shutil.copy(rng.choice(others), path)
    elif kind == 5:
        others = sorted(p for p in box.rglob("*") if p.is_file() and not p.is_symlink())
        shutil.copy(rng.choice(others), path)


JSON_VALUES = (
    *(None, True, -1, 0, 1, 2, 1e308, 1 << 31, 1 << 62, 1 << 64, 10**400, float("nan")),
    *(float("inf"), "", "a", "../../a", "/etc/passwd", "a\0b", "x" * 5000, "\ud800", [], [[]], {}),
    *({"a": 1}, [None], [1, 2, 3], [-1, 1 << 40], "nan", "1..2", 0.5),
)


def edit_json(path, rng):
    """Change values of a JSON file, or of a line of it."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    row = rng.randrange(len(lines))
    tree = json.loads(lines[row])
    for _ in range(rng.choice((1, 1, 2))):
        tree = edited(tree, rng, JSON_VALUES)
    if rng.random() < 0.03:
        lines[row] = "[" * 100_000
    else:
        lines[row] = json.dumps(tree).replace("1" + "0" * 400, "1" + "0" * 5000)
    path.write_text("\n".join(lines) + "\n" * (path.suffix == ".jsonl"))


def edited(tree, rng, values):
    """Replace, remove or copy a random leaf or branch of nested containers."""
    is_leaf = not isinstance(tree, (dict, list)) or not tree
    if is_leaf or rng.random() < 0.08:
        return rng.choice(values)
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key, roll = rng.choice(keys), rng.random()
    tree = tree.copy()
    if roll < 0.06:
        del tree[key]
    elif roll < 0.1 and isinstance(tree, dict):
        tree["extra"] = tree[key]
    elif roll < 0.1:
        tree.append(tree[key])
    else:
        tree[key] = edited(tree[key], rng, values)
    return tree


def edit_text(path, rng):
    """Change words and numbers of a TOML or CSV file, or its lines."""
    text = path.read_text()
    words = list(re.finditer(r'"[^"\n]*"|[\w.+-]+|[^\w\s]', text))
    if not words:  # emptied by an earlier change
        return
    word = rng.choice(words)
    toml = ("[]", "{}", "[1, 2]", "{a = 1}", "1979-05-27", '"\\u0000"', "'''a\nb'''", "true", '""')
    new = rng.choice((*toml, *NUMBERS[:20], *(f'"{w}"' for w in (*TEXTS[:17], *PATHS)), "", ","))
    text = text[: word.start()] + new + text[word.end() :]
    if rng.random() < 0.1:
        lines = text.splitlines()
        rng.shuffle(lines)
        text = "\n".join(lines)
    path.write_text(text, errors="surrogateescape")


def edit_h5(path, rng):
    """Change an attribute, or a data set: gone, of another type, shape or content."""
    with h5py.File(path, "r+") as file:
        if rng.random() < 0.35:
            name = rng.choice(sorted(file.attrs))
            values = (1, -1, 1 << 40, 2.5, float("nan"), "", "{}", "[", "a" * 9999, [1, 2], b"\xff")
            file.attrs[name] = rng.choice(values)
            return
        name = rng.choice(sorted(file))
        old = file[name]
        kind = rng.randrange(7)
        array = old[()]
        compression = {"chunks": old.chunks, "compression": old.compression}
        del file[name]
        if kind == 0:
            return
        if kind == 1:
            file.create_group(name)
        elif kind == 2:
            types = ("f4", "f8", "i8", "u1", "S3", "bool", "c8", "i2")
            file.create_dataset(name, data=array.astype(rng.choice(types)), **compression)
        elif kind == 3:
            shapes = (
                array[:-1],
                array[:0],
                array[..., None],
                array.ravel(),
                array.T,
                array[..., :1],
            )
            file.create_dataset(name, data=rng.choice(shapes))
        elif kind == 4:  # it claims terabytes, and stores nothing
            shape = list(array.shape)
            shape[rng.randrange(len(shape))] = 1 << 34
            file.create_dataset(name, shape, array.dtype, chunks=(1,) * len(shape))
        elif kind == 5:
            values = (0, -1, 2, 127, 1e30, math.nan, -1e30, math.inf, 255)
            with np.errstate(all="ignore"):
                flat = array.astype(np.float64).ravel()
                flat[rng.randrange(flat.size) :: rng.choice((1, 7))] = rng.choice(values)
                array = flat.reshape(array.shape).astype(array.dtype)
            file.create_dataset(name, data=array, **compression)
        else:
            file[name] = (
                h5py.ExternalLink("../../../text", "/a")
                if rng.random() < 0.5
                else (h5py.SoftLink(f"/{name}"))
            )


def vouch_for(path):
    """Let the manifest vouch for what a shard is now."""
    manifest = path.parent.parent / "manifest.json"
    try:
        content, told = path.read_bytes(), json.loads(manifest.read_text())
        for shard in told["splits"][path.parent.name]["shards"]:
            if shard["name"] in (path.name, f"{path.parent.name}/{path.name}"):
                shard |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest.write_text(json.dumps(told))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # one of the two is damaged in another way


def edit_checkpoint(path, rng):
    """Change a leaf of a checkpoint: a tensor, a number, a word."""
    values = (
        *JSON_VALUES[:9], "", "x", {}, [], torch.zeros(0), torch.zeros(3, 3),
        torch.tensor(math.nan), torch.zeros(1).expand(1 << 40),
        torch.ones(2, dtype=torch.int8), torch.zeros(2).to_sparse(),
    )  # fmt: skip
    tree = edited(dict(torch.load(path, weights_only=True)), rng, values)
    torch.save(tree, path)


def edit_npy(path, rng):
    """Lie in the header of an npy file, or store another array."""
    content = path.read_bytes()
    if rng.random() < 0.5:
        header = content.index(b"\n") + 1
        text = content[:header]
        old, new = rng.choice((
            (b"'shape': (", b"'shape': (9"), (b"|u1", b"|O "), (b"<f4", b"<f8"), (b"|u1", b"<u8"),
            (b"False", b"True "), (b"'descr'", b"'desc'"), (b"(", b"(-"), (b"fortran", b"FORTRAN"),
            (b", ", b",,"), (b"|u1", b"|V9"), (b"'shape': (", b"'shape': (99999999999, "),
        ))  # fmt: skip
        text = text.replace(old, new, 1)
        path.write_bytes(text + content[header:])
        return
    array = np.load(path)
    if array.size == 0 or array.ndim == 0:  # by an earlier change
        return
    with np.errstate(all="ignore"):
        other = rng.choice((
            array[:0], array[..., :0], array[0], array[None], array.astype("f8") * math.nan,
            array.astype("i8"), np.asfortranarray(array), array.astype(">f4"), array * 0,
            array.astype("f8") * 1e308, array.astype(bool), array.astype("S2"), array[..., :1],
            array.astype("f2"), array.astype("c8"), np.zeros(()), array[..., ::-1],
        ))  # fmt: skip
    np.save(path, other)


def edit_npz(path, rng):
    arrays = dict(np.load(path))
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    arrays[name] = rng.choice((
        array[:0], array[:1], array.astype("f4"), array[..., None], array[None], array.ravel(),
        array.astype("i8") - 300, np.zeros(()), array.astype("S1"), array.astype(bool),
    ))  # fmt: skip
    if rng.random() < 0.2:
        del arrays[name]
    np.savez_compressed(path, **arrays)


def edit_gzip(path, rng):
    content = bytearray(gzip.decompress(path.read_bytes()))
    for _ in range(rng.choice((1, 3))):
        content[rng.randrange(min(16, len(content)))] = rng.choice((0, 1, 2, 8, 127, 255))
    path.write_bytes(gzip.compress(bytes(content[: rng.randrange(1, len(content) + 1)])))


def edit_png(path, rng):
    sizes = ((1, 1), (0, 0), (28, 28), (5000, 1), (300, 300), (20000, 20000))
    modes = ("L", "RGB", "1", "P", "RGBA", "I;16", "CMYK", "F")
    with contextlib.suppress(OSError, SystemError):
        Image.new(rng.choice(modes), rng.choice(sizes)).save(path)


DAMAGES_OF = {
    ".json": (edit_json,),
    ".jsonl": (edit_json, edit_text),
    ".toml": (edit_text,),
    ".csv": (edit_text,),
    ".h5": (edit_h5,),
    ".pt": (edit_checkpoint,),
    ".bin": (edit_checkpoint,),
    ".npy": (edit_npy,),
    ".npz": (edit_npz,),
    ".gz": (edit_gzip,),
    ".png": (edit_png,),
}


# The folder, and a command in it.


def fill(box, brief):
    """Make the files of a trial's folder, in this process and in one more for what needs torch."""
    for name, content in FILES.items():
        (box / name).parent.mkdir(parents=True, exist_ok=True)
        (box / name).write_text(content)
    rng = np.random.default_rng(0)
    glyphs = rng.integers(0, 256, (24, 28, 28), np.uint8)
    labels = (np.arange(24) % 3).astype(np.uint8)
    np.save(box / "frames.npy", rng.integers(0, 256, (8, 5, 30, 30), np.uint8))
    np.save(box / "predictions.npy", rng.random((5, 3, 30, 30), np.float32))
    np.savez_compressed(box / "glyphs.npz", images=glyphs, labels=labels)
    (box / "idx").mkdir()
    for part in ("train", "t10k"):
        images = bytes((0, 0, 8, 3, *b"\0\0\0\x18", *b"\0\0\0\x1c", *b"\0\0\0\x1c"))
        (box / "idx" / f"{part}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(images + glyphs.tobytes())
        )
        (box / "idx" / f"{part}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(bytes((0, 0, 8, 1, *b"\0\0\0\x18")) + labels.tobytes())
        )
    for number, glyph in enumerate(glyphs[:12]):
        (box / "png" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(glyph).save(box / "png" / str(number % 2) / f"{number}.png")
    (box / "한글 폴더").mkdir()
    for line in SETUP.strip().splitlines()[: 3 if brief else None]:
        trial = parse_line(line)
        code, _, said = run_in_fork(trial, box, limit=False)
        assert code == 0, f"{trial}\n{said}"
    child = os.fork()
    if child == 0:
        (checkpoint,) = (box / "run" / "checkpoints").iterdir()
        torch.save(torch.load(checkpoint, weights_only=True)["model"], box / "model.bin")
        os._exit(0)
    os.waitpid(child, 0)


def add_special_files(box):
    os.mkfifo(box / "pipe")
    (box / "gone").symlink_to("nothing")
    (box / "loop").symlink_to("loop")
    with contextlib.suppress(PermissionError):  # only root makes devices
        os.mknod(box / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))


def snapshot(case):
    """Return path -> what is there, of everything under a folder."""
    found = {}
    for folder, folders, names in os.walk(case):
        for name in (*folders, *names):
            path = Path(folder, name)
            status = path.lstat()
            content = None
            if stat.S_ISREG(status.st_mode):
                content = hashlib.sha1(path.read_bytes()).digest()
            elif stat.S_ISLNK(status.st_mode):
                content = path.readlink()
            found[str(path.relative_to(case))] = (stat.S_IFMT(status.st_mode), content)
    return found


def run_in_fork(trial, box, limit=True):
    """Run a command in a fork; return exit code, stdout and stderr, and what went on too long."""
    said = [box.parent / name for name in ("stdout", "stderr")]
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = run_here(trial, box, said, limit)
        finally:
            os._exit(code)
    began, used_s, problem, is_late = time.monotonic(), 0.0, "", False
    descriptor = os.pidfd_open(child)
    while limit and not select.select([descriptor], [], [], 0.2)[0]:
        used_s, wall_s = cpu_s(child), time.monotonic() - began
        if is_late := used_s > CPU_S or wall_s > PATIENCE_S:
            os.kill(child, signal.SIGINT)
            break
    if is_late and used_s < 0.5:
        problem = f"waited: {used_s:.2f} s of work in {PATIENCE_S} s\n"
    if is_late and not select.select([descriptor], [], [], GRACE_S)[0]:
        os.kill(child, signal.SIGUSR1)  # says where it is
        time.sleep(0.5)
        problem += "did not end after Ctrl-C\n"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    os.close(descriptor)
    code = os.waitstatus_to_exitcode(status)
    out, err = (path.read_text(errors="backslashreplace") for path in said)
    trial.took_s, trial.peak_mb = time.monotonic() - began, usage.ru_maxrss >> 10
    if is_late and not problem and code not in (0, 1, 2, 130):
        problem = f"exit code {code} after Ctrl-C\n"
    return code, out, problem + err


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_here(trial, box, said, limit):
    """Be that command: its folder, its home, its limits; return its exit code."""
    import faulthandler

    os.setpgid(0, 0)
    os.chdir(box)
    home = box.parent / "home"
    os.environ.update(trial.environment, HOME=str(home), XDG_CACHE_HOME=str(home / ".cache"))
    os.environ |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # no network
    os.environ["TMPDIR"] = tempfile.tempdir = str(box.parent / "tmp")
    for number, path in enumerate(said, 1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), "utf-8", line_buffering=True)
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w"), "utf-8", errors="backslashreplace", line_buffering=True
    )
    faulthandler.enable(file=2, all_threads=False)
    faulthandler.register(signal.SIGUSR1, file=2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if limit:
        data = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
        most = int(data[1]) * 1024 + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code = 98
    try:
        MAINS[trial.program](trial.words, prog_name=trial.program)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else (0 if error.code is None else 1)
    except BaseException:
        traceback.print_exc()
        code = 97
    with contextlib.suppress(BaseException):
        threading._shutdown()  # what an interpreter waits for
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def problems(trial, code, out, err, before, after):
    """Yield what is wrong with how a command ended."""
    if "waited: " in err or "did not end" in err or "after Ctrl-C" in err:
        yield err.splitlines()[0]
    if code not in (0, 1, 2, 130):
        yield f"exit code {code}"
    if "Traceback (most recent call last)" in out + err:
        yield "traceback"
    if warned := re.search(r"^.*\.py:\d+: \w*Warning: .*$|^.*Exception ignored.*$", err, re.M):
        yield f"warning: {warned[0][:200]}"
    lines = err.rstrip("\n").splitlines()
    if lines and lines[0].startswith("Usage: "):  # click's own words may take several lines
        lines = [line for line in lines if line.startswith("Error: ")]
    if code and not any(line.startswith("Error: ") for line in lines[-1:]):
        yield "the last line is no error"
    if code and sum(line.startswith("Error: ") for line in lines) > 1:
        yield "more than one error"
    if code and lines and len(lines[-1]) > 8000:
        yield "a very long line"
    if code == 0 and "--json" in trial.words and "-h" not in trial.words:
        try:
            json.loads(out.splitlines()[-1], parse_constant=lambda name: 1 / 0)
        except (ValueError, IndexError, ArithmeticError):
            yield "no JSON"
    yield from strangers(trial, code, before, after)


def strangers(trial, code, before, after):
    """Yield changes to files that the command was not given."""
    changed = sorted(
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )
    outs = trial.values_of("out", "run", "folder")
    given = [
        os.path.normpath(Path("box", name)) for out in outs for name in (out, out.split("://")[-1])
    ]
    for path in changed:
        if path.startswith(("home/.cache", "home/.config/matplotlib", "tmp/torchinductor")):
            continue
        if code == 2:
            yield f"bad input, and {path} has changed"
        elif path.endswith(".partial"):
            yield f"{path} is left"
        elif not any(
            path == place
            or path.startswith((f"{place}/", f"{Path(place).with_suffix('')}_files"))
            or place.startswith(f"{path}/")
            for place in given
        ):
            yield f"{path} has changed"
        elif path in before and path not in given and path.split("/")[1] not in OURS:
            yield f"{path} was there before, and has changed"


# All of them.


def run_trial(seed, number, template, case, files):
    """Run one trial; return it, its problems, exit code and what it said."""
    trial = make_trial(seed, number, files)
    box = case / "box"
    shutil.copytree(template, box, symlinks=True)
    for name in ("home", "tmp"):
        (case / name).mkdir()
    add_special_files(box)
    for name, how in trial.damages:
        damage_file(box, name, how)
    before = snapshot(case)
    code, out, err = run_in_fork(trial, box)
    for name in ("stdout", "stderr"):
        (case / name).unlink()
    found = list(problems(trial, code, out, err, before, snapshot(case)))
    shutil.rmtree(case)
    return trial, found, code, out, err


def warm_up(folder):
    """Compile and load what all trials need, before any fork; torch starts no thread."""
    torch.set_num_threads(1)
    # An interrupt in the middle of numba's compiling ends in an error of numba's.
    for name in mmgen.PRESETS:
        mmgen.render(name, range(2), straight_from=1)
        mmgen.render(name, range(2), truth=(*TRUTH, "mask"), random_until=1)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        words = f"generate {folder}/warm {TINY_DATA} --train 2 --val 0 --test 0 --workers 1".split()
        mmgen.cli.main(words, standalone_mode=False)
    for package in (mmgen, trainer):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(("__main__", ".triton_cells")):
                importlib.import_module(module.name)


def share_of(numbers, seed, template, folder, files, verbose):
    """Run some trials one after another; return how many went wrong."""
    wrong = 0
    for number in numbers:
        trial, found, code, out, err = run_trial(
            seed, number, template, folder / f"case-{number}", files
        )
        if found or verbose:
            wrong += bool(found)
            text = (
                f"--seed {seed} --only {number} ({trial.took_s:.1f} s, exit code {code}): {trial}\n"
            )
            text += "".join(f"    wrong: {problem}\n" for problem in found)
            shown = (out[-1500:] + err[-3000:]).splitlines()
            text += "".join(f"    | {line[:400]}\n" for line in shown[-80 if verbose else -12 :])
            sys.stdout.write(text)
            sys.stdout.flush()
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--only", type=int, help="run this one alone, and show what it says")
    parser.add_argument("--brief", action="store_true", help="prepare fewer files, in less time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        warm_up(folder)
        template = folder / "template" / "box"
        template.mkdir(parents=True)
        for side in ("home", "tmp"):
            (template.parent / side).mkdir()
        fill(template, asked.brief)
        files = sorted(str(p.relative_to(template)) for p in template.rglob("*") if p.is_file())
        numbers = range(asked.first, asked.first + asked.trials)
        if asked.only is not None:
            numbers = [asked.only]
        children = []
        for job in range(min(asked.jobs, len(numbers))):
            child = os.fork()
            if child == 0:
                wrong = 1
                try:
                    mine = numbers[job :: asked.jobs]
                    wrong = share_of(
                        mine, asked.seed, template, folder, files, asked.only is not None
                    )
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(min(wrong, 100))
            children.append(child)
        wrong = sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    print(f"{len(numbers)} trials with seed {asked.seed}, {wrong} went wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
