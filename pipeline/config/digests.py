"""`digests`: what a run writes down of its bits, so that they can be verified later."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.config.base import Section


class DigestsConfig(Section):
    """Digests of what every stage computes: they show the first step and stage at which two runs differ."""

    every: Annotated[int, Field(ge=0)] = 0
    """Steps from one whose input, loss, gradient and weights are digested to the next; 0 for none. The line of
    `metrics.jsonl` that such a step ends has them, and every snapshot has the chain of all of them."""
