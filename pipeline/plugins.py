"""Imports and calls what the configuration names as `PACKAGE.MODULE:NAME`, with error messages for users.

The code is the user's, so it may raise anything; every failure becomes a `ConfigError` that names the key.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, did_you_mean, first_line

GIVEN = "python_object"
"""In the place of a module: what a program has handed over (`given_object`), by a name of its own."""
_given: dict[str, Callable[..., object]] = {}


@contextmanager
def given_object(name: str, make: Callable[..., object]) -> Iterator[None]:
    """Within the block, `make` is what `python_object:...` stands for, in this process alone.

    Args:
        name: beginning with `GIVEN` and a colon; nobody else's.
        make: called as a function of that kind is.
    """
    _given[name] = make
    try:
        yield
    finally:
        del _given[name]


def is_given(name: str) -> bool:
    """Whether a name stands for an object that a program hands over."""
    return name.startswith(f"{GIVEN}:")


@dataclass(frozen=True)
class Plugin:
    """A callable that a configuration names.

    Args:
        key: dotted path of the key that holds the name, for messages.
        name: `PACKAGE.MODULE:NAME`. The module is searched on `sys.path`, then in the current directory.
        options_key: dotted path of the key that holds the keyword arguments.
        options: the keyword arguments.
    """

    key: str
    name: str
    options_key: str
    options: Mapping[str, Any]

    def call(self, *arguments: Any) -> object:
        """Import it and call it with `arguments` and the options.

        Raises:
            ConfigError: the object cannot be imported or called, or raises.
        """
        with _current_folder_importable():
            function = self._find()
            try:
                return function(*arguments, **self.options)
            except (Exception, SystemExit) as error:
                raise self._failed(function, error) from None

    def _find(self) -> Callable[..., object]:
        if is_given(self.name):
            if self.name not in _given:
                problem = (
                    f"'{self.name}' is a Python object of the program that trained this run, and of no other process"
                )
                raise ConfigError(
                    self.key, problem, f"Give it again, such as onward.load(RUN, {_keyword(self.key)}=...)"
                )
            return _given[self.name]
        module_name, _, path = self.name.partition(":")
        try:
            named: Any = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            parents = [module_name[:end] for end, sign in enumerate(module_name + ".") if sign == "."]
            if isinstance(error, ModuleNotFoundError) and error.name in parents:
                problem = f"there is no module '{error.name}' on Python's path or in '{Path.cwd()}'"
                raise ConfigError(self.key, problem, "Install it, or start in the folder that contains it") from None
            problem = f"importing '{module_name}' failed ({first_line(error)})"
            raise ConfigError(self.key, problem, "Correct that module") from None
        for name in path.split("."):
            if not hasattr(named, name):
                public = [other for other in dir(named) if not other.startswith("_")]
                remedy = f"{did_you_mean(name, public, most=3)}Write PACKAGE.MODULE:NAME"
                raise ConfigError(self.key, f"'{module_name}' has no function '{path}'", remedy)
            named = getattr(named, name)
        if not callable(named):
            problem = f"'{self.name}' is of type {type(named).__name__}, not a function"
            raise ConfigError(self.key, problem, "Name something that can be called")
        function: Callable[..., object] = named
        return function

    def _failed(self, function: Callable[..., object], error: BaseException) -> ConfigError:
        if self.options:
            problem = f"'{self.name}' failed with these options ({first_line(error)})"
            return ConfigError(self.options_key, problem, f"Its arguments are {_arguments(function)}")
        problem = f"'{self.name}' failed ({first_line(error)})"
        remedy = f"Correct it, or give what it needs in {self.options_key}; its arguments are {_arguments(function)}"
        return ConfigError(self.key, problem, remedy)


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.append(folder)  # last: a random.py of the user must not shadow the library's
    importlib.invalidate_caches()  # the file may be newer than the importer's listing of its folder
    try:
        yield
    finally:
        sys.path.remove(folder)


def _keyword(key: str) -> str:
    """Under which name a program hands over an object: that of the section, or what the section is about."""
    section = key.split(".")[0]
    return {"model": "network", "objective": "loss"}.get(section, section)


def _arguments(function: Callable[..., object]) -> str:
    try:
        return str(inspect.signature(function)).partition(" -> ")[0]
    except (TypeError, ValueError):  # some built-in callables have no signature
        return "not known"
