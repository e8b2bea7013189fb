"""Keys of a configuration as Python's keyword arguments: `train__epochs=2` is `train.epochs=2` of the command line.

Both ways are the same text in the end, so that a value is understood, and refused, in the same words.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from pipeline.errors import ConfigError

SEPARATOR = "__"


def as_text(overrides: Mapping[str, object] | None, keywords: Mapping[str, object]) -> list[str]:
    """`KEY=VALUE` of every override, in order, as the command line takes them.

    Args:
        overrides: values by dotted key: `{"train.epochs": 2}`.
        keywords: values by key with two underscores for every dot: `train__epochs=2`, `stages__3__replicas=2`.

    Raises:
        ConfigError: a key is given both ways, or a value is a Python object that no file can hold.
    """
    by_keyword = {name.replace(SEPARATOR, "."): value for name, value in keywords.items()}
    given = dict(overrides or {})
    for key in by_keyword.keys() & given.keys():
        raise ConfigError(key, "is given twice, as a keyword and in overrides", "Leave one out")
    return [f"{key}={_text(key, value)}" for key, value in (given | by_keyword).items()]


def _text(key: str, value: object) -> str:
    """The value as JSON, which is YAML."""

    def plain(other: object) -> object:
        if isinstance(other, os.PathLike):
            return os.fspath(other)
        if isinstance(other, set | frozenset):
            return sorted(other)
        if hasattr(other, "model_dump"):  # a section of a configuration
            return other.model_dump(mode="json")
        raise TypeError

    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError, RecursionError):
        kind = type(value).__name__
        remedy = (
            "Give what YAML can hold, a number, a text, a list or a mapping; a class or function by its name, "
            f"{key}='my_module:MyClass', or, with runtime='serial', as network=, loss=, data= or trackers="
        )
        raise ConfigError(key, f"got a Python object of type {kind}", remedy) from None
