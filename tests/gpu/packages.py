"""What an interpreter lacks: one line for each package, with what would help. Imports nothing but Python's own."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
MODULES = {"pyyaml": "yaml", "pillow": "PIL", "opencv-python-headless": "cv2"}
"""Modules that are not called like their packages."""
NOT_NEEDED = {"deepspeed", "cuda-bindings"}
"""Engines that no row uses; and what the rows themselves say when it is missing, as links then take another way."""
OF_TESTS = {"pytest", "pytest-timeout"}
"""Of the development packages, those that the tests on a device take."""
SLOW_TO_IMPORT = {"torch", "torchvision", "scipy", "matplotlib", "deepspeed"}
"""Found and not imported: they take seconds."""


def requirements() -> list[str]:
    """Such as `torch>=2.11`, as pyproject.toml has them."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    development = (line for line in project["optional-dependencies"]["dev"] if name_of(line) in OF_TESTS)
    return [line for line in project["dependencies"] if name_of(line) not in NOT_NEEDED] + list(development)


def name_of(requirement: str) -> str:
    """Of the package that a requirement is about."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return found[0]


def problems() -> list[str]:
    """A line for everything that this interpreter lacks; empty if it can run the proof."""
    return [line for requirement in requirements() for line in problem(requirement)]


def problem(requirement: str) -> Iterator[str]:
    """What is wrong with one package, if anything is."""
    package = name_of(requirement)
    wrong = _import_error(package) or _too_old(package, requirement)
    if wrong:
        yield (
            f"error: {package} {wrong}. Install it ({sys.executable} -m pip install '{requirement}'), or put a folder "
            "that has it on PYTHONPATH"
        )


def _import_error(package: str) -> str:
    module = MODULES.get(package, package.replace("-", "_"))
    if importlib.util.find_spec(module) is None:
        return "is missing"
    if package not in SLOW_TO_IMPORT:
        try:
            importlib.import_module(module)
        except ImportError as error:  # of something that it needs itself
            return f"cannot be imported: {error}"
    return ""


def _too_old(package: str, requirement: str) -> str:
    try:
        present = version(package)
    except PackageNotFoundError:  # carried without its metadata
        return ""
    wanted = re.search(r">=([\d.]+)", requirement)
    older = wanted is not None and _numbers(present) < _numbers(wanted[1])
    return f"is {present} here, which is too old" if older else ""


def _numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"[\d.]+", text)
    return tuple(int(part) for part in found[0].split(".") if part) if found else ()
