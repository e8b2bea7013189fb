"""Which operations compute in float32 where autocast on CUDA would have them do so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from launch.plan.autocast_of_cuda import IN_FULL_PRECISION, INTO_FULL_PRECISION, autocast_of_cuda


def dtypes(x: Tensor) -> list[torch.dtype]:
    return [y.dtype for y in (F.layer_norm(x, [4]), x.softmax(-1), x.sum(), x**2, F.normalize(x))]


def test_it_holds_inside_only() -> None:
    x = torch.ones(2, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        before = dtypes(x)
        with autocast_of_cuda():
            assert dtypes(x) == [torch.float32] * 5
            assert [F.gelu(x).dtype, F.linear(x, x).dtype, x.sum(dtype=torch.float64).dtype] == [
                torch.bfloat16,
                torch.bfloat16,
                torch.float64,
            ]
        assert dtypes(x) == before
    with autocast_of_cuda():
        assert dtypes(x) == [torch.bfloat16] * 5


@pytest.mark.parametrize("name", [*IN_FULL_PRECISION, *INTO_FULL_PRECISION])
def test_autocast_on_cuda_has_the_operation(name: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "AutocastCUDA")
