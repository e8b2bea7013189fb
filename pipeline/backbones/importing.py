"""A network from a function that the user names: imported, called, and refused in words if that fails.

The code is the user's, so anything may go wrong in it; whatever does becomes a `ConfigError`. The
whole network is built under one key, and every stage builds it alike and keeps its own part: that
is what makes the weights independent of the cuts.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from pipeline.config.model import Module
from pipeline.errors import ConfigError
from pipeline.randomness import seeded_initialisation


def import_network(model: Module, seed: int) -> nn.Module:
    """The network that `model.backbone` names, uncut and on the CPU, with the weights of `seed`.

    The module is looked for in the current directory, then on `sys.path`. Its random numbers are keyed as
    far as they are torch's; a function that draws from another source is not repeatable.

    Raises:
        ConfigError: it cannot be imported, raises, or does not return a module with complete weights.
    """
    with _current_folder_importable(), seeded_initialisation(seed, "network"):
        network = _call(model, _find(model.backbone))
    if not isinstance(network, nn.Module):
        raise ConfigError(
            "model.backbone",
            f"'{model.backbone}' returned an object of type {type(network).__name__}, not a torch.nn.Module",
            "Name a function that builds and returns the network",
        )
    lazy = [name for name, parameter in network.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ConfigError(
            "model.backbone",
            f"'{lazy[0]}' of '{model.backbone}' has no size before the first batch",
            "Give its layer the number of inputs, in place of a lazy layer",
        )
    return network


def first_line(error: BaseException) -> str:
    """An exception in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def nearby(name: str, names: Iterable[str]) -> str:
    """The few of many `names` that look most like `name`, as the beginning of a remedy."""
    close = get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(repr(other) for other in close)}? " if close else ""


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()  # the file may be younger than the last look into its folder
    try:
        yield
    finally:
        sys.path.remove(folder)


def _find(backbone: str) -> Callable[..., object]:
    module_name, _, path = backbone.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        parents = [module_name[:end] for end, sign in enumerate(module_name + ".") if sign == "."]
        if isinstance(error, ModuleNotFoundError) and error.name in parents:
            problem = f"there is no module '{error.name}' on Python's path or in '{Path.cwd()}'"
            raise ConfigError("model.backbone", problem, "Install it, or start where it lies") from None
        problem = f"importing '{module_name}' failed ({first_line(error)})"
        raise ConfigError("model.backbone", problem, "Correct that module") from None
    for name in path.split("."):
        if not hasattr(found, name):
            public = [other for other in dir(found) if not other.startswith("_")]
            remedy = f"{nearby(name, public)}Write PACKAGE.MODULE:FUNCTION"
            raise ConfigError("model.backbone", f"'{module_name}' has no function '{path}'", remedy)
        found = getattr(found, name)
    if not callable(found):
        problem = f"'{backbone}' is of type {type(found).__name__}, not a function"
        raise ConfigError("model.backbone", problem, "Name a function that returns the network")
    function: Callable[..., object] = found
    return function


def _call(model: Module, function: Callable[..., object]) -> object:
    try:
        return function(**model.options)
    except (Exception, SystemExit) as error:
        problem = f"'{model.backbone}' failed with these options ({first_line(error)})"
        if model.options:
            raise ConfigError("model.options", problem, f"Its arguments are {_arguments(function)}") from None
        problem = f"'{model.backbone}' failed ({first_line(error)})"
        remedy = f"Correct it, or give what it needs in model.options; its arguments are {_arguments(function)}"
        raise ConfigError("model.backbone", problem, remedy) from None


def _arguments(function: Callable[..., object]) -> str:
    try:
        return str(inspect.signature(function)).partition(" -> ")[0]
    except (TypeError, ValueError):  # some built-in callables do not tell
        return "not known"
