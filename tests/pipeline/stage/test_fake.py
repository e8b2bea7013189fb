"""Initial values that nobody looks at are cheap, whatever lies in the memory that they are to fill."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.stage.fake import Undrawn


@pytest.mark.timeout(60)
@pytest.mark.parametrize("size", [10, Undrawn._LARGE + 1], ids=["small", "large"])
def test_values_that_are_drawn_until_they_lie_in_an_interval_end(size: int) -> None:
    """Left as the memory was, they would be drawn again for ever, and `onward check` of a transformer hung."""
    weights = torch.full((size,), 1e30)
    with Undrawn():
        nn.init.trunc_normal_(weights, std=0.02, a=-0.04, b=0.04)
    assert weights.abs().max() <= 0.04


def test_large_weights_are_not_drawn_and_small_ones_are() -> None:
    with Undrawn():
        large, small = nn.Linear(1024, 1024), nn.Linear(8, 8)
    assert not large.weight.any()
    assert small.weight.all()
