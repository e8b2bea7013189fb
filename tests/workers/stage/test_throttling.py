"""What slows a GPU down, as a library says that a test makes up: NVML's names, for a card that is the third there."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from tests.waiting import wait_until
from workers.control.step_report import ThrottleReason
from workers.stage import throttling
from workers.stage.throttling import BITS, STEADY, ThrottleWatch, watch_throttling

UUID = "dd8a1a4b-3e8c-4d2e-9b1a-0c7f5a3c9e11"
GPU = torch.device("cuda", 0)
IDLE, POWER, HEAT, USER = 0x1, 0x4, 0x40, 0x2


class NVMLError(Exception):
    """As `pynvml` has it."""


class Library(SimpleNamespace):
    """A host with three cards; CUDA sees only the third, as device 0."""

    NVMLError = NVMLError

    def __init__(self, *masks: int, kind: str = "GPU-", new: bool = True) -> None:
        super().__init__()
        self.cards = {"GPU-one": 0, "GPU-two": 1, f"{kind}{UUID}": 2}
        self.masks, self.begun, self.ended = list(masks), 0, 0
        name = "nvmlDeviceGetCurrentClocksEventReasons" if new else "nvmlDeviceGetCurrentClocksThrottleReasons"
        setattr(self, name, self.reasons)

    def nvmlInit(self) -> None:
        self.begun += 1

    def nvmlShutdown(self) -> None:
        self.ended += 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        if uuid not in self.cards:
            raise NVMLError("Not Found")
        return self.cards[uuid]

    def reasons(self, handle: int) -> int:
        assert handle == 2
        if not self.masks:
            raise NVMLError("GPU is lost")
        return self.masks.pop(0)


@pytest.fixture(autouse=True)
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=UUID))


def installed(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library)


@pytest.mark.parametrize("kind", ["GPU-", "MIG-"])
@pytest.mark.parametrize("new", [True, False], ids=["new name", "old name"])
def test_the_gpu_is_found_by_its_uuid(monkeypatch: pytest.MonkeyPatch, kind: str, new: bool) -> None:
    library = Library(IDLE, kind=kind, new=new)
    installed(monkeypatch, library)
    watch = watch_throttling(GPU)
    assert watch is not None
    watch.close()
    assert (watch.reasons, library.begun, library.ended, library.masks) == ([], 1, 1, [])


@pytest.mark.parametrize(
    "library", [None, Library(), Library(IDLE, kind="GPU-other-"), SimpleNamespace()],
    ids=["not installed", "lost", "not among them", "another package of that name"],
)  # fmt: skip
def test_without_an_answer_nothing_is_watched(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    installed(monkeypatch, library)
    assert watch_throttling(GPU) is None


def test_a_cpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, Library(IDLE))
    assert watch_throttling(torch.device("cpu")) is None


def test_a_reason_holds_when_it_was_seen_in_a_row_and_ends_when_it_was_not() -> None:
    masks = [POWER, IDLE, POWER, POWER | USER, POWER | HEAT, IDLE, HEAT, HEAT, HEAT, POWER, 0, 0, 0]
    watch, seen = ThrottleWatch(iter(masks).__next__), list[list[str] | None]()
    for _ in masks:
        watch.poll()
        seen.append(watch.reasons)
    power, heat = ["power_cap"], ["hw_thermal"]
    assert STEADY == 3
    assert seen == [[], [], [], [], power, power, power, [], heat, heat, heat, [], []]


def test_a_library_that_stops_to_answer_ends_the_watch_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttling, "EVERY_SECONDS", 0.001)
    library = Library(*[HEAT] * 5)
    installed(monkeypatch, library)
    watch = watch_throttling(GPU)
    assert watch is not None
    wait_until(lambda: watch.reasons is None)
    watch.close()
    assert (library.masks, library.ended) == ([], 1)


def test_every_reason_of_a_report_has_its_bit() -> None:
    assert tuple(BITS.values()) == get_args(ThrottleReason)
