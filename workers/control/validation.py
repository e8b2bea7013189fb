"""Turns a JSON object from another process into a dataclass, after checking every field. Does not import torch.

A process that has the run's key may still run another version or be corrupted, so its messages are never trusted to
have the right fields and types.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field, TypeAdapter, ValidationError

from pipeline.errors import TrainingError

Index = Annotated[int, Field(ge=1, le=1_000_000)]
"""An index counted from 1."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]

Form = TypeVar("Form")


class MalformedMessage(TrainingError):
    """A message lacks a field, or has an invalid value for one."""


def read_message(form: type[Form], message: dict[str, Any]) -> Form:
    """A dataclass of type `form` from a JSON object; keys that are no field of it are ignored.

    Args:
        form: a dataclass; its annotations are checked, and values are not converted.
        message: the decoded JSON object.

    Raises:
        MalformedMessage: names the first invalid field.
    """
    try:
        adapter: TypeAdapter[Form] = _adapter(cast("Any", form))
        return adapter.validate_json(json.dumps(message), strict=True)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(ascii(part)[:40].strip("'") for part in detail["loc"])
        raise MalformedMessage(f"a message without a valid '{where}' ({detail['msg'][:100]})") from None
    except ValueError as error:  # an integer of thousands of digits
        raise MalformedMessage(f"a message that cannot be read ({error})") from None


@cache
def _adapter(form: Any) -> TypeAdapter[Any]:
    return TypeAdapter(form)
