"""Python objects in the place of names: a network, a loss, a data set, trackers.

A class or function that can be imported is as good as its name, and is named. Anything else, such as what a notebook
defines, exists in this process alone: the configuration calls it `python_object:NAME`, and the run is in this process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from itertools import count
from pathlib import Path
from types import FunctionType
from typing import Any

from pipeline import config as settings
from pipeline.errors import ConfigError, UserError
from pipeline.plugins import GIVEN, given_object, is_given

KEYS = {"network": "model.backbone", "loss": "objective.kind", "data": "data.name"}
"""The key in whose place an object stands; trackers have one each."""
Given = Mapping[str, object]
"""Objects by the keyword of `onward.train`: `network`, `loss`, `data`, and `trackers`, which is a list."""
_IN_USE: set[str] = set()


class Objects:
    """Objects with the names that stand for them.

    Args:
        given: see `Given`.
        names: of objects that have names already, by keyword; others get one.

    Raises:
        ConfigError: an object is of a kind that cannot be used.
    """

    def __init__(self, given: Given, names: Mapping[str, str] | None = None) -> None:
        self.given = dict(given)
        trackers = self.given.pop("trackers", ())
        if not isinstance(trackers, Sequence) or isinstance(trackers, str):
            raise ConfigError("trackers", f"got an object of type {type(trackers).__name__}", "Give a list of trackers")
        self._items: dict[str, tuple[str, Callable[..., object]]] = {}
        for keyword, value in [*self.given.items(), *((f"trackers.{n}", one) for n, one in enumerate(trackers))]:
            factory = _factory(keyword, value)
            self._items[keyword] = (names or {}).get(keyword) or importable_name(value) or _own_name(value), factory
        self.tracker_count = len(trackers)

    @property
    def only_here(self) -> list[str]:
        """Keywords of the objects that exist in this process alone."""
        return [keyword.split(".")[0] for keyword, (name, _) in self._items.items() if is_given(name)]

    def overrides(self, before: Sequence[object] = ()) -> dict[str, object]:
        """The names as values of the configuration, by dotted key.

        Args:
            before: trackers that the configuration has already.
        """
        found: dict[str, object] = {KEYS[k]: name for k, (name, _) in self._items.items() if k in KEYS}
        if self.tracker_count:
            own = [{"kind": self._items[f"trackers.{number}"][0]} for number in range(self.tracker_count)]
            found["trackers"] = [*before, *own]
        return found

    @contextmanager
    def meant(self) -> Iterator[None]:
        """Within the block, the names mean the objects."""
        with ExitStack() as stack:
            for name, make in self._items.values():
                if is_given(name):
                    stack.enter_context(given_object(name, make))
            yield

    def release(self) -> None:
        """Let others have the names."""
        _IN_USE.difference_update(name for name, _ in self._items.values())


@contextmanager
def for_run(config: settings.Config, given: Given, path: Path) -> Iterator[None]:
    """Within the block, the names in the configuration of a run mean these objects.

    Args:
        config: of the run, as it was trained.
        given: what it was trained with, as far as it is needed.
        path: of the run, for messages.

    Raises:
        UserError: an object is given that the run was not trained with.
    """
    named = {"network": config.model.backbone, "loss": config.objective.kind, "data": config.data.name}
    for keyword in given:
        if not is_given(named.get(keyword, "")):
            raise UserError(f"{keyword}: '{path}' was not trained with a Python object there. Leave it out")
    with Objects(given, named).meant():
        yield


def check_one_process(config: settings.Config, objects: Objects) -> None:
    """Raises `ConfigError` if a run in several processes has objects that exist in one."""
    if config.in_one_process or not objects.only_here:
        return
    keyword = objects.only_here[0]
    key = KEYS.get(keyword, "trackers.0.kind")
    problem = f"is pipelined, and {keyword}= is a Python object of this program, which other processes do not have"
    named = f"{keyword}=my_module.{'faces' if keyword == 'data' else 'Mine'}"
    remedy = (
        f"Give runtime='serial'; or put it into a file and give it by name: {key}=my_module:NAME, or {named} imported"
    )
    raise ConfigError("runtime", problem, remedy)


def importable_name(value: object) -> str | None:
    """`MODULE:NAME` of a class or function that any process can import; None of anything else."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not isinstance(value, type | FunctionType) or module in (None, "__main__") or "<" in name:
        return None
    found: Any = sys.modules.get(str(module))
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is value else None


def _own_name(value: object) -> str:
    """`python_object:NAME`, the same again in another process unless two are in use at once."""
    plain = getattr(value, "__name__", None) or type(value).__name__
    plain = "".join(letter if letter.isalnum() else "_" for letter in str(plain))
    names = (f"{GIVEN}:{plain}" if number == 1 else f"{GIVEN}:{plain}_{number}" for number in count(1))
    name = next(name for name in names if name not in _IN_USE)
    _IN_USE.add(name)
    return name


def _factory(keyword: str, value: object) -> Callable[..., object]:
    """What the run calls in the place of a function that the configuration names."""
    kind = keyword.split(".")[0]
    if kind == "data":
        parts = value if isinstance(value, tuple | list) and len(value) == 2 and _are_sets(value) else (value, None)
        return value if callable(value) else lambda split: parts[split == "test"]
    if callable(value) and (isinstance(value, type) or not _is_module(value)):
        return value
    if kind in ("network", "loss") and not _is_module(value):
        wanted = "torch.nn.Module" if kind == "network" else "onward.Objective"
        raise ConfigError(
            KEYS[kind], f"{kind}= is of type {type(value).__name__}", f"Give a {wanted}, or what returns one"
        )
    if kind == "trackers":
        return lambda **options: value
    # A copy for every block: blocks share no state.
    return lambda *arguments, **options: deepcopy(value)


def _is_module(value: object) -> bool:
    from torch import nn

    return isinstance(value, nn.Module)


def _are_sets(parts: Sequence[object]) -> bool:
    return all(part is None or (hasattr(part, "__len__") and hasattr(part, "__getitem__")) for part in parts)
