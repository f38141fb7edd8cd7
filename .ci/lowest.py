"""Print every dependency of pyproject.toml, extras included, at its lowest version: constraints.

`make lowest` installs by them and runs the tests, so a bound is a promise that was kept once. What
dependencies themselves depend on, and the tools of development, stay as new as that allows.
"""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = (line for lines in project["optional-dependencies"].values() for line in lines)
for requirement in (*project["dependencies"], *extras):
    name, lowest = re.fullmatch(r"([a-z0-9-]+)>=([0-9.]+)", requirement).groups()
    print(f"{name}=={lowest}")
