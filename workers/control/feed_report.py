"""Statistics of a feed, for the metrics, `report.json` and the advice at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from workers.control.validation import Count, Seconds

PARTS = ("decode", "crop", "jitter", "blur", "other")
"""Parts that the time of a feed worker is divided into."""


@dataclass(frozen=True, kw_only=True)
class FeedMeasures:
    """Totals since the feed was opened.

    Args:
        wait_seconds: that the consumer has waited for batches.
        images: in the batches that the consumer has taken.
        seconds: of work by part (`PARTS`), summed over all workers.
        restarts: worker processes that died and were replaced.
        skipped: images that could not be decoded and were replaced by another (`data.on_error: skip`).
        memory_bytes: size of the shared memory for batches.
        workers: number of worker processes; 0 if a thread of the consumer's process does the work.
    """

    wait_seconds: Seconds = 0.0
    images: Count = 0
    seconds: dict[str, Seconds] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    restarts: Count = 0
    skipped: Count = 0
    memory_bytes: Count = 0
    workers: Count = 0

    def shares(self) -> dict[str, float]:
        """Share of each part in the time of work, 0 to 1; all 0 before there was any."""
        total = sum(self.seconds.values())
        return {part: spent / total if total else 0.0 for part, spent in self.seconds.items()}
