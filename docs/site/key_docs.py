"""The docstrings below the keys of a section, read from the source."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap


@functools.cache
def own_docs(model: type) -> dict[str, str]:
    """The docstring below each attribute that the body of `model` annotates; empty where there is none."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0].body  # type: ignore[attr-defined]
    found = {}
    for statement, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value
            found[statement.target.id] = inspect.cleandoc(text) if isinstance(text, str) else ""
    return found


def doc_of(model: type, name: str) -> str:
    """The docstring of an attribute, the nearest in the order of inheritance; empty where there is none."""
    return next((text for base in model.__mro__[:-1] if (text := _docs(base).get(name))), "")


def _docs(model: type) -> dict[str, str]:
    return {} if model.__module__.startswith(("pydantic", "builtins")) else own_docs(model)


def summary(model: type) -> str:
    """The docstring of a class up to its arguments, on one line."""
    return " ".join(inspect.cleandoc(model.__doc__ or "").partition("\n\nArgs:")[0].split())
