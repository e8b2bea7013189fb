"""Memory that ran out, in words."""

from __future__ import annotations

import re

import pytest
import torch

from pipeline.errors import is_out_of_memory
from workers.control.failures import failure_report
from workers.run.out_of_memory import RAN_OUT, memory_ran_out

ON_GPU = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 1 has a total capacity of 79.10 GiB of which 1.19 GiB is "
    "free. Including non-PyTorch memory, this process has 77.90 GiB memory in use. Of the allocated memory 70 GiB is"
)


def test_what_pytorch_cannot_allocate_is_told() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    cause = failure_report("stage 2", 3, raised.value).cause
    assert re.fullmatch(rf"{RAN_OUT}: it had [\d.]+ [MG]iB and asked for 1073741824.00 GiB more", cause)


def test_on_a_gpu_it_is_no_lost_device_and_gets_the_account() -> None:
    failure = failure_report("stage 2", 3, torch.OutOfMemoryError(ON_GPU), "cuda:1")
    assert failure.kind == "raised"
    assert failure.cause.startswith(RAN_OUT), "by which launch.processes.out_of_memory knows it"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError(ON_GPU), ": it had 77.90 GiB of the 79.10 GiB of GPU 1 and asked for 2.50 GiB more"),
        (torch.AcceleratorError("CUDA error: out of memory\nFor debugging"), " (CUDA error: out of memory)"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"),
            " (CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling)",
        ),
        (MemoryError(), ""),
        (MemoryError("1 GiB"), " (1 GiB)"),
        (RuntimeError("can't allocate memory"), " (can't allocate memory)"),
    ],
)
def test_each_kind_of_it_is_known(error: BaseException, words: str) -> None:
    assert is_out_of_memory(error)
    assert memory_ran_out(error) == RAN_OUT + words
