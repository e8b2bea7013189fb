"""Marks for single cases of a parametrised test."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest


def slow(*case: Any, id: str | None = None) -> Any:
    """A case that only `make test-all` runs."""
    return pytest.param(*case, marks=pytest.mark.slow, id=id)


def named(cases: Mapping[str, Any], long: Collection[str]) -> list[Any]:
    """Cases by their names; those in `long` compute for seconds, and `make test-quick` does not run them."""
    marks = {name: pytest.mark.long if name in long else () for name in cases}
    return [pytest.param(case, id=name, marks=marks[name]) for name, case in cases.items()]
