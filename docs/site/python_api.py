"""The functions and classes of the package `onward`, with their signatures and docstrings."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from typing import Any

from docs.site.markdown import generated

there = importlib.util.find_spec("onward") is not None
"""Whether the package can be imported."""


def page() -> str:
    """`reference/python.md`."""
    package: Any = importlib.import_module("onward")
    parts = [text for name in package.__all__ for text in _entry(name, getattr(package, name), "##")]
    return generated("Python", inspect.cleandoc(package.__doc__ or "") + "\n", *parts)


def _entry(name: str, thing: Any, level: str) -> Iterator[str]:
    if not callable(thing):
        return
    yield f"{level} {name}\n"
    yield f"```python\n{_signature(name, thing)}\n```\n"
    yield _markdown(inspect.getdoc(thing) or "") + "\n"
    if inspect.isclass(thing) and thing.__module__.startswith("onward"):
        for method, member in vars(thing).items():
            inner = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if not method.startswith("_") and inspect.isfunction(inner):
                yield from _entry(f"{name}.{method}", inner, "###")


def _signature(name: str, thing: Any) -> str:
    try:
        return f"{name}{inspect.signature(thing)}"
    except (TypeError, ValueError):
        return name


def _markdown(doc: str) -> str:
    """`Args:`, `Returns:` and `Raises:` as lists, with the items that follow."""
    doc = re.sub(r"^(Args|Returns|Raises):$", r"**\1**\n", doc, flags=re.M)
    doc = re.sub(r"^ {4}(\w[\w, ]*): ", r"- `\1`: ", doc, flags=re.M)
    return re.sub(r"^ {4,8}(?=\S)", "  ", doc, flags=re.M)
