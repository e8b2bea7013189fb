"""Which alarms are on: kept once for a run, by whoever tells its observers, and read by all who show or raise them."""

from __future__ import annotations

from collections.abc import Mapping

from workers.observing.observer import Event

AlarmKey = tuple[str, int | None]
"""Name of an alarm, and the stage that it is about; None for the whole run."""


class ActiveAlarms:
    """Alarms that have been raised and not cleared."""

    def __init__(self) -> None:
        self.on: Mapping[AlarmKey, Event] = {}
        """In the order in which they were raised. Replaced and never changed: other threads read it."""

    def event(self, event: Event) -> None:
        """Take in what begins or ends; any other event is none of its business."""
        if event.kind in ("alarm", "cleared"):
            key = (event.name, event.stage)
            others = {known: other for known, other in self.on.items() if known != key}
            self.on = {**others, key: event} if event.kind == "alarm" else others

    def stages(self, name: str) -> list[int | None]:
        """Those that the alarm `name` is on for; None among them stands for the whole run."""
        return [stage for other, stage in self.on if other == name]
