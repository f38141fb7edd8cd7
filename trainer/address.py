"""What a DATA address says: where sequences lie, or how they are rendered; nothing is opened here.

DATA      a data set's folder or address, or live:PRESET, live:FILE.toml
live:     ?seed=N&FIELD=VALUE may follow: the seed (0) and any field of the generator's config
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmgen import errors, presets
from mmgen.config import GeneratorConfig
from trainer.errors import InputError

Address = str | os.PathLike[str]

LIVE = "live:"
_WHAT_TO_NAME = "name a data set's folder or address, or live:PRESET"


def is_file(address: Address) -> bool:
    """Tell an npy file on this machine from a data set."""
    return str(address).endswith(".npy") and Path(address).is_file()


def is_live(address: Address) -> bool:
    """Tell whether an address means data that are rendered as they are asked for."""
    return str(address).startswith(LIVE)


def parse_live(address: str) -> tuple[GeneratorConfig, int]:
    """Read live:PRESET?seed=N&FIELD=VALUE; return config and seed."""
    name, _, query = address.removeprefix(LIVE).partition("?")
    words = [word for word in query.split("&") if word]
    seeds = [word.partition("=")[2] for word in words if word.partition("=")[0] == "seed"]
    assignments = [word for word in words if word.partition("=")[0] != "seed"]
    if not name:
        raise InputError(f"{address}: names no preset; write live:srivastava or live:FILE.toml")
    # int() refuses thousands of digits.
    if not all(s.isdecimal() and len(s) < 20 and int(s) < 2**63 for s in seeds):
        raise InputError(f"{address}: seed is no whole number from 0 to {2**63 - 1}")
    try:
        is_file = name.endswith(".toml")
        config = (
            presets.load_config(path=Path(name), assignments=assignments)
            if is_file
            else presets.load_config(name, assignments=assignments)
        )
    except errors.InputError as error:
        raise InputError(f"{address}: {error}") from error
    return config, int(seeds[-1]) if seeds else 0


def absolute(address: Address) -> str:
    """Write an address so that it means the same from any working folder."""
    text = str(address)
    if is_live(text):
        name, mark, query = text.removeprefix(LIVE).partition("?")
        name = os.path.realpath(name) if name.endswith(".toml") else name
        return f"{LIVE}{name}{mark}{query}"
    return text if "://" in text else os.path.realpath(text)


def as_weighted(data: Address | Mapping[str, float]) -> dict[str, float]:
    """Return address -> weight of one address or several; InputError for none or a bad weight."""
    if not isinstance(data, str | os.PathLike | Mapping):
        raise InputError(
            f"DATA is a {type(data).__name__}; to mix several, write {{address: weight}}"
        )
    given = data if isinstance(data, Mapping) else {data: 1.0}
    if not given:
        raise InputError(f"no DATA; {_WHAT_TO_NAME}")
    weighted = {str(address): _as_float(weight) for address, weight in given.items()}
    for address, weight in weighted.items():
        check_named(address)
        if not 0 < weight < math.inf:
            raise InputError(f"{address}={weight:g}: a weight is a number above 0")
    return weighted


def _as_float(weight: Any) -> float:
    try:
        return float(weight)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return math.nan


def check_named(address: Address) -> None:
    """Refuse an address without a name."""
    if not str(address):  # a path of no name would be the working folder
        raise InputError(f"DATA is empty; {_WHAT_TO_NAME}")


def parse_weighted(words: Sequence[str]) -> dict[str, float]:
    """Read DATA[=WEIGHT]...; what exists as it is written is a path, whatever it contains."""
    weighted: dict[str, float] = {}
    for word in words:
        address, weight = _split_weight(word)
        if address in weighted:
            raise InputError(f"{address}: is named twice; add its weights up")
        weighted[address] = weight
    return as_weighted(weighted)


def _split_weight(word: str) -> tuple[str, float]:
    address, equals, number = word.rpartition("=")
    # In live:PRESET?seed=3 the `=` is the field's, in live:PRESET?seed=3=0.5 the last is ours.
    field = re.split("[?&]", word)[-1] if is_live(word) and "?" in word else ""
    if not equals or field.count("=") == 1 or Path(word).exists():
        return word, 1.0
    try:
        return address, float(number)
    except ValueError:
        return word, 1.0
