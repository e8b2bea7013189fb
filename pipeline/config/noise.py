"""`noise`: noise on a block's activations while training."""

from __future__ import annotations

from typing import Literal

from pipeline.config.base import NonNegative, Section

NoiseKind = Literal["none", "all", "hw", "c", "c_legacy"]


class NoiseConfig(Section):
    """Gaussian noise; off in evaluation."""

    kind: NoiseKind = "all"
    """Axes over which the standard deviation of the activations is taken: `all`, `hw` (per sample and channel), `c`
    (over channels), `c_legacy` (over height, as the released code's `c` does)."""
    std: NonNegative = 0.25
    """Standard deviation of the noise, relative to that of the activations if `relative`."""
    relative: bool = True
    """False: `std` is absolute, and `kind` only says whether there is noise."""
    placement: Literal["output", "input"] = "output"
    """`output`: on the output of the block, as released, so that its own head and the next block see it. `input`: on
    the input of every block, the first included, as the paper's text says."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the standard deviation goes from `std` at the first step to `final_std` at the last."""
    final_std: NonNegative = 0.0
    """Used by the schedules `linear` and `cosine`."""
