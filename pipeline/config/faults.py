"""`faults`: fault injection, to test recovery before it is needed.

Each fault is injected once per run directory, so that a run which is resumed after it does not meet it again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config.base import PositiveFloat, PositiveInt, Section


class FaultConfig(Section):
    """One injected fault, at one stage and step."""

    kind: Literal[
        "kill", "raise", "hang", "hold", "slow", "corrupt", "disk_full",
        "flip_weight", "flip_message", "flip_gradient", "flip_optimizer",
    ]  # fmt: skip
    """`kill`: the process kills itself. `raise`: an exception. `hang`: an endless loop. `hold`: one
    in a call that holds the interpreter, so that no other thread of the process runs. `slow`: a pause of `seconds`
    before the update, which ends sooner when the file `until` is there. `corrupt`: a byte of the next
    snapshot file is flipped once it has been written. `disk_full`: the next snapshot file cannot be written. Those
    of memory that has gone bad flip one bit, which `draw` chooses. `flip_weight`: of a weight or a buffer of the
    stage, before its forward pass. `flip_message`: of what the stage is sent, before it reads it; where a link carries
    it, on its way. `flip_gradient`, `flip_optimizer`: of a gradient, or of the optimizer's state, before it is used."""
    stage: PositiveInt
    """The stage, counted from 1."""
    step: int = Field(ge=0)
    """The step, counted from 0; for `corrupt` and `disk_full` the first snapshot from this step on."""
    replica: int = Field(default=1, ge=1)
    """The data-parallel replica of the stage, counted from 1."""
    seconds: PositiveFloat = 1.0
    """Length of the pause of `slow`."""
    until: str | None = None
    """For `slow`: absolute path of a file that ends the pause."""
    draw: int = Field(default=0, ge=0)
    """For those that flip a bit: seed of the choice of tensor, element and bit."""
