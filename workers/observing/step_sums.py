"""What steps have come to: images, and the time of every stage; since the second step, and over the last seconds.

In mode `sequential` a stage takes longer while it learns, and no batch goes beyond it. So sums are apart by phase: by
the last stage that a batch has reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.control.feed_report import PARTS
from workers.observing.amounts import RUN, Sums
from workers.observing.observer import TIMES

OF_STAGE = (*TIMES, "link_bytes")
LEAST_SECONDS = 1.0
"""Between two points at which a window may begin."""


@dataclass(frozen=True)
class Phase:
    """Sums over steps in which the same stages had work.

    Args:
        run: `steps`, `images`, `lost` (seconds until a process that was replaced had caught up), and of the feed
            `feed_images` and `feed_seconds` (of work, by all its workers).
        stages: seconds by `TIMES`, and `link_bytes`, of every stage that had work.
    """

    run: Mapping[str, float]
    stages: Mapping[int, Mapping[str, float]]


class StepSums:
    """Adds up lines of `metrics.jsonl` from the second step on: the first one warms up.

    Args:
        window: length of the window, in seconds.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._sums: dict[int, dict[int, Sums]] = {}
        """By phase and stage; `RUN`: of the run."""
        self._points = deque[tuple[float, dict[int, dict[int, Sums]]]]()
        """At which a window may begin: when, and the sums until then."""
        self._last: float | None = None

    def add(self, line: Mapping[str, Any], feed: Mapping[str, float], now: float) -> None:
        """Add a step.

        Args:
            line: as the recorder writes it.
            feed: what the step has added to the totals of the feed, and to the seconds of each part of its work.
            now: by a clock that is not set.
        """
        before, self._last = self._last, now
        if before is not None:
            known = "seconds" in line["added"]
            phase = self._sums.setdefault(max(stage["stage"] for stage in line["stages"]), {})
            phase.setdefault(RUN, Sums()).add(
                {
                    "steps": 1,
                    "images": line["images"],
                    "lost": 0.0 if known else now - before,
                    "feed_images": feed.get("images", 0.0),
                    "feed_seconds": sum(feed.get(part, 0.0) for part in PARTS),
                }
            )
            for stage in line["stages"]:
                added = stage["added"]
                phase.setdefault(stage["stage"], Sums()).add({name: added.get(name, 0.0) for name in OF_STAGE})
        if not self._points or now - self._points[-1][0] >= LEAST_SECONDS:
            self._points.append((now, {phase: dict(map(_copied, sums.items())) for phase, sums in self._sums.items()}))
        while len(self._points) > 2 and now - self._points[0][0] > self._window:
            self._points.popleft()

    def whole(self) -> list[Phase]:
        """Since the second step."""
        return _phases(self._sums)

    def recent(self) -> list[Phase]:
        """Over the last seconds: of the window, or since the first step if that is less, but at least of one step."""
        before = self._points[0][1] if self._points else {}
        return _phases(
            {
                phase: {owner: _less(sums, before.get(phase, {}).get(owner, {})) for owner, sums in owners.items()}
                for phase, owners in self._sums.items()
            }
        )


def _copied(owned: tuple[int, Sums]) -> tuple[int, Sums]:
    return owned[0], Sums(owned[1])


def _less(sums: Mapping[str, float], before: Mapping[str, float]) -> Sums:
    return Sums({name: value - before.get(name, 0.0) for name, value in sums.items()})


def _phases(sums: Mapping[int, Mapping[int, Sums]]) -> list[Phase]:
    return [
        Phase(owners[RUN], {stage: spent for stage, spent in owners.items() if stage != RUN})
        for _, owners in sorted(sums.items())
        if owners[RUN]["steps"]
    ]
