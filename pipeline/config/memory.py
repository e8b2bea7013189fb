"""`memory`: what a stage keeps of its forward pass for its backward pass, and what it computes again instead."""

from __future__ import annotations

from typing import Literal

from pipeline.config.base import Section

Recompute = Literal["none", "units", "views", "auto"]


class MemoryConfig(Section):
    """Saves memory for time; the trained bits stay the same, except with `precision.compile`."""

    recompute: Recompute = "none"
    """`none`: everything that the backward pass reads is kept. `units`: only the input of every residual unit,
    transformer layer and expansion is kept, and each is computed again when the backward pass reaches it. `views`: the
    whole forward pass is computed again, one view at a time, so that only one view's activations are kept at once.
    `auto`: the first of these with which every device holds its stages, decided before the start and written into the
    run's `config.yaml`, so that the run resumes with the same elsewhere."""
