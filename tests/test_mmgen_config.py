"""Every field can be set, written and read back, and what is wrong is named in one line."""

import json

import pytest
from hypothesis import given
from strategies import cases, table

from mmgen.config import GeneratorConfig, parse_config, to_toml
from mmgen.errors import InputError
from mmgen.presets import PRESETS, find_preset, load_config

FIELDS = GeneratorConfig.model_fields
RANGED = {name for name, field in FIELDS.items() if hasattr(field.default, "low")}
WORDED = {name for name, field in FIELDS.items() if isinstance(field.default, str)}

# A field, what may be written for it, how the config says that, and which other field it needs.
EXAMPLES = table("""
canvas => 48x96 => "48x96" => -
canvas => 48 => "48x48" => -
frames => 7 => 7 => -
frames => 10..12 => "10..12" => -
digits => 3 => 3 => -
digits => 1..3 => "1..3" => -
glyphs => fashion => "fashion" => -
classes => 7, 0,1,7 => "0,1,7" => -
glyph_size => 32 => "32x32" => -
glyph_size => 20x28 => "20x28" => -
crop => tight => "tight" => -
speed => 4 => 4.0 => -
speed => 1.5..4 => "1.5..4.0" => -
velocity => whole-speed => "whole-speed" => speed=4
acceleration => -0.5 => -0.5 => -
acceleration => -0.5..1 => "-0.5..1.0" => -
motion => wrap => "wrap" => -
bounce => ahead => "ahead" => -
walls => centre => "centre" => -
margin => -2.5 => -2.5 => -
gravity => 1 => 1.0 => motion=gravity
gravity => 0..1 => "0.0..1.0" => motion=gravity
radius => 1 => 1.0 => motion=circle
radius => 0.1..0.2 => "0.1..0.2" => motion=circle
turn_chance => 0.75 => 0.75 => motion=turn
turn_angle => 90 => 90.0 => motion=turn
turn_angle => -9..9 => "-9.0..9.0" => motion=turn
first_frame => start => "start" => -
rounding => subpixel => "subpixel" => -
appear => 3 => 3 => -
appear => 0..9 => "0..9" => -
vanish => 5 => 5 => -
vanish => 5..30 => "5..30" => -
rotation => 12.5 => 12.5 => -
rotation => -30..30 => "-30.0..30.0" => -
scale => 0.9 => 0.9 => -
scale => 0.9..1.1 => "0.9..1.1" => -
illumination => 0.6 => 0.6 => -
illumination => 0.6..1 => "0.6..1.0" => -
period => 8 => 8 => -
overlap => over => "over" => -
color => random => "random" => -
background => noise => "noise" => -
background_level => 0 => 0 => background=constant
background_level => 32..96 => "32..96" => background=noise
distractors => 3 => 3 => background=distractors
distractor_size => 9 => 9 => background=distractors
noise => 10 => 10.0 => -
noise => 0..20 => "0.0..20.0" => -
occluder => moving => "moving" => -
occluder_size => 9 => 9 => occluder=static
missing => 0.1 => 0.1 => -
rendering => 1 => 1 => -
""")


DEFAULTS = GeneratorConfig().model_dump()


def test_the_examples_set_every_field_and_every_range():
    assert list(dict.fromkeys(name for name, *_ in EXAMPLES)) == list(FIELDS)
    assert {name for name, written, *_ in EXAMPLES if ".." in written} == RANGED
    changed = {name for name, _, value, *_ in EXAMPLES if json.loads(value) != DEFAULTS[name]}
    assert changed == FIELDS.keys() - {"rendering"}, "or nothing would show that it was set"


@pytest.mark.parametrize(("name", "written", "value", "need"), EXAMPLES)
def test_a_field_is_set_by_assignment_and_file_and_nothing_else_changes(
    tmp_path, name, written, value, need
):
    needed = [need] if need != "-" else []
    expected = load_config(assignments=needed).model_dump() | {name: json.loads(value)}
    assert load_config(assignments=[*needed, f" {name} = {written} "]).model_dump() == expected
    path = tmp_path / "mine.toml"
    path.write_text(f"{name} = {value}\n")
    if needed:
        other, _, word = need.partition("=")
        path.write_text(f'{name} = {value}\n{other} = "{word}"\n')
    assert load_config(path=path).model_dump() == expected


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


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_comes_back_from_its_toml_whatever_it_is_laid_over(tmp_path, name):
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(find_preset(name)))
    assert load_config("extreme", path) == find_preset(name)


CLASSES = [("all", "all"), (7, "7"), ("1, 0,7,1", "0,1,7"), ([3, 1, 255], "1,3,255")]
GLYPH_SIZES = [
    *[(None, None), ("native", None), (32, (32, 32)), ("32", (32, 32))],
    *[("20x28", (20, 28)), ([20, 28], (20, 28))],
]


@pytest.mark.parametrize(("written", "labels"), CLASSES)
def test_classes_are_written_in_order_and_once(written, labels):
    assert parse_config({"classes": written}).classes == labels


@pytest.mark.parametrize(("written", "size"), GLYPH_SIZES)
def test_a_glyph_size_is_one_side_or_two_or_native(written, size):
    assert parse_config({"glyph_size": written}).glyph_size == size


def test_an_assignment_beats_the_file_and_the_file_the_preset(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('digits = 3\nspeed = "1..2"\ncanvas = [40, 50]\n')
    config = load_config("srivastava", path, ["digits=4", "digits=5"])
    assert config == parse_config({"digits": 5, "speed": "1..2", "canvas": "40x50", "frames": 20})


def problem(*assignments):
    """Say what is wrong with them, nothing if nothing is."""
    try:
        load_config(assignments=assignments)
    except InputError as error:
        return str(error)
    return ""


BAD_ASSIGNMENTS = table("""
digits => 'digits' is no FIELD=VALUE, such as digits=3
=3 => '=3' is no FIELD=VALUE, such as digits=3
digits=3..1 => digits: '3..1' is upside down: a range is written low..high
digits=1..x => digits: '1..x' is no range; write 2, or 1..3
digits=2.5 => digits: input should be a valid integer, unable to parse string as an integer, got '2.5'
digits=true => digits: input should be a valid integer, unable to parse string as an integer, got 'true'
period=1..2 => period: input should be a valid integer, unable to parse string as an integer, got '1..2'
margin=1..2 => margin: input should be a valid number, unable to parse string as a number, got '1..2'
canvas=64x => canvas: input should be a valid integer, unable to parse string as an integer, got ''
glyph_size=x20 => glyph_size: input should be a valid integer, unable to parse string as an integer, got ''
classes= => classes: '' is no list of labels; write "all", or "0,1,7"
classes=1..3 => classes: '1..3' is no list of labels; write "all", or "0,1,7"
classes=0,-1 => classes: '0,-1' is no list of labels; write "all", or "0,1,7"
classes=256 => classes: '256' is no list of labels; write "all", or "0,1,7"
glyphs= => glyphs: string should have at least 1 character, got ''
crop=loose => crop: input should be 'patch' or 'tight', got 'loose'
velocity=fast => velocity: input should be 'uniform', 'whole-speed' or 'whole-components', got 'fast'
motion=fly => motion: input should be 'bounce', 'reflect', 'stochastic', 'wrap', 'leave', 'circle', 'gravity' or 'turn', got 'fly'
bounce=back => bounce: input should be 'clamp' or 'ahead', got 'back'
walls=none => walls: input should be 'edge' or 'centre', got 'none'
first_frame=0 => first_frame: input should be 'step' or 'start', got '0'
rounding=up => rounding: input should be 'truncate', 'round' or 'subpixel', got 'up'
overlap=min => overlap: input should be 'max', 'add' or 'over', got 'min'
color=red => color: input should be 'grey' or 'random', got 'red'
background=white => background: input should be 'black', 'constant', 'noise' or 'distractors', got 'white'
occluder=big => occluder: input should be 'none', 'static' or 'moving', got 'big'
rendering=2 => rendering: input should be 1, got 2
""")  # noqa: E501


@pytest.mark.parametrize(("assignment", "message"), BAD_ASSIGNMENTS)
def test_a_bad_assignment_is_named(assignment, message):
    assert problem(assignment) == message


def test_a_field_that_does_not_exist_is_told_which_do():
    names = ", ".join(FIELDS)
    assert problem("digit=2") == f"field 'digit' does not exist; fields are: {names}"


# Too little, too much, and what is allowed.
RANGES = table("""
frames => 0 => 100001 => 1..100000
digits => 0 => 256 => 1..255
speed => -1.0 => inf => 0..4096
acceleration => -4097.0 => 4097.0 => -4096..4096
gravity => -0.1 => 4097.0 => 0..4096
radius => -0.1 => 1.1 => 0..1
turn_angle => -181.0 => 181.0 => -180..180
appear => -1 => 100001 => 0..100000
vanish => -1 => 100000000000000000000 => 0..100000
rotation => -181.0 => 181.0 => -180..180
scale => 0.06 => 17.0 => 0.0625..16
illumination => 0.09 => 11.0 => 0.1..10
background_level => -1 => 256 => 0..255
noise => -1.0 => 256.0 => 0..255
""")
LIMITS = table("""
canvas => 0 => 4097 => 1 => 4096
glyph_size => 0 => 4097 => 1 => 4096
margin => -4096.5 => 4096.5 => -4096 => 4096
turn_chance => -0.1 => 1.1 => 0 => 1
period => 0 => 100001 => 1 => 100000
distractors => 0 => 256 => 1 => 255
distractor_size => 0 => 4097 => 1 => 4096
occluder_size => 0 => 4097 => 1 => 4096
missing => -0.1 => 1.1 => 0 => 1
""")


def test_the_limits_of_every_number_are_tried_and_every_choice_of_words():
    assert {name for name, *_ in RANGES} == RANGED
    numbers = RANGED | {name for name, *_ in LIMITS}
    worded = {assignment.partition("=")[0] for assignment, _ in BAD_ASSIGNMENTS} & WORDED
    assert numbers | worded | {"rendering"} == set(FIELDS)


@pytest.mark.parametrize(("name", "below", "above", "allowed"), RANGES)
def test_a_range_out_of_range_is_refused(name, below, above, allowed):
    low, high = allowed.split("..")
    is_float = isinstance(getattr(GeneratorConfig(), name).low, float)
    written = [str(float(end) if is_float else int(end)) for end in (low, high)]
    of = below, above, f"{below}..{written[1]}", f"{written[0]}..{above}"
    for value in (*of, "nan", f"{written[0]}..nan") if is_float else of:
        refused = f"{name}: {value} is out of range, allowed are {allowed}"
        assert problem(f"{name}={value}") == refused
    for end in (low, high):  # it may contradict another field
        assert "out of range" not in problem(f"{name}={end}")


@pytest.mark.parametrize(("name", "below", "above", "least", "most"), LIMITS)
def test_a_number_out_of_range_is_refused(name, below, above, least, most):
    for value, allowed in (
        (below, f"greater than or equal to {least}"),
        (above, f"less than or equal to {most}"),
    ):
        refused = f"{name}: input should be {allowed}, got {value!r}"
        assert problem(f"{name}={value}") == refused
    for end in (least, most):  # it may contradict another field
        assert "input should be" not in problem(f"{name}={end}")


# Fields that are right by themselves and not together.
CONTRADICTIONS = table("""
motion=wrap bounce=ahead => bounce: does nothing with motion = wrap, only with bounce; otherwise set bounce=clamp
motion=wrap walls=centre => walls: does nothing with motion = wrap, only with bounce or reflect or stochastic or circle or gravity or turn; otherwise set walls=edge
motion=leave margin=2 => margin: does nothing with motion = leave, only with bounce or reflect or stochastic or circle or gravity or turn; otherwise set margin=0.0
motion=circle acceleration=1 => acceleration: does nothing with motion = circle, only with bounce or reflect or stochastic or wrap or leave or turn; otherwise set acceleration=0.0
motion=gravity acceleration=0..1 => acceleration: does nothing with motion = gravity, only with bounce or reflect or stochastic or wrap or leave or turn; otherwise set acceleration=0.0
gravity=1 => gravity: does nothing with motion = bounce, only with gravity; otherwise set gravity=0.3
motion=turn radius=0.7 => radius: does nothing with motion = turn, only with circle; otherwise set radius=0.5..1.0
motion=gravity turn_chance=0.5 => turn_chance: does nothing with motion = gravity, only with turn; otherwise set turn_chance=0.2
turn_angle=10 => turn_angle: does nothing with motion = bounce, only with turn; otherwise set turn_angle=-45.0..45.0
background_level=9 => background_level: does nothing with background = black, only with constant or noise; otherwise set background_level=64
background=noise distractors=3 => distractors: does nothing with background = noise, only with distractors; otherwise set distractors=6
distractor_size=3 => distractor_size: does nothing with background = black, only with distractors; otherwise set distractor_size=5
occluder_size=3 => occluder_size: does nothing with occluder = none, only with static or moving; otherwise set occluder_size=24
velocity=whole-speed => speed: 3.6 is no whole number, which velocity = whole-speed needs
velocity=whole-speed speed=2..3.5 => speed: 3.5 is no whole number, which velocity = whole-speed needs
velocity=whole-components => speed: 3.6 is no whole number, which velocity = whole-components needs
velocity=whole-components speed=2..3 => speed: 2.0..3.0 is a range; velocity = whole-components draws each component from -speed..speed already, so give one number
velocity=whole-components speed=2 motion=circle => velocity: whole-components leaves whole px and motion = circle does not; choose uniform
velocity=whole-components speed=2 motion=gravity => velocity: whole-components leaves whole px and motion = gravity does not; choose uniform
velocity=whole-components speed=2 motion=turn => velocity: whole-components leaves whole px and motion = turn does not; choose uniform
velocity=whole-components speed=2 acceleration=1 => acceleration: would leave the whole components of velocity = whole-components
velocity=whole-components speed=2 acceleration=-1..0 => acceleration: would leave the whole components of velocity = whole-components
appear=0..5 vanish=5..9 => vanish: 5..9 lets a digit vanish before it has appeared (appear: 0..5)
appear=20..25 => appear: 20..25 is past the last frame (19); no digit would ever be seen
frames=5..7 appear=7 => appear: 7 is past the last frame (6); no digit would ever be seen
scale=2 => scale: 2.0 over 5 frames is more than 16-fold; shorten period
scale=0.5..1 period=9 frames=6 => scale: 0.5..1.0 over 6 frames is more than 16-fold; shorten period
scale=16 period=2000 frames=2000 => scale: 16.0 over 2000 frames is more than 16-fold; shorten period
illumination=0.5 period=9 => illumination: 0.5 over 9 frames is more than 16-fold; shorten period
velocity=whole-components speed=4 walls=centre => walls: a centre may lie between two px, but velocity = whole-components stays on whole ones; choose edge
velocity=whole-components speed=4 margin=1.5 => margin: 1.5 is no whole number, which velocity = whole-components needs
canvas=20x30 occluder=static => occluder_size: 24 is larger than the canvas 20x30
occluder=moving occluder_size=65 => occluder_size: 65 is larger than the canvas 64x64
canvas=30x20 background=distractors distractor_size=21 => distractor_size: 21 is larger than the canvas 30x20
canvas=4096 frames=65 => canvas x frames is 1090519040 bytes a sequence, allowed are 1073741824; lower frames or canvas
canvas=2048 frames=86 color=random => canvas x frames is 1082130432 bytes a sequence, allowed are 1073741824; lower frames or canvas
""")  # noqa: E501

# The same but for one step: no contradiction.
AGREEMENTS = """
motion=turn acceleration=1
background=noise background_level=9
velocity=whole-speed speed=2..3
velocity=whole-components speed=2 motion=wrap
appear=0..5 vanish=6..9
frames=5..7 appear=6
scale=2 period=4
scale=0.5..1 period=9 frames=4
canvas=20x30 occluder=static occluder_size=20
occluder_size=24
background=distractors canvas=20x30 distractor_size=20
canvas=4096 frames=64
canvas=2048 frames=85 color=random
"""


@pytest.mark.parametrize(("assignments", "message"), CONTRADICTIONS)
def test_fields_that_contradict_each_other_are_refused(assignments, message):
    assert problem(*assignments.split()) == message


@pytest.mark.parametrize("assignments", AGREEMENTS.strip().splitlines())
def test_fields_that_just_agree_are_taken(assignments):
    assert problem(*assignments.split()) == ""


WRONG_KINDS = {
    "digits": [True, {"low": True, "high": True}, {"low": 1}, {"low": 3, "high": 1}, [1, 2], None],
    "speed": [True, "1..2..3"],
    "canvas": [True, [64, True], [64, 64, 64], [], "x64", 64.5, None],
    "glyphs": [7, True],
    "classes": [True, None, 1.5, [], [True], [-1], {}],
    "glyph_size": [True, [20, True], [20], [20, 20, 20], 20.5],
    "margin": [True, None, "2px", [1], float("nan")],
    "period": [True, 2.5, None],
    "motion": [True, None, 3],
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


def test_minus_zero_is_zero():
    """The two are equal, so nobody could tell why a track or an id differs in a sign."""
    config = load_config(assignments=("rotation=-0.0", "margin=-0.0", "scale=1..1.0"))
    assert config == load_config()
    assert repr(config.rotation.low) == repr(config.margin) == "0.0"
    assert to_toml(config) == to_toml(load_config())
