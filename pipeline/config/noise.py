"""`noise`: what is added to a block's activations while training."""

from __future__ import annotations

from typing import Literal

from pipeline.config.base import NonNegative, Section

NoiseKind = Literal["none", "all", "hw", "c", "c_legacy"]


class NoiseConfig(Section):
    """Gaussian noise; off in evaluation."""

    kind: NoiseKind = "all"
    """What one standard deviation is taken over: `all`, `hw` (per sample and channel), `c` (over
    channels), `c_legacy` (over height, as the released code's `c` does)."""
    std: NonNegative = 0.25
    """Standard deviation of the noise, in units of the activations' own if `relative`."""
    relative: bool = True
    """False: `std` is absolute, and the kind only says that there is noise."""
    placement: Literal["output", "input"] = "output"
    """`output` of the block, as released: seen by its own head and the next block. `input`, as the paper's
    text has it: before every block, the first included."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the standard deviation goes from `std` at the first step to `final_std` at the last."""
    final_std: NonNegative = 0.0
    """Used by the schedules `linear` and `cosine`."""
