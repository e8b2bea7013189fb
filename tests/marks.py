"""Marks for single cases of a parametrised test."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*case: Any, id: str | None = None) -> Any:
    """A case that only `make test-all` runs."""
    return pytest.param(*case, marks=pytest.mark.slow, id=id)
