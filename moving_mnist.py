"""The way in of both commands: it looks whether `mmgen` and `trainer` are this distribution's own.

Others provide packages of these names too. Theirs may come first on the path, or lie over ours, of
which pip does not say a word; then nothing in ours can be relied on to run, so this is said here.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTION = "moving-mnist"


def mmgen() -> None:
    """Run the command `mmgen`."""
    _run("mmgen")


def mmtrain() -> None:
    """Run the command `mmtrain`."""
    _run("mmgen", "trainer")


def _run(*packages: str) -> None:
    """Run the command of the last of these packages, if all are ours."""
    for name in packages:
        if not _is_ours(name):
            print(f"Error: {_whose(name)}", file=sys.stderr)
            sys.exit(2)
    import_module(f"{packages[-1]}.cli").main()


def _is_ours(name: str) -> bool:
    try:
        found = import_module(name)  # ours imports nothing, and so cannot fail
    except Exception:
        return False
    return getattr(found, "__distribution__", None) == DISTRIBUTION


def _whose(name: str) -> str:
    from importlib.metadata import packages_distributions  # reads every one that is installed

    spec = find_spec(name)
    places = list(spec.submodule_search_locations or [str(spec.origin)]) if spec else []
    where = f" in {places[0]}" if places else ""
    others = sorted(set(packages_distributions().get(name, ())) - {DISTRIBUTION})
    if others:
        return (
            f"the package {name}{where} is that of {' and '.join(others)}, which has taken the "
            f"place of {DISTRIBUTION}'s; install {DISTRIBUTION} in an environment of its own"
        )
    if Path(__file__).parent / name in map(Path, places):
        return f"the package {name}{where} is damaged; install {DISTRIBUTION} again"
    return (
        f"the package {name}{where} hides that of {DISTRIBUTION}; rename it, or take its folder "
        "off PYTHONPATH"
    )
