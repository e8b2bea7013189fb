"""The functions and classes of the package `onward`, with their signatures and docstrings."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from typing import Any

from docs.site.markdown import generated

there = importlib.util.find_spec("onward") is not None
"""Whether the package can be imported."""


WIDTH = 88
"""Longest signature on one line."""
FOR_YOUR_CODE = """
## For your own losses, trackers and scripts

| import | used in |
|---|---|
| `from pipeline.objectives import Embeddings, Objective` | [your own loss](../how-to/loss.md) |
| `from workers.observing.trackers import Tracker` | [your own tracker](../how-to/tracker.md) |
| `from pipeline.backbones import build_block` | [use the backbone](../start/backbone.md) |
| `from pipeline.validation.loading import load_config` | [use the backbone](../start/backbone.md) |
"""


def page() -> str:
    """`reference/python.md`."""
    package: Any = importlib.import_module("onward")
    parts = [text for name in package.__all__ for text in _entry(name, getattr(package, name), "##")]
    return generated("Python", _introduction(package) + "\n", *parts, FOR_YOUR_CODE.strip() + "\n")


def _introduction(package: Any) -> str:
    """The docstring of the package without its list of files."""
    lines = inspect.cleandoc(package.__doc__ or "").splitlines()
    return "\n".join(line for line in lines if not re.match(r"- `\w+\.py`", line)).strip()


def _entry(name: str, thing: Any, level: str) -> Iterator[str]:
    if not callable(_function_of(thing)):
        return
    yield f"{level} {name}\n"
    yield f"```python\n{_signature(name, thing)}\n```\n"
    yield _markdown(inspect.getdoc(thing) or "") + "\n"
    if inspect.isclass(thing) and thing.__module__.startswith("onward"):
        for method, member in vars(thing).items():
            if not method.startswith("_") and inspect.isfunction(_function_of(member)):
                yield from _entry(f"{name}.{method}", member, "###")


def _function_of(member: Any) -> Any:
    """What a property, a cached property or a class method calls; anything else is itself."""
    if isinstance(member, functools.cached_property):
        return member.func
    return member.fget if isinstance(member, property) else getattr(member, "__func__", member)


def _signature(name: str, thing: Any) -> str:
    """The call with its parameters, one per line where they are many; of a model of pydantic, without its keys."""
    if hasattr(thing, "model_fields"):
        return f"{name}(**keys)"
    try:
        found = inspect.signature(_function_of(thing))
    except (TypeError, ValueError):
        return name
    shown = list(_with_stars(found))
    returned = "" if found.return_annotation in (found.empty, "None", None) else f" -> {_text(found.return_annotation)}"
    if isinstance(thing, (property, functools.cached_property)):
        return name + returned
    line = f"{name}({', '.join(shown)}){returned}"
    return line if len(line) <= WIDTH else f"{name}(\n    " + ",\n    ".join(shown) + f",\n){returned}"


def _with_stars(found: inspect.Signature) -> Iterator[str]:
    star = False
    for each in found.parameters.values():
        if each.name in ("self", "cls"):
            continue
        if each.kind is each.KEYWORD_ONLY and not star:
            star = True
            yield "*"
        star = star or each.kind is each.VAR_POSITIONAL
        mark = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        said = "" if each.annotation is each.empty else f": {_text(each.annotation)}"
        default = "" if each.default is each.empty else f" = {each.default!r}"
        yield f"{mark}{each.name}{said}{default}"


def _text(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _markdown(doc: str) -> str:
    """`Args:`, `Returns:` and `Raises:` as lists, with the items that follow."""
    doc = re.sub(r"^(Args|Returns|Raises):$", r"**\1**\n", doc, flags=re.M)
    doc = re.sub(r"^ {4}(\w[\w, ]*): ", r"- `\1`: ", doc, flags=re.M)
    return re.sub(r"^ {4,8}(?=\S)", "  ", doc, flags=re.M)
