"""The memory of a process, as it is when somebody takes some."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from workers.observing import memory
from workers.observing.memory import ProcessMemory

SIZE = 2**27


def test_what_a_process_takes_is_counted() -> None:
    measured = ProcessMemory(torch.device("cpu"))
    before, cuda = measured.measure()
    taken = np.frombuffer(mmap.mmap(-1, SIZE), dtype=np.uint8)  # fresh pages: malloc may have some that are resident
    taken[:] = 1
    after, _ = measured.measure()
    assert before is not None
    assert after is not None
    assert 0.9 * SIZE < after - before < 1.5 * taken.nbytes
    assert cuda is None, "there is none on a CPU"


def test_where_there_is_no_proc_nothing_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STATM", Path("/nowhere/statm"))
    assert ProcessMemory(torch.device("cpu")).measure() == (None, None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_what_a_gpu_holds_is_counted() -> None:
    measured = ProcessMemory(torch.device("cuda", 0))
    before = measured.measure()[1]
    taken = torch.ones(SIZE, dtype=torch.uint8, device="cuda:0")
    after = measured.measure()[1]
    assert before is not None
    assert after is not None
    assert after - before >= taken.nbytes
