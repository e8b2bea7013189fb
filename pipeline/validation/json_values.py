"""From what YAML may hold to what JSON may hold, within bounds that no configuration reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import ConfigError
from pipeline.validation.pydantic_errors import shown

MAX_VALUES = 20_000
"""Largest number of values and sections after resolving aliases, with which a few lines can exceed the memory."""
MAX_DEPTH = 20
"""Largest depth; no section is as deep, but a YAML alias may contain itself."""
MAX_INT_BITS = 1024


class JsonValues:
    """Converts YAML values to JSON values: keys, and values that JSON lacks, such as dates, become text.

    Raises:
        ConfigError: there are too many values, or a text has a null byte or a lone surrogate.
    """

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def mapping(self, values: Mapping[Any, Any], path: tuple[str, ...]) -> dict[str, Any]:
        """Convert a section with all its values."""
        plain = {}
        for key, value in values.items():
            name = self._text(str(key), path)
            plain[name] = self.value(value, (*path, name))
        return plain

    def value(self, value: Any, path: tuple[str, ...]) -> Any:
        """Convert the value at `path`."""
        self._left -= 1
        if self._left < 0:
            problem = f"there are more than {MAX_VALUES} values in all, aliases resolved"
            raise ConfigError(".".join(path[:2]), problem, "Remove values that no run needs")
        if len(path) > MAX_DEPTH:
            return "..."
        if isinstance(value, dict):
            return self.mapping(value, path)
        if isinstance(value, list | tuple):
            return [self.value(item, (*path, str(number))) for number, item in enumerate(value)]
        if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:  # Python refuses to print those in decimal
            return f"an integer of {value.bit_length()} bits"
        return value if value is None or isinstance(value, bool | int | float) else self._text(str(value), path)

    def _text(self, text: str, path: tuple[str, ...]) -> str:
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            problem = f"{shown(text)} holds a character that no name or path can have"
            raise ConfigError(".".join(path), problem, "Leave it out")
        return text
