"""Which alarms are on: kept once per run, updated before any observer is called, read by all that need them."""

from __future__ import annotations

from collections.abc import Mapping

from workers.observing.observer import Event

AlarmKey = tuple[str, int | None]
"""Name of an alarm, and its stage; None for the whole run."""


class ActiveAlarms:
    """Alarms that have been raised and not cleared."""

    def __init__(self) -> None:
        self.on: Mapping[AlarmKey, Event] = {}
        """In the order in which they were raised. Replaced and never modified, because other threads read it."""

    def event(self, event: Event) -> None:
        """Update for an alarm that begins or ends; other events are ignored."""
        if event.kind in ("alarm", "cleared"):
            key = (event.name, event.stage)
            others = {known: other for known, other in self.on.items() if known != key}
            self.on = {**others, key: event} if event.kind == "alarm" else others

    def stages(self, name: str) -> list[int | None]:
        """The stages for which the alarm `name` is on; None stands for the whole run."""
        return [stage for other, stage in self.on if other == name]
