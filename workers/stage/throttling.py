"""Why a GPU runs slower than it could: its power cap, heat, or a slowdown that its board asks for.

NVIDIA's management library (NVML) knows, through the optional package `nvidia-ml-py`; without it, or where the library
does not answer, nothing is known and nothing is said. A thread asks at long intervals, so that no step waits for it.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from workers.control.step_report import ThrottleReason
from workers.run.closable import Closable

EVERY_SECONDS = 10.0
STEADY = 3
"""Answers in a row that must say so, before a reason holds and before it is over: power caps come and go."""
CLOSE_SECONDS = 5.0
BITS: dict[int, ThrottleReason] = {
    0x04: "power_cap",
    0x08: "hw_slowdown",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "power_brake",
}
"""Of NVML's mask of reasons, `nvmlClocksEventReason*`; an idle GPU or clocks that somebody has set are no trouble."""
UUID_KINDS = ("GPU-", "MIG-")
"""How NVML writes the identifier of a whole card, and of a part of one."""
_log = logging.getLogger(__name__)


class ThrottleWatch(Closable):
    """Asks for the reasons of one GPU; `reasons` may be read in any thread.

    Args:
        ask: NVML's mask of reasons, now.
        end: called once, at the end.
    """

    def __init__(self, ask: Callable[[], int], end: Callable[[], object] = lambda: None) -> None:
        self._ask, self._end = ask, end
        self._answers: deque[set[ThrottleReason]] = deque(maxlen=STEADY)
        self.reasons: list[ThrottleReason] | None = []
        """What slows the GPU down; None where nobody knows any more."""
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Ask from now on, every `EVERY_SECONDS`."""
        self._thread = threading.Thread(target=self._run, name="throttling", daemon=True)
        self._thread.start()

    def poll(self) -> None:
        """Ask once."""
        mask = self._ask()
        self._answers.append({reason for bit, reason in BITS.items() if mask & bit})
        before = self.reasons or []
        if len(self._answers) == STEADY:
            seen, steady = set.union(*self._answers), set.intersection(*self._answers)
            self.reasons = [r for r in BITS.values() if r in steady or (r in before and r in seen)]

    def close(self) -> None:
        """Ask no more."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
            self._thread = None
            with suppress(Exception):
                self._end()

    def _run(self) -> None:
        try:
            while not self._closing.wait(EVERY_SECONDS):
                self.poll()
        except Exception as error:  # what only observes must not end a run
            self.reasons = None
            _log.warning("NVML does not answer any more, so throttling is not watched (%s)", error)


def watch_throttling(device: torch.device) -> ThrottleWatch | None:
    """Watch the GPU of this process; None for a CPU, without the package, and where NVML does not answer."""
    if device.type != "cuda":
        return None
    try:
        nvml = importlib.import_module("pynvml")
        watch = _watch(nvml, str(torch.cuda.get_device_properties(device).uuid))
    except ImportError:
        _log.info("the package nvidia-ml-py is not installed, so throttling of GPUs is not watched")
        return None
    except Exception as error:  # NVML's, of many kinds: no driver, no permission, a card that does not tell
        _log.warning("NVML does not answer, so throttling is not watched (%s)", error)
        return None
    watch.start()
    return watch


def _watch(nvml: Any, uuid: str) -> ThrottleWatch:
    """By its UUID: NVML counts all GPUs of a host, also those that CUDA_VISIBLE_DEVICES hides."""
    nvml.nvmlInit()
    handle = _handle(nvml, uuid)
    names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")  # new, and before
    reasons = next(getattr(nvml, name) for name in names if hasattr(nvml, name))
    watch = ThrottleWatch(lambda: int(reasons(handle)), nvml.nvmlShutdown)
    watch.poll()
    return watch


def _handle(nvml: Any, uuid: str) -> Any:
    if uuid.startswith(UUID_KINDS):
        return nvml.nvmlDeviceGetHandleByUUID(uuid)
    whole, part = (f"{kind}{uuid}" for kind in UUID_KINDS)
    try:
        return nvml.nvmlDeviceGetHandleByUUID(whole)
    except nvml.NVMLError:
        return nvml.nvmlDeviceGetHandleByUUID(part)
