"""Sections with several kinds, such as `objective`: the key `kind` decides which other keys exist.

Such a section is a union of models that pydantic distinguishes by a tag. If the YAML does not have the key, the
default kind is meant; pydantic's plain discriminator would call that an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import Discriminator, Tag, TypeAdapter, ValidationError

from pipeline.config.base import Section


def by_key(key: str, default: str, family: Callable[[str], str] = str) -> Discriminator:
    """A discriminator by the value of `key`, mapped through `family`; `default` is the value of a missing key."""

    def read(value: Any) -> str:
        name = value.get(key, default) if isinstance(value, dict) else getattr(value, key, default)
        return family(name if isinstance(name, str) else json.dumps(name, default=str))

    return Discriminator(read)


def section_for(annotation: Any, value: Mapping[str, Any]) -> type[Section] | None:
    """The model that would validate `value` under this annotation; None if there is no model, or no such kind."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, Section) else None
    discriminator = _discriminator(annotation)
    if discriminator is not None:
        read: Callable[[Any], str] = discriminator.discriminator  # type: ignore[assignment]
        return kinds_of(annotation).get(read(dict(value)))
    return next((section for part in get_args(annotation) if (section := section_for(part, value))), None)


def kinds_of(annotation: Any) -> dict[str, type[Section]]:
    """The models of a union of kinds, by their tags; none for anything else."""
    models: dict[str, type[Section]] = {}
    for part in get_args(annotation):
        tag = next((item.tag for item in get_args(part)[1:] if isinstance(item, Tag)), None)
        models |= {tag: get_args(part)[0]} if tag else kinds_of(part)
    return models


def annotation_at(section: type[Section], name: str) -> Any:
    """The annotation of a key, with the discriminator of its kinds; None for an unknown key."""
    field = section.model_fields.get(name)
    if field is None:
        return None
    discriminator = next(
        (item for item in (field.discriminator, *field.metadata) if isinstance(item, Discriminator)), None
    )
    return Annotated[field.annotation, discriminator] if discriminator else field.annotation


def merged_values(annotation: Any, common: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`common` with `overrides` applied.

    Where the overrides set another kind, only keys with the same meaning for both are kept from `common`: those that
    the new kind has with the same default. A learning rate for LARS is not kept for AdamW.
    """
    before, after = (section_for(annotation, values) for values in (common, {**common, **overrides}))
    if after is not None and before is not None and after is not before:
        common = {key: value for key, value in common.items() if _same(before, after, key)}
    return {**common, **overrides}


class SectionError(ValueError):
    """The overrides of one stage do not fit a section.

    Args:
        section: its key, such as `head`.
        error: pydantic's error.
    """

    def __init__(self, section: str, error: ValidationError) -> None:
        super().__init__(f"{section}: {error}")
        self.section, self.error = section, error


def merge(annotation: Any, common: Section, overrides: Mapping[str, Any], section: str) -> Any:
    """The section `common`, whose key is `section`, with `overrides` applied; raises `SectionError`."""
    if not overrides:  # most stages: sections are frozen, so the common one serves
        return common
    values = merged_values(annotation, common.model_dump(mode="json"), overrides)
    try:
        return _adapter(annotation).validate_json(json.dumps(values))
    except ValidationError as error:
        raise SectionError(section, error) from None


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _discriminator(annotation: Any) -> Discriminator | None:
    return next((part for part in get_args(annotation)[1:] if isinstance(part, Discriminator)), None)


def _same(before: type[Section], after: type[Section], key: str) -> bool:
    first, second = before.model_fields.get(key), after.model_fields.get(key)
    return first is not None and second is not None and first.get_default() == second.get_default()
