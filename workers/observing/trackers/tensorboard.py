"""The measurements of a run as TensorBoard's files, in `RUN/tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping

import yaml
from torch.utils.tensorboard import SummaryWriter

from workers.observing.observer import Event, RunFacts
from workers.observing.trackers.base import Tracker

FOLDER = "tensorboard"


class TensorBoard(Tracker):
    """Writes scalars by name, and the configuration and events as text.

    Where a run resumes from a snapshot, what an earlier attempt wrote about later steps is purged.

    Args:
        flush_seconds: delay until measurements are written to the file.

    Raises:
        ValueError: `flush_seconds` is not a positive number.
    """

    def __init__(self, flush_seconds: int = 10) -> None:
        if type(flush_seconds) not in (int, float) or not flush_seconds > 0:
            raise ValueError(f"flush_seconds is a number of seconds, and not {flush_seconds!r}")
        self.flush_seconds = flush_seconds
        self._writer: SummaryWriter | None = None

    def start(self, facts: RunFacts) -> None:
        """See `Tracker.start`."""
        self._writer = SummaryWriter(
            str(facts.path / FOLDER), purge_step=facts.start_step, flush_secs=self.flush_seconds
        )
        text = yaml.safe_dump(facts.config, sort_keys=False, allow_unicode=True)
        self._writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()), facts.start_step)
        self._writer.flush()

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        assert self._writer is not None
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def event(self, event: Event) -> None:
        """See `Tracker.event`."""
        assert self._writer is not None
        self._writer.add_text(f"events/{event.kind}", event.text, event.step)

    def end(self, outcome: str) -> None:
        """See `Tracker.end`."""
        assert self._writer is not None
        self._writer.close()
