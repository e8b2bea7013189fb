"""Finds features that are not finite before anything is fitted on them, kept or compared."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.config.places import Place
from pipeline.errors import UserError

ROWS = 8192
"""Rows that are checked at once: features may be mapped from a file that is larger than the memory."""


def check_finite(features: Mapping[Place, Tensor]) -> None:
    """Raises `UserError` naming the first place whose features `[N, D]` hold a NaN or an infinity."""
    for place in features:
        if not is_finite(features[place]):
            raise UserError(
                f"the features of {place} hold NaN or infinity: its weights diverged, or are damaged. Evaluate an "
                "earlier snapshot (evaluation.checkpoint=STEPS), or only the blocks before it (evaluation.blocks)"
            )


def is_finite(features: Tensor) -> bool:
    """Whether all numbers of `[N, D]` are finite."""
    return all(bool(torch.isfinite(rows).all()) for rows in torch.split(features, ROWS))
