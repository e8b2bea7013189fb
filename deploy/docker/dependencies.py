"""Prints what Onward needs, a line each, as pip takes it: `python dependencies.py pyproject.toml [EXTRA ...]`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
for needed in (project["dependencies"], *(project["optional-dependencies"][extra] for extra in sys.argv[2:])):
    print(*needed, sep="\n")
