"""What each operation computes, reads and writes."""

from __future__ import annotations

import torch
from torch import Tensor

from launch.partition.kernel_calls import CallRecorder, KernelCall

N = 64
SIZE = 4 * N


def calls_of(*steps: object) -> list[KernelCall]:
    """Those that `steps`, functions of two vectors of `N` numbers, make."""
    first, second = torch.ones(N), torch.ones(N)
    with CallRecorder() as record:
        record.moment = "here of stage 7"
        for step in steps:
            step(first, second)  # type: ignore[operator]
    return [call for call, times in record.calls["here"].items() for _ in range(times)]


def test_a_sum_reads_two_and_writes_one() -> None:
    assert calls_of(torch.add) == [KernelCall(0, 3 * SIZE, False)]


def test_in_place_one_is_read_and_written() -> None:
    assert calls_of(Tensor.add_) == [KernelCall(0, 3 * SIZE, False)]
    assert calls_of(lambda x, _: x.mul_(2.0)) == [KernelCall(0, 2 * SIZE, False)]


def test_what_is_overwritten_is_not_read() -> None:
    assert calls_of(Tensor.copy_) == [KernelCall(0, 2 * SIZE, False)]
    assert calls_of(lambda x, _: x.zero_()) == [KernelCall(0, SIZE, False)]


def test_lists_count_all_that_is_in_them() -> None:
    assert calls_of(lambda x, y: torch._foreach_add_([x, y], [y, x])) == [KernelCall(0, 6 * SIZE, False)]


def test_views_and_memory_that_nobody_fills_take_nothing() -> None:
    assert calls_of(lambda x, _: x.view(2, -1).t().detach(), lambda x, _: torch.empty_like(x)) == []


def test_what_is_expanded_is_read_once() -> None:
    assert calls_of(lambda x, _: torch.ones(1).expand(N).contiguous())[-1].bytes == 4 + SIZE


def test_products_have_operations_and_their_precision() -> None:
    def product(x: Tensor, y: Tensor) -> Tensor:
        return x.view(8, 8) @ y.view(8, 8)

    assert calls_of(product) == [KernelCall(2 * 8**3, 3 * SIZE, False)]
    halves = calls_of(lambda x, y: product(x.bfloat16(), y.bfloat16()))
    assert halves[-1] == KernelCall(2 * 8**3, 3 * SIZE // 2, True)
