"""The run right now: step, throughput, how every stage spends its time, active alarms.

Shares and rates cover the last seconds, so that they are readable. After the end they cover the whole run, because in
the last steps the pipeline drains: no stage waits any more, and all would seem to have been busy all the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from workers.observing.active_alarms import ActiveAlarms
from workers.observing.amounts import RUN
from workers.observing.downsampler import MAX_COLUMNS, Key
from workers.observing.observer import TIMES, Event

WINDOW_SECONDS = 10.0
MAX_WINDOW = 128
"""Maximum number of steps in the window; with very short steps it covers fewer seconds."""
SUMMED = (*TIMES, "link_bytes", "flops", "feed_wait_seconds", "step_seconds")
MOMENTARY = (
    "images_per_second", "bound_images_per_second", "predicted_images_per_second", "eta_seconds", "queue_depth",
    "memory_bytes", "cuda_bytes", "cuda_peak_bytes", "peak_flops",
)  # fmt: skip
"""Values that a new attempt does not inherit."""


class CurrentState:
    """The last value of every quantity, and sums over the last seconds.

    Args:
        active: which alarms are on.
    """

    def __init__(self, active: ActiveAlarms) -> None:
        self._active = active
        self._recent: deque[tuple[float, Mapping[Key, float]]] = deque(maxlen=MAX_WINDOW)
        self._latest: dict[Key, float] = {}
        self._place: dict[str, Any] = {}
        self._restarts: dict[int, int] = {}
        self._skipped: dict[int, int] = {}
        self._skipping: set[int] = set()
        """Stages that skipped the last step."""
        self._all: dict[Key, float] = {}
        """Sums over all steps."""
        self._over = False

    def end(self) -> None:
        """The run is over."""
        self._over = True

    def pause(self) -> None:
        """Another attempt begins; drop what only held for the one before."""
        self._recent.clear()
        self._skipping.clear()
        self._latest = {key: value for key, value in self._latest.items() if key[1] not in MOMENTARY}

    def step_done(self, line: Mapping[str, Any], values: Mapping[Key, float]) -> None:
        """Add a line of `metrics.jsonl` and its numbers (`numbers_of`)."""
        self._place = {name: line.get(name) for name in ("step", "epoch", "time")}
        self._latest.update((k, v) for k, v in values.items() if k in self._latest or len(self._latest) < MAX_COLUMNS)
        for stage in {stage for stage, _ in values} - {RUN}:
            skipped = int(values.get((stage, "skipped"), 0))
            self._skipped[stage] = self._skipped.get(stage, 0) + skipped
            (self._skipping.add if skipped else self._skipping.discard)(stage)
            if (stage, "loss") not in values:
                self._latest.pop((stage, "loss"), None)  # otherwise an old loss would look like that of this step
        summed = {key: value for key, value in values.items() if key[1] in SUMMED}
        _add(self._all, summed)
        self._recent.append((line["time"], summed))
        while len(self._recent) > 2 and line["time"] - self._recent[0][0] > WINDOW_SECONDS:
            self._recent.popleft()

    def event(self, event: Event) -> None:
        """Count restarts; alarms are in `active`."""
        if event.kind == "restart" and event.stage is not None:
            self._restarts[event.stage] = self._restarts.get(event.stage, 0) + 1

    def summary(self) -> dict[str, Any]:
        """For the page; shares are 0 to 1, None before the first measurement."""
        sums = self._sums()
        seconds = sums.get((RUN, "step_seconds"), 0.0)
        waited = sums.get((RUN, "feed_wait_seconds"))
        stages = sorted({stage for stage, _ in self._latest} - {RUN})
        return {
            **self._place,
            "images_per_second": self._latest.get((RUN, "images_per_second")),
            "eta_seconds": self._latest.get((RUN, "eta_seconds")),
            "window": seconds or None,
            "feed_wait": min(waited / seconds, 1.0) if waited is not None and seconds else None,
            "alarms": [event.to_json() for event in self._active.on.values()],
            "stages": {stage: self._stage(stage, sums, seconds) for stage in stages},
        }

    def _stage(self, stage: int, sums: Mapping[Key, float], seconds: float) -> dict[str, Any]:
        spent = [sums.get((stage, name), 0.0) for name in TIMES]
        whole = sum(spent)
        sent, flops = sums.get((stage, "link_bytes")), sums.get((stage, "flops"))
        rate = flops / seconds if flops and seconds else None
        peak = self._latest.get((stage, "peak_flops"))
        return {
            "shares": [part / whole for part in spent] if whole else None,
            "bytes_per_second": sent / seconds if sent is not None and seconds else None,
            "flops_per_second": rate,
            "mfu": rate / peak if rate and peak else None,
            "skipped": self._skipped.get(stage, 0),
            "skipping": stage in self._skipping,
            "restarts": self._restarts.get(stage, 0),
            "latest": {name: value for (index, name), value in self._latest.items() if index == stage},
        }

    def _sums(self) -> dict[Key, float]:
        """Over the window, or over the whole run when that is over."""
        if self._over:
            return self._all
        sums: dict[Key, float] = {}
        for _, values in self._recent:
            _add(sums, values)
        return sums


def _add(sums: dict[Key, float], values: Mapping[Key, float]) -> None:
    """Add the numbers of a step; bytes and waits only if the length of the step is known, as they become rates."""
    known = (RUN, "step_seconds") in values
    for key, value in values.items():
        if known or key[1] in TIMES:
            sums[key] = sums.get(key, 0.0) + value
