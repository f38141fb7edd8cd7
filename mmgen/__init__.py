"""Moving MNIST sequences of exactly the difficulty you choose, with the full ground truth."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmgen.config import GeneratorConfig
    from mmgen.errors import InputError, MmgenError, ShardError
    from mmgen.generate import render
    from mmgen.presets import PRESETS
    from mmgen.preview import show
    from mmgen.shard.reader import open_dataset as open

__version__ = "0.1.0"
__distribution__ = "moving-mnist"  # tells ours from others of the name

# Public names and where they live. They load on first use, because numba alone takes more than a
# second to import and `mmgen --help` must not pay for it.
_EXPORTS = {
    "GeneratorConfig": "mmgen.config",
    "InputError": "mmgen.errors",
    "MmgenError": "mmgen.errors",
    "PRESETS": "mmgen.presets",
    "ShardError": "mmgen.errors",
    "open": "mmgen.shard.reader",
    "render": "mmgen.generate",
    "show": "mmgen.preview",
}
_NAME_THERE = {"open": "open_dataset"}

__all__ = [
    "PRESETS",
    "GeneratorConfig",
    "InputError",
    "MmgenError",
    "ShardError",
    "__version__",
    "open",
    "render",
    "show",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'mmgen' has no attribute {name!r}")
    found = getattr(import_module(_EXPORTS[name]), _NAME_THERE.get(name, name))
    globals()[name] = found  # the next time Python finds it without asking here
    return found


def __dir__() -> list[str]:
    return __all__
