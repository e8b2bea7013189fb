"""The tiny network of `tests.runs` as an `onward.Config`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

import onward
from tests.runs import TINY

__all__ = ["TINY", "tiny"]


def tiny(run_dir: Path, **values: Any) -> onward.Config:
    """A run of six steps that serves no metrics."""
    return onward.Config(**yaml.safe_load(TINY), run_dir=str(run_dir), metrics={"enabled": False}, **values)
