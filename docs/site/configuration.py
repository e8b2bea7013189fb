"""Every key of the configuration: default, range, whether stages and resumed runs may differ in it, and what it means."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.site.key_docs import doc_of, summary
from docs.site.markdown import code, generated, table
from launch.prepare.config_differences import is_free
from pipeline.config import Config, Section, StageOverrides
from pipeline.config.kinds import kinds_of

INTRODUCTION = """
`onward check CONFIG [key=value ...]` prints every key with its value, and starts nothing.

A key is written as `section.key`, in the file as nested YAML, on the command line as `section.key=value`. Values on the
command line are YAML too. A key that no section has, or a value out of range, ends the command with exit code 2.

The column *may differ* says:

- **stage**: a key below `stages.K` sets it for stage K alone (`stages.2.objective.kind=vicreg`).
- **resume**: a run that is resumed may have another value. All other keys must be the same, since they decide the result.
  `memory` may change too, except with `precision.compile`.

Sections with several kinds (`objective`, `head`, `optimizer`, `engine`, and `model` by its `backbone`) have the keys of
their kind and no others. Changing the kind on the command line drops the keys that the file sets for the old kind:
`objective.kind=vicreg` works on a file that sets `objective.lambd`. Keys with the same meaning in both stay, such as the
projector of a head or the warm-up of an optimizer. A key whose default differs, such as the learning rate, starts from
the new default.
"""
RUN_WIDE = ("precision.tf32", "precision.shared_scaler")
"""Keys of sections that may differ from stage to stage, which hold for the whole run all the same."""
HEAD = ("key", "default", "may differ", "what it is, and its values")


def page() -> str:
    """`reference/configuration.md`."""
    top = [name for name, field in Config.model_fields.items() if not _sections(field.annotation)]
    parts = [INTRODUCTION.strip() + "\n", "## The run\n", table(HEAD, _rows(Config, "", top))]
    for name, field in Config.model_fields.items():
        if name not in top:
            parts += _section(name, field)
    return generated("Configuration", *parts)


def all_keys() -> Iterator[tuple[type[Section], str, str]]:
    """Every key of every section and kind: its model, its dotted path, and its docstring."""
    waiting: list[tuple[type[Section], str]] = [(Config, "")]
    while waiting:
        model, prefix = waiting.pop()
        for name, field in model.model_fields.items():
            yield model, prefix + name, _said(model, name)
            waiting += [(inner, f"{prefix}{name}.") for inner in _sections(field.annotation)]


def _section(name: str, field: FieldInfo) -> Iterator[str]:
    models = _sections(field.annotation)
    named = "list of" if get_origin(field.annotation) in (tuple, dict) else ""
    yield f"## {name}\n"
    if doc := doc_of(Config, name):
        yield doc + "\n"
    tags = kinds_of(field.annotation)
    for tag, model in tags.items() if tags else [("", models[0])]:
        if tag:
            yield f"### {name}: {tag}\n"
        yield summary(model) + "\n"
        prefix = f"{name}.N." if named and name != "stages" else f"{name}.K." if name == "stages" else f"{name}."
        yield from _tables(model, prefix)


def _tables(model: type[Section], prefix: str) -> Iterator[str]:
    """The table of a section, then one for each section in it."""
    inner = {name: _sections(field.annotation) for name, field in model.model_fields.items()}
    plain = [name for name in model.model_fields if not inner[name]]
    if plain:
        yield table(HEAD, _rows(model, prefix, plain))
    for name, models in inner.items():
        many = get_origin(model.model_fields[name].annotation) is tuple
        for each in models:
            yield f"#### {prefix}{name}\n"
            yield (doc_of(model, name) or summary(each)) + "\n"
            yield from _tables(each, f"{prefix}{name}." + ("N." if many else ""))


def _rows(model: type[Section], prefix: str, names: list[str]) -> Iterator[list[str]]:
    for name in names:
        field, key = model.model_fields[name], prefix + name
        yield [code(key), _default(field), _may_differ(key), f"{_said(model, name)}<br>*{_values(field)}*"]


def _said(model: type[Section], name: str) -> str:
    """What a key means: its docstring, else that of the section that it holds, or that it chooses the kind."""
    field = model.model_fields[name]
    if doc := doc_of(model, name):
        return doc
    if sections := _sections(field.annotation):
        return summary(sections[0])
    if name == "kind" and get_origin(field.annotation) is Literal:
        return "Chooses this kind."
    return ""


def _may_differ(key: str) -> str:
    section = key.partition(".")[0]
    stage = section in StageOverrides.model_fields and key not in RUN_WIDE
    return ", ".join(["stage"] * stage + ["resume"] * is_free(key))


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "must be given" if field.default_factory is None else "none"
    return code(json.dumps(field.default)) if not isinstance(field.default, str) else code(field.default)


def _values(field: FieldInfo) -> str:
    return _range(field.annotation, tuple(field.metadata))


def _range(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _range(args[0], (*args[1:], *metadata))
    if origin is Literal:
        return ", ".join(code(json.dumps(value) if not isinstance(value, str) else value) for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join(_range(part) for part in args)
    if origin is tuple:
        parts = [args[0]] if args[1:] == (Ellipsis,) else args
        joined = ", ".join(dict.fromkeys(_range(part) for part in parts))
        return f"list of {len(parts)}: {joined}" if len(parts) > 1 else f"list: {joined}"
    if annotation is bool:
        return "`true`, `false`"
    if annotation is type(None):
        return "`null`"
    if annotation in (int, float):
        return _limits("whole number" if annotation is int else "number", metadata)
    return {str: "text", dict: "mapping"}.get(origin or annotation, "mapping")


def _limits(kind: str, metadata: tuple[Any, ...]) -> str:
    limits = []
    for item in [part for one in metadata for part in (one.metadata if isinstance(one, FieldInfo) else [one])]:
        for cls, name, sign in _LIMITS:
            if isinstance(item, cls):
                limits.append(f"{sign} {getattr(item, name):g}" if abs(getattr(item, name)) < 1e6 else f"{sign} 2^31")
    return f"{kind}, {' and '.join(limits)}" if limits else kind


_LIMITS = (
    (annotated_types.Ge, "ge", "≥"),
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Le, "le", "≤"),
    (annotated_types.Lt, "lt", "<"),
)


def _sections(annotation: Any) -> list[type[Section]]:
    """The sections that a key may hold: one, or one per kind; also within lists."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    kinds = list(kinds_of(annotation).values())
    return kinds or [found for part in get_args(annotation) for found in _sections(part)]
