"""How far a run is from its limit, and why: images/s as measured, as the model of the pipeline predicts, and the bound.

The bound is what the computing of the slowest process alone would allow: images of a step over the seconds that it
computes at a step. Stages that share a process are added; of replicas the first one counts.
`docs/concepts/processes.md` has the definitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.observing.amounts import finite
from workers.observing.wait_reasons import Cause, named

NEAR = 0.95
"""Share of the bound from which on nothing else is worth a sentence."""


@dataclass(frozen=True, kw_only=True)
class Headroom:
    """What a run reaches, and what it could.

    Args:
        measured: images a second.
        predicted: what the model says of its own stages, links and feed; None where it could not.
        bound: that the computing of the slowest process alone would allow.
        stages: of that process; none where one process trains all of them.
        cause, reason: of the largest part of what is missing, with a sentence; None and empty from `NEAR` on.
    """

    measured: float
    predicted: float | None
    bound: float
    stages: tuple[int, ...]
    cause: Cause | None
    reason: str

    @property
    def share(self) -> float:
        """Of the bound, 0 to 1: a window may begin in the midst of a step."""
        return min(self.measured / self.bound, 1.0)

    def to_json(self) -> dict[str, Any]:
        """For `report.json` and the page; `headroom_in_words` reads it."""
        why = {"cause": self.cause, "reason": self.reason} if self.reason else {}
        bound = {"images_per_second": self.bound, "share": self.share, "stages": list(self.stages), **why}
        predicted = {} if self.predicted is None else {"predicted": {"images_per_second": self.predicted}}
        return {"bound": bound, **predicted}


def headroom_in_words(report: Mapping[str, Any]) -> list[str]:
    """One or two sentences about what `Headroom.to_json` has put into a report; none where a file has not that.

    Args:
        report: with the images a second that were measured.
    """
    bound, predicted = report.get("bound"), report.get("predicted")
    measured = finite(report.get("images_per_second"))
    if not isinstance(bound, dict) or measured is None or (most := finite(bound.get("images_per_second"))) is None:
        return []
    foreseen = finite(predicted.get("images_per_second")) if isinstance(predicted, dict) else None
    stages = bound.get("stages")
    numbers = [stage for stage in stages if isinstance(stage, int)] if isinstance(stages, list) else []
    alone = f"{named(tuple(numbers))} alone" if numbers else "computing alone"
    share = f" ({100 * measured / most:.0f} %)" if most else ""
    beside = "" if foreseen is None else f", predicted {_rate(foreseen)}"
    reason = bound.get("reason")
    sentence = f"measured {_rate(measured)} images/s{beside}; {alone} would allow {_rate(most)}{share}"
    return [sentence, *([reason] if isinstance(reason, str) else [])]


def _rate(images_per_second: float) -> str:
    return f"{images_per_second:,.0f}" if images_per_second >= 100 else f"{images_per_second:.3g}"
