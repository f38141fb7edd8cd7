"""What every config of the project shares: ranges, files, assignments and one-line errors."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
)

from mmgen.errors import InputError

M = TypeVar("M", bound=BaseModel)


class Frozen(BaseModel):
    """A config that cannot change and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def no_bool(value: Any) -> Any:
    """Refuse true and false, which pydantic and Python take for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"input should be a number, got {value}")
    return value


Integer = Annotated[int, BeforeValidator(no_bool)]
Float = Annotated[
    float,
    BeforeValidator(no_bool),
    AfterValidator(lambda value: value + 0.0),  # -0.0 is 0.0: equal configs draw equal bytes
]


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


def as_written(value: IntRange | FloatRange) -> int | float | str:
    """Write a range as it is set: a number, or low..high."""
    low, high = repr(value.low), repr(value.high)
    return value.low if low == high else f"{low}..{high}"


Integers = Annotated[IntRange, BeforeValidator(_range_bounds), PlainSerializer(as_written)]
Floats = Annotated[FloatRange, BeforeValidator(_range_bounds), PlainSerializer(as_written)]


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; InputError if it is missing or does not parse."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for without end
            raise InputError(f"{path}: is no file")
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
    says_all = problem["type"] in ("value_error", "missing")
    given = "" if says_all else f", got {problem['input']!r}"
    return f"{name}: {message[0].lower()}{message[1:]}{given}"


def _part_at(model: type[BaseModel], places: tuple[int | str, ...]) -> type[BaseModel]:
    """Follow a path of field names, and of keys, to the part of a config that it leads to."""
    part: Any = model
    for place in places:
        is_table = get_origin(part) is dict  # of parts by any name
        part = get_args(part)[1] if is_table else part.model_fields[str(place)].annotation
    assert isinstance(part, type), "only parts of a config have fields of their own"
    assert issubclass(part, BaseModel)
    return part
