"""GeneratorConfig: every quantity that makes a set harder, with its unit, default and check.

The one source of truth for presets, files, `--set` and manifests. It knows nothing of flags, and
the seed is not part of it: a config says what kind of sequences, a seed says which of them.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from mmgen.errors import InputError

MAX_SIDE_PX = 4096
MAX_FRAMES = 100_000
MAX_DIGITS = 255  # a mask is uint8: digit number + 1
MAX_SEQUENCE_BYTES = 1 << 30

M = TypeVar("M", bound=BaseModel)


class Frozen(BaseModel):
    """A config that cannot change and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _no_bool(value: Any) -> Any:
    """Refuse true and false, which pydantic and Python take for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"input should be a number, got {value}")
    return value


Integer = Annotated[int, BeforeValidator(_no_bool)]
Float = Annotated[float, BeforeValidator(_no_bool)]


class IntRange(Frozen):
    """Integers low..high, both included; low == high means fixed, and nothing is drawn."""

    low: Integer
    high: Integer


class FloatRange(Frozen):
    """Floats uniform on [low, high); low == high means fixed, and nothing is drawn."""

    low: Float
    high: Float


def _range_bounds(value: Any) -> Any:
    """Read 2, "2", "1..3" or a range's own dict as {"low", "high"}."""
    if isinstance(value, str) and ".." in value:
        low, _, high = value.partition("..")
        return _ordered({"low": low.strip(), "high": high.strip()}, value)
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return {"low": value, "high": value}
    return value


def _ordered(bounds: dict[str, str], written: str) -> dict[str, str]:
    try:
        upside_down = float(bounds["low"]) > float(bounds["high"])
    except ValueError:
        raise ValueError(f"{written!r} is no range; write 2, or 1..3") from None
    if upside_down:
        raise ValueError(f"{written!r} is upside down: a range is written low..high")
    return bounds


def _as_written(value: IntRange | FloatRange) -> int | float | str:
    low, high = repr(value.low), repr(value.high)
    return value.low if low == high else f"{low}..{high}"


def _canvas(value: Any) -> Any:
    """Read 64, "64" or "64x96" as (H, W)."""
    if isinstance(value, str):
        height, times, width = value.partition("x")
        return (height, width if times else height)
    return (value, value) if isinstance(value, int) else value


def _version(value: Any) -> Any:
    """Read "1" as 1, which a literal does not do by itself."""
    return int(value) if isinstance(value, str) and value.isdecimal() else _no_bool(value)


Integers = Annotated[IntRange, BeforeValidator(_range_bounds), PlainSerializer(_as_written)]
Floats = Annotated[FloatRange, BeforeValidator(_range_bounds), PlainSerializer(_as_written)]
Side = Annotated[Integer, Field(ge=1, le=MAX_SIDE_PX)]
Canvas = Annotated[
    tuple[Side, Side],
    BeforeValidator(_canvas),
    PlainSerializer(lambda canvas: f"{canvas[0]}x{canvas[1]}"),
]


class GeneratorConfig(Frozen):
    """What kind of sequences: the defaults are the preset `srivastava`."""

    canvas: Canvas = Field((64, 64), description="height x width of a frame in px: 64 or 64x96")
    frames: Integers = Field(
        IntRange(low=20, high=20), description="frames per sequence, 20 or a range 10..20"
    )
    digits: Integers = Field(
        IntRange(low=2, high=2), description="digits per sequence, 2 or a range 1..3"
    )
    speed: Floats = Field(
        FloatRange(low=3.6, high=3.6),
        description="speed of each digit in px per frame, 3.6 or a range 3.0..5.0",
    )
    glyphs: Literal["mnist"] = Field("mnist", description="glyph set the digits are drawn from")
    rendering: Annotated[Literal[1], BeforeValidator(_version)] = Field(
        1, description="version of the rules that turn a config into pixels"
    )

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        _within("frames", self.frames, 1, MAX_FRAMES)
        _within("digits", self.digits, 1, MAX_DIGITS)
        _within("speed", self.speed, 0, MAX_SIDE_PX)
        num_bytes = self.frames.high * self.canvas[0] * self.canvas[1]
        if num_bytes > MAX_SEQUENCE_BYTES:
            raise ValueError(
                f"canvas x frames is {num_bytes} bytes a sequence, allowed are "
                f"{MAX_SEQUENCE_BYTES}; lower frames or canvas"
            )
        return self


def _within(name: str, value: IntRange | FloatRange, low: int, high: int) -> None:
    # `not <=` instead of `>`: NaN must fail too.
    if not (low <= value.low <= value.high <= high):
        written = _as_written(value)
        raise ValueError(f"{name}: {written} is out of range, allowed are {low}..{high}")


PRESETS: dict[str, tuple[GeneratorConfig, str]] = {
    "srivastava": (
        GeneratorConfig(),
        "two digits that bounce, as the released code of Srivastava et al. 2015 moves them "
        "(one speed for all, although the paper's text draws it); glyphs are drawn with "
        "replacement from the split's own pool",
    ),
}


def find_preset(name: str) -> GeneratorConfig:
    """Return the config of a named preset; InputError lists the names there are."""
    if name not in PRESETS:
        raise InputError(f"preset {name!r} does not exist; choose from: {', '.join(PRESETS)}")
    return PRESETS[name][0]


def load_config(
    preset: str = "srivastava", path: Path | None = None, assignments: Sequence[str] = ()
) -> GeneratorConfig:
    """Resolve preset < TOML file < FIELD=VALUE; InputError names the first bad field."""
    fields = find_preset(preset).model_dump()
    if path is not None:
        fields |= read_toml(path)
        validated(GeneratorConfig, fields, path)  # blames the file for what is the file's
    return validated(GeneratorConfig, fields | parse_assignments(assignments))


def parse_config(fields: Mapping[str, Any]) -> GeneratorConfig:
    """Check the fields of a manifest or a caller; InputError names the first bad one."""
    return validated(GeneratorConfig, fields)


def to_toml(config: GeneratorConfig) -> str:
    """Write a config as TOML that can be edited and fed back, one field a line with its unit."""
    fields = config.model_dump()
    lines = (
        f"{name} = {json.dumps(fields[name], ensure_ascii=False):<12} # {field.description}"
        for name, field in GeneratorConfig.model_fields.items()
    )
    return "\n".join(lines) + "\n"


# What every config of the project shares: files, assignments and one-line errors.


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; InputError if it is missing or does not parse."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no valid TOML: {error}") from error


def parse_assignments(assignments: Sequence[str]) -> dict[str, str]:
    """Split FIELD=VALUE strings; InputError names one without a name or an equals sign."""
    fields: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not (name.strip() and equals):
            raise InputError(f"{assignment!r} is no FIELD=VALUE, such as digits=3")
        fields[name.strip()] = value.strip()
    return fields


def validated(model: type[M], fields: Mapping[str, Any], path: Path | None = None) -> M:
    """Build a pydantic model; InputError says in one line what is wrong."""
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        where = f"{path}: " if path else ""
        raise InputError(where + first_problem(error, model)) from error


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """Say what is wrong with the first bad field: name, value, what is allowed."""
    problem = error.errors(include_url=False)[0]
    inside = ("low", "high", 0, 1)  # of a range or a canvas
    name = ".".join(str(part) for part in problem["loc"] if part not in inside)
    if problem["type"] == "extra_forbidden":
        names = ", ".join(_part_at(model, problem["loc"][:-1]).model_fields)
        return f"field {name!r} does not exist; fields are: {names}"
    message = problem["msg"].removeprefix("Value error, ")
    if not name:
        return message
    given = "" if problem["type"] == "value_error" else f", got {problem['input']!r}"
    return f"{name}: {message[0].lower()}{message[1:]}{given}"


def _part_at(model: type[BaseModel], places: tuple[int | str, ...]) -> type[BaseModel]:
    """Follow a path of field names to the part of a config that it leads to."""
    for place in places:
        part = model.model_fields[str(place)].annotation
        assert isinstance(part, type), "only parts of a config have fields of their own"
        model = part
    return model
