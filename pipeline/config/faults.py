"""`faults`: what is to go wrong, and where; to try a recovery before it is needed.

Each strikes once a run directory, so that a run which goes on after it is not struck again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config.base import PositiveFloat, PositiveInt, Section


class FaultConfig(Section):
    """One fault at one stage and step."""

    kind: Literal["kill", "raise", "hang", "slow", "corrupt", "disk_full"]
    """`kill`: the process kills itself. `raise`: an exception. `hang`: it computes for ever. `slow`: a pause of
    `seconds` before the update, which ends sooner when the file `until` is there. `corrupt`: a byte of the next
    snapshot file is flipped once it has been written. `disk_full`: the next snapshot file cannot be written."""
    stage: PositiveInt
    """The stage that it strikes, counted from 1."""
    step: int = Field(ge=0)
    """Counted from 0; for `corrupt` and `disk_full` the first snapshot from this step on."""
    replica: int = Field(default=1, ge=1)
    """Counted from 1, where the stage has several."""
    seconds: PositiveFloat = 1.0
    """Of `slow`."""
    until: str | None = None
    """Of `slow`: a file, an absolute path."""
