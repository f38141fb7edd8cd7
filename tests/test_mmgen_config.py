"""Every field can be set, written and read back, and what is wrong is named in one line."""

import json

import pytest
from hypothesis import given
from strategies import cases, table

from mmgen.config import GeneratorConfig, load_config, parse_config, to_toml
from mmgen.errors import InputError

# What may be written for each field, and what that is.
EXAMPLES = {
    "canvas": ("48x96", (48, 96)),
    "frames": ("10..12", {"low": 10, "high": 12}),
    "digits": ("3", {"low": 3, "high": 3}),
    "speed": ("1.5..4", {"low": 1.5, "high": 4.0}),
    "glyphs": ("mnist", "mnist"),
    "rendering": ("1", 1),
}


@pytest.mark.parametrize("name", GeneratorConfig.model_fields)
def test_every_field_is_set_by_an_assignment_and_nothing_else_changes(name):
    written, value = EXAMPLES[name]
    config = load_config(assignments=[f" {name} = {written} "])
    assert config == GeneratorConfig(**{name: value})
    default = {"exclude": {name}}
    assert config.model_dump(**default) == GeneratorConfig().model_dump(**default)


@given(cases())
def test_a_config_comes_back_from_toml_and_json(tmp_path_factory, case):
    path = tmp_path_factory.getbasetemp() / "config.toml"
    path.write_text(to_toml(case.config))
    assert load_config(path=path) == case.config
    assert parse_config(json.loads(json.dumps(case.config.model_dump()))) == case.config


def test_toml_names_each_field_with_its_unit():
    for line, (name, field) in zip(
        to_toml(GeneratorConfig()).splitlines(), GeneratorConfig.model_fields.items(), strict=True
    ):
        assert line.startswith(f"{name} = ")
        assert line.endswith(f"# {field.description}")


def test_an_assignment_beats_the_file_and_the_file_the_preset(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('digits = 3\nspeed = "1..2"\ncanvas = [40, 50]\n')
    config = load_config("srivastava", path, ["digits=4", "digits=5"])
    assert config == parse_config({"digits": 5, "speed": "1..2", "canvas": "40x50", "frames": 20})


BAD_ASSIGNMENTS = table("""
digit=2 => field 'digit' does not exist; fields are: canvas, frames, digits, speed, glyphs, rendering
digits => 'digits' is no FIELD=VALUE, such as digits=3
=3 => '=3' is no FIELD=VALUE, such as digits=3
digits=3..1 => digits: '3..1' is upside down: a range is written low..high
digits=1..x => digits: '1..x' is no range; write 2, or 1..3
digits=0 => digits: 0 is out of range, allowed are 1..255
digits=0..2 => digits: 0..2 is out of range, allowed are 1..255
digits=256 => digits: 256 is out of range, allowed are 1..255
frames=100001 => frames: 100001 is out of range, allowed are 1..100000
frames=100000000000000000000 => frames: 100000000000000000000 is out of range, allowed are 1..100000
speed=-1 => speed: -1.0 is out of range, allowed are 0..4096
speed=inf => speed: inf is out of range, allowed are 0..4096
speed=nan => speed: nan is out of range, allowed are 0..4096
speed=1..nan => speed: 1.0..nan is out of range, allowed are 0..4096
digits=2.5 => digits: input should be a valid integer, unable to parse string as an integer, got '2.5'
digits=true => digits: input should be a valid integer, unable to parse string as an integer, got 'true'
canvas=64x => canvas: input should be a valid integer, unable to parse string as an integer, got ''
canvas=0 => canvas: input should be greater than or equal to 1, got '0'
canvas=64x4097 => canvas: input should be less than or equal to 4096, got '4097'
glyphs=kanji => glyphs: input should be 'mnist', got 'kanji'
rendering=2 => rendering: input should be 1, got 2
""")  # noqa: E501


@pytest.mark.parametrize(("assignment", "message"), BAD_ASSIGNMENTS)
def test_a_bad_assignment_is_named(assignment, message):
    with pytest.raises(InputError) as caught:
        load_config(assignments=[assignment])
    assert str(caught.value) == message


def test_a_sequence_too_large_for_memory_is_refused():
    with pytest.raises(InputError, match=r"^canvas x frames is 1090519040 bytes a sequence, allow"):
        load_config(assignments=["canvas=4096", "frames=65"])


WRONG_KINDS = {
    "digits": [True, {"low": True, "high": True}, {"low": 1}, {"low": 3, "high": 1}, [1, 2], None],
    "speed": [True, "1..2..3"],
    "canvas": [True, [64, True], [64, 64, 64], [], "x64", 64.5, None],
    "glyphs": [7, True],
    "rendering": [True, 1.5, None],
}


@pytest.mark.parametrize("name", WRONG_KINDS)
def test_a_value_of_the_wrong_kind_is_refused_by_its_name(name):
    for value in WRONG_KINDS[name]:
        with pytest.raises(InputError, match=rf"\A{name}: .+\Z"):
            parse_config({name: value})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"digits = 0\n", "digits: 0 is out of range, allowed are 1..255"),
        (b"digits =\n", "is no valid TOML: Invalid value (at line 1, column 9)"),
        (b"\xff = 1\n", "is no valid TOML: 'utf-8' codec can't decode byte 0xff in position 0: "),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_bad_file_is_named_with_its_path(tmp_path, content, problem):
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_config(path=path)
    assert str(caught.value).startswith(f"{path}: {problem}")
