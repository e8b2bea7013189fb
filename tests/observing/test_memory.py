"""The memory of a process, as it is when somebody takes some."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from workers.control.step_report import MemoryInUse
from workers.observing import memory
from workers.observing.memory import ProcessMemory

SIZE = 2**27


def test_what_a_process_takes_is_counted() -> None:
    measured = ProcessMemory(torch.device("cpu"))
    before = measured.measure().memory_bytes
    taken = np.frombuffer(mmap.mmap(-1, SIZE), dtype=np.uint8)  # fresh pages: malloc may have some that are resident
    taken[:] = 1
    after, *of_a_gpu = measured.measure()
    assert before is not None
    assert after is not None
    assert 0.9 * SIZE < after - before < 1.5 * taken.nbytes
    assert of_a_gpu == [None, None, 0], "there is none"


def test_where_there_is_no_proc_nothing_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STATM", Path("/nowhere/statm"))
    assert ProcessMemory(torch.device("cpu")).measure() == MemoryInUse()


def test_the_numbers_of_the_allocator_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    def stats(device: torch.device) -> dict[str, int]:
        asked.append(device)
        return {"reserved_bytes.all.current": 7, "allocated_bytes.all.peak": 5, "num_alloc_retries": 3, "other": 1}

    monkeypatch.setattr(torch.cuda, "memory_stats", stats)
    device = torch.device("cuda", 1)
    assert ProcessMemory(device).measure()[1:] == (7, 5, 3)
    assert asked == [device]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_what_a_gpu_holds_is_counted() -> None:
    measured = ProcessMemory(torch.device("cuda", 0))
    before = measured.measure().cuda_bytes
    taken = torch.ones(SIZE, dtype=torch.uint8, device="cuda:0")
    after = measured.measure()
    assert before is not None
    assert after.cuda_bytes is not None
    assert after.cuda_bytes - before >= taken.nbytes
    assert after.cuda_peak_bytes is not None
    assert after.cuda_peak_bytes >= taken.nbytes
