"""The strict base class of all sections, and the number types."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


NAME_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
"""The name of a user's class or function, `PACKAGE.MODULE:NAME`."""


class Section(BaseModel):
    """Base of every section: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def as_tuple(value: Any) -> Any:
    """A list as a tuple: behind a custom validator, pydantic does not accept JSON lists as tuples."""
    return tuple(value) if isinstance(value, list) else value


def _for_both_views(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else as_tuple(value)


PerView = Annotated[tuple[Probability, Probability], BeforeValidator(_for_both_views)]
"""A probability for each of the two views; one number stands for both."""
