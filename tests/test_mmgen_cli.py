"""The command line as a contract: names, output, exit codes and one line for every failure."""

import json
import os
import re

import click
import pytest
from strategies import table

import mmgen
from mmgen.card import dataset_id
from mmgen.cli import main
from mmgen.config import GeneratorConfig
from mmgen.presets import load_config

# The contract: a change here is a line in the CHANGELOG.
COMMANDS = {
    "generate": "OUT --preset --config --set --glyphs --train --val --test --seed --from "
    "--shard-size --workers --codec --masks --overwrite --shards --task --cluster --json",
    "info": "DATA --json --bibtex",
    "verify": "DATA --regrow --glyphs",
    "preview": "DATA --preset --config --set --glyphs --seed -o --out --split --index --overlay",
    "stats": "DATA -o --out --split --sequences --json",
    "export": "DATA OUT --to --split --sequences",
    "import": "FILE OUT --split --axes --shard-size --json",
    "presets": "NAME",
}


def test_commands_and_options_are_these():
    found = {
        name: " ".join(
            param.name.upper() if isinstance(param, click.Argument) else " ".join(param.opts)
            for param in command.params
        )
        for name, command in main.commands.items()
    }
    assert found == COMMANDS
    assert [option for param in main.params for option in param.opts] == [
        "--version",
        "--traceback",
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_starts_with_a_verb_and_ends_with_an_example(run_mmgen, name):
    assert re.match(r"[A-Z][a-z]+ .*\n", main.commands[name].help)
    *_, last = main.commands[name].help.strip().splitlines()
    assert last.strip().startswith(f"Example: mmgen {name}")
    assert last.strip() in run_mmgen(name, "-h").stdout


def test_version_and_defaults_are_shown(run_mmgen):
    assert mmgen.__version__ in run_mmgen("--version").stdout
    text = run_mmgen("generate", "--help").stdout
    for default in ("srivastava", "10000", "1000", "0", "8192, or 512 MiB raw", "one a core"):
        assert f"[default: {default}]" in text


SMALL = ["--set", "canvas=30x40", "--set", "frames=2"]


@pytest.fixture
def out(run_mmgen, tmp_path):
    """Return a folder that the command line has filled."""
    path = tmp_path / "a"
    run_mmgen("generate", path, *SMALL, "--train", 5, "--val", 0, "--test", 2)
    return path


def test_generate_info_and_verify_tell_the_same(run_mmgen, out):
    size = sum(path.stat().st_size for path in out.rglob("*.h5"))
    again = run_mmgen("generate", out, *SMALL, "--train", 5, "--val", 0, "--test", 2)
    name = dataset_id(mmgen.open(out).manifest)
    assert again.stdout == (
        f"{out}: {name}, 7 sequences in 2 shards, {size / 1e6:.1f} MB, all there already\n"
    )
    assert again.stderr == ""
    told = run_mmgen("info", out).stdout
    assert told.startswith(f"{out}: made by mmgen {mmgen.__version__}, seed 0\n  id {name}\n")
    assert re.search(r"train +5 sequences +1 shard +0\.0 MB   glyphs 0\.\.54999\n", told)
    assert re.search(r"test +2 sequences +1 shard +0\.0 MB   glyphs 60000\.\.69999\n", told)
    assert "  canvas = 30x40\n" in told
    assert run_mmgen("verify", out).stdout == f"{out}: 7 sequences hold\n"
    regrown = run_mmgen("verify", out, "--regrow", "all").stdout
    assert regrown == f"{out}: 7 sequences hold, all of each split rendered again and equal\n"


def test_a_preview_of_the_stored_set_equals_the_live_one(run_mmgen, out, tmp_path):
    stored, live = tmp_path / "stored.png", tmp_path / "live.png"
    told = run_mmgen("preview", out, "--index", "1,0", "-o", stored).stdout
    assert told == f"{stored}: 2 sequences of 2 frames\n"
    run_mmgen("preview", *SMALL, "--split", "test", "--index", "1,0", "-o", live)
    assert stored.read_bytes() == live.read_bytes()


def test_json_is_for_machines(run_mmgen, out):
    sizes = {path.parent.name: path.stat().st_size for path in out.rglob("*.h5")}
    request = *SMALL, "--train", 5, "--val", 0, "--test", 2
    name = dataset_id(mmgen.open(out).manifest)
    assert json.loads(run_mmgen("generate", out, *request, "--json").stdout) == {
        **{"path": str(out), "id": name, "splits": {"train": 5, "test": 2}},
        **{"shards": 2, "bytes": sum(sizes.values())},
    }
    told = json.loads(run_mmgen("info", out, "--json").stdout)
    assert told["id"] == name
    assert told["splits"]["train"] == {"count": 5, "shards": 1, "bytes": sizes["train"]}
    assert told["config"] == load_config(assignments=SMALL[1::2]).model_dump()
    assert (told["seed"], told["codec"], told["shard_size"]) == (0, "gzip", 8192)


def test_presets_are_listed_in_order_each_with_what_it_is(run_mmgen):
    lines = run_mmgen("presets").stdout.splitlines()
    described = {name: description for name, (_, description) in mmgen.PRESETS.items()}
    assert [line.split(maxsplit=1)[0] for line in lines] == [*mmgen.PRESETS]
    assert [line.split(maxsplit=1)[1] for line in lines] == [*described.values()]


@pytest.mark.parametrize("name", mmgen.PRESETS)
def test_a_printed_preset_can_be_fed_back(run_mmgen, tmp_path, name):
    path = tmp_path / "mine.toml"
    path.write_text(run_mmgen("presets", name).stdout)
    assert load_config(path=path) == load_config(name)
    small = "--set", "frames=2", "-o", tmp_path / "a.png", "--index", 3
    told = run_mmgen("preview", "--config", path, *small).stdout
    assert told.endswith("a.png: 1 sequence of 2 frames\n")
    picture = (tmp_path / "a.png").read_bytes()
    run_mmgen("preview", "--preset", name, *small)
    assert (tmp_path / "a.png").read_bytes() == picture


def test_a_printed_preset_can_be_edited(run_mmgen, tmp_path):
    text = run_mmgen("presets", "srivastava").stdout
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('canvas = "64x64"', 'canvas = "30x40"'))
    assert load_config(path=path) == GeneratorConfig(canvas=(30, 40))


# One line and an exit code for every failure.

BAD_INPUT = table("""
render => No such command 'render'.
generate => Missing argument 'OUT'.
generate new --preset fast => preset 'fast' does not exist; choose from: {presets}
generate new --set size=1 => field 'size' does not exist; fields are: {fields}
generate new --set digits=3..1 => digits: '3..1' is upside down: a range is written low..high
generate new --set digits=0 => digits: 0 is out of range, allowed are 1..255
generate new --set canvas=27 => canvas: 27x27 is smaller than a glyph of 28x28; enlarge canvas
generate new --set glyph_size=65x1 => canvas: 64x64 is smaller than a glyph of 65x1; enlarge canvas
generate new --set margin=19 => margin: 19.0 px on every side of a canvas of 64x64 leaves no room for a glyph of 28x28; lower margin
generate new --preset mnist++ --set margin=33 => margin: 33.0 px on every side of a canvas of 64x64 leaves no room for the centre; lower margin
generate new --set classes=10,11 => classes: 10 is no label of mnist, split train; labels are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
generate new --set motion=fly => motion: input should be 'bounce', 'reflect', 'stochastic', 'wrap', 'leave', 'circle', 'gravity' or 'turn', got 'fly'
generate new --set noise=256 => noise: 256.0 is out of range, allowed are 0..255
generate new --preset tencia --set motion=reflect => bounce: does nothing with motion = reflect, only with bounce; otherwise set bounce=clamp
generate new --preset svg-stochastic --set speed=3.5 => speed: 3.5 is no whole number, which velocity = whole-components needs
generate new --preset extreme --set occluder_size=65 => occluder_size: 65 is larger than the canvas 64x64
generate new --config no.toml => no.toml: cannot be read (No such file or directory)
generate new --config pipe => pipe: is no file
generate new --from pipe => pipe: is no file
generate new --train -1 => train: -1 sequences; allowed are 0..1000000000000
generate new --val 1000000000001 => val: 1000000000001 sequences; allowed are 0..1000000000000
generate new --train 0 --val 0 --test 0 => no split has any sequence; ask for at least one
generate new --seed -1 => seed: -1 is out of range, allowed are 0..9223372036854775807
generate new --seed 9223372036854775808 => seed: 9223372036854775808 is out of range, allowed are 0..9223372036854775807
generate new --shard-size 0 => shard size: 0 is out of range, allowed are 1..1000000
generate new --shard-size 9007199254740992 => shard size: 9007199254740992 is out of range, allowed are 1..1000000
generate new --train many => Invalid value for '--train': 'many' is not a valid integer.
generate new --workers 0 => Invalid value for '--workers': 0 is not in the range x>=1.
generate foreign => foreign: holds something else; name an empty or a new folder
generate foreign --overwrite => {here}/foreign: is no data set of ours and is not overwritten
generate file => file: is a file; name a folder
generate link => link: is a link to what is not there; make that folder, or name another
generate link/a => link/a: lies behind a file or a broken link; name a folder
generate {data} => {data}: holds a data set of another request (canvas is 32x40, asked for is 64x64); name another folder, or overwrite it
generate new --from {data} --seed 5 => --seed contradicts --from, whose manifest says it; leave it out
generate new --from {data} --set digits=3 => --set contradicts --from, whose manifest says it; leave it out
generate new --from {data} --preset tfds => --preset contradicts --from, whose manifest says it; leave it out
generate new --from {data} --config no.toml => --config contradicts --from, whose manifest says it; leave it out
generate new --from {data} --train 3 => --train contradicts --from, whose manifest says it; leave it out
generate new --from {data} --val 3 => --val contradicts --from, whose manifest says it; leave it out
generate new --from {data} --test 3 => --test contradicts --from, whose manifest says it; leave it out
generate new --from {data} --shard-size 0 => shard size: 0 is out of range, allowed are 1..1000000
generate new --from {data}/request.json => {data}/request.json: splits is missing or has the wrong type
generate new --from foreign => foreign/manifest.json: cannot be read ([Errno 2] No such file or directory: 'foreign/manifest.json')
info foreign => foreign: is no data set (no manifest.json); make one with `mmgen generate`
verify new => new: is no data set (no manifest.json); make one with `mmgen generate`
verify {data} --regrow 0 => Invalid value for --regrow: say how many sequences, or all
preview => Missing option '-o' / '--out'.
preview -o a.avi => a.avi: unknown kind of picture; end the name in .gif, .png or .mp4
preview -o no/a.gif => no: is no folder; make it first
preview --split dev -o a.gif => split 'dev' does not exist; choose from: train, val, test
preview --index 1;2 -o a.gif => Invalid value for --index: '1;2' is no list such as 0,5 or 0..3
preview --index -1 -o a.gif => index -1 is out of range, sequences count from 0
preview --index 9223372036854775808 -o a.gif => an index is out of range, allowed are 0..9223372036854775807
preview {data} --split val --index 3 -o a.gif => Invalid value for --index: 3 is out of range, val has 3 sequences
preview {data} --split dev -o a.gif => {data}: has no split 'dev'; there are: train, val, test
preview --preset circle --set overlap=min -o a.gif => overlap: input should be 'max', 'add' or 'over', got 'min'
presets fast => preset 'fast' does not exist; choose from: {presets}
""")  # noqa: E501


@pytest.mark.parametrize(("command", "line"), BAD_INPUT)
def test_bad_input_ends_in_one_line_and_exit_2_and_changes_nothing(
    run_mmgen, tmp_path, small_dataset, monkeypatch, command, line
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/notes.txt").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    places = {"data": small_dataset, "here": tmp_path}
    places |= {
        "presets": ", ".join(mmgen.PRESETS),
        "fields": ", ".join(GeneratorConfig.model_fields),
    }
    result = run_mmgen(*command.format(**places).split(), code=2)
    *usage, last = result.stderr.splitlines()
    assert last == "Error: " + line.format(**places)
    assert not usage or usage[0].startswith("Usage: "), "click's own errors keep their hint"
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        *("file", "foreign", "link", "notes.txt", "pipe")
    ]


def test_a_manifest_that_is_damaged_or_missing_is_bad_input(run_mmgen, copied_dataset):
    manifest = copied_dataset / "manifest.json"
    manifest.write_text("{")
    for command in ("info", "verify"):
        line = run_mmgen(command, copied_dataset, code=2).stderr
        assert re.fullmatch(rf"Error: {manifest}: is no JSON \(.*\n", line)
    manifest.unlink()
    line = run_mmgen("info", copied_dataset, code=2).stderr
    assert (
        line == f"Error: {copied_dataset}: is not finished; run the same `mmgen generate` or "
        "`mmgen import` again\n"
    )


def test_content_that_does_not_hold_ends_in_one_line_and_exit_1(
    run_mmgen, copied_dataset, tmp_path
):
    shard = copied_dataset / "test/test-000000.h5"
    size = shard.stat().st_size
    os.truncate(shard, 4000)
    problem = (
        f"{shard}: has 4000 bytes, the manifest says {size}: truncated or replaced; delete the "
        "file and run the same `mmgen generate` or `mmgen import` again\n"
    )
    told = run_mmgen("preview", copied_dataset, "-o", tmp_path / "a.gif", code=1)
    assert told.stderr == f"Error: {problem}"
    told = run_mmgen("verify", copied_dataset, "--regrow", "all", code=1)
    assert told.stdout == problem
    line = f"Error: {copied_dataset}: 1 of its parts do not hold; each is named above\n"
    assert told.stderr == line


def test_traceback_shows_where_an_error_comes_from(start_python, tmp_path):
    process = start_python("-m", "mmgen", "--traceback", "info", tmp_path)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith("mmgen.errors.InputError: ")


def test_a_reader_that_leaves_early_is_no_error(start_python, small_dataset):
    process = start_python("-m", "mmgen", "info", small_dataset)
    process.stdout.close()
    assert process.stderr.read() == ""


def test_data_and_a_config_exclude_each_other_in_preview(run_mmgen, out):
    told = run_mmgen("preview", out, "--seed", 5, "-o", out / "a.png", code=2).stderr
    assert told.endswith("Error: DATA has its own config and seed; leave out the others\n")
    assert "2 sequences of" in run_mmgen("preview", out, "-o", out / "a.png").stdout


def test_a_name_that_is_no_utf8_is_shown(run_mmgen, out):
    renamed = out.rename(out.with_name("\udcff"))
    assert run_mmgen("verify", renamed).stdout == f"{out.parent}/\\udcff: 7 sequences hold\n"


def test_names_may_have_spaces_and_hangul(run_mmgen, tmp_path):
    folder = tmp_path / "한글 폴더"
    folder.mkdir()
    out = folder / "자료 1"
    run_mmgen("generate", out, *SMALL, "--train", 1, "--val", 0, "--test", 2)
    told = run_mmgen("verify", out, "--regrow", "all").stdout
    assert told.startswith(f"{out}: 3 sequences hold, ")
    run_mmgen("preview", out, "-o", folder / "그림 1.gif")
    run_mmgen("export", out, folder / "배열 1.npy", "--to", "npy")
    told = run_mmgen("import", folder / "배열 1.npy", folder / "자료 2", "--axes", "TNHW").stdout
    assert told.startswith(f"{folder}/자료 2: 2 sequences")


@pytest.mark.parametrize(
    "command",
    [
        *("generate /proc/a", "generate /proc/a/b --overwrite", "import {a}.npy /proc/a"),
        *("export {a} /proc/a.npy --to npy", "export {a} /proc/a --to gif"),
        *("preview -o /proc/a.gif", "preview -o /proc/a.png", "stats {a} -o /proc/a.png"),
    ],
)
def test_what_cannot_be_written_is_one_line(run_mmgen, out, command):
    """Not even by root, as which tests may run."""
    run_mmgen("export", out, out.with_name("a.npy"), "--to", "npy")
    line = run_mmgen(*command.format(a=out).split(), code=1).stderr.splitlines()[-1]
    assert re.match(r"Error: /proc/a\S*: (could not be written \()?No such file", line), line
