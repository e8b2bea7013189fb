"""Keeps the headroom of a run up to date: every few seconds while it trains, and once for its report."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.config import Config
from workers.observing.headroom import Headroom
from workers.observing.headroom_model import headroom_of, predicted_rate
from workers.observing.step_sums import Phase, StepSums

EVERY_SECONDS = 2.0
"""Shortest interval between two updates."""
MOST_SHARE = 0.005
"""Of the time that updates may take: that of a pipeline of many stages takes longer, and comes less often."""
LEAST_STEPS = 5
"""Before an update while the run trains: one of few steps would say what these happened to take."""
_log = logging.getLogger(__name__)


class HeadroomWatch:
    """Used on one thread, but for `latest`.

    Args:
        config: of the run.
        window: seconds over which a run is looked at while it trains.
    """

    def __init__(self, config: Config, window: float) -> None:
        self._config, self._sums = config, StepSums(window)
        self.latest: Headroom | None = None
        """Replaced and never modified, because other threads read it."""
        self._steps, self._next, self._failed = 0, 0.0, False

    def step_done(self, line: Mapping[str, Any], feed: Mapping[str, float], now: float) -> dict[str, float]:
        """Add a step.

        Args:
            line, feed, now: see `StepSums.add`; the line has the images a second of now.

        Returns:
            What belongs into the line; nothing before anything is known.
        """
        self._sums.add(line, feed, now)
        self._steps += 1
        if self._steps > LEAST_STEPS and now >= self._next:
            began = time.perf_counter()
            self._update(self._sums.recent(), line["images_per_second"], ended=False)
            self._next = now + max(EVERY_SECONDS, (time.perf_counter() - began) / MOST_SHARE)
        if (latest := self.latest) is None:
            return {}
        rates = {"bound_images_per_second": latest.bound, "predicted_images_per_second": latest.predicted}
        return {name: round(rate, 2) for name, rate in rates.items() if rate is not None}

    def at_end(self, images_per_second: float) -> Headroom | None:
        """Of all steps since the second; what it returns is the latest from now on."""
        self._update(self._sums.whole(), images_per_second, ended=True)
        return self.latest

    def _update(self, phases: list[Phase], measured: float, ended: bool) -> None:
        """What goes wrong here ends no run: it is logged once, and nothing is known."""
        found = None
        try:
            found = headroom_of(self._config, phases, measured, ended)
            if found is not None:
                found = replace(found, predicted=predicted_rate(self._config, phases))
        except Exception:
            if not self._failed:
                _log.exception("how far the run is from its limit cannot be computed")
            self._failed = True
        self.latest = found
