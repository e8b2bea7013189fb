"""Turns what another process said into a dataclass, after checking every field; no torch here.

A process that has the run's key may still be of another version, or damaged: what it says is data, never trusted
to have the right shape.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field, TypeAdapter, ValidationError

from pipeline.errors import TrainingError

Index = Annotated[int, Field(ge=1, le=1_000_000)]
"""Counted from 1."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]

Form = TypeVar("Form")


class MalformedMessage(TrainingError):
    """A message lacks a field, or has a value that the field cannot have."""


def read_message(form: type[Form], message: dict[str, Any]) -> Form:
    """The dataclass `form` out of a message of the control channel; keys that it has not are ignored.

    Args:
        form: its annotations say what is allowed; nothing is converted.
        message: as JSON has it.

    Raises:
        MalformedMessage: names the first field that is wrong.
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
