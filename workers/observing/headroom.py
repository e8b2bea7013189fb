"""How far a run is from its limit, and why: images/s as measured, as the model of the pipeline predicts, and the bound.

The bound is what the computing of the slowest process alone would allow: images of a step over the seconds that it
computes at a step. Stages that share a process are added; of replicas the first one counts.
`docs/concepts/processes.md` has the definitions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config import Config
from workers.observing.amounts import finite
from workers.observing.observer import TIMES
from workers.observing.step_sums import Phase
from workers.observing.wait_reasons import Cause, ProcessTime, named, reason_of
from workers.throughput.model import forecast
from workers.throughput.modelled import StageMeasured, pipeline_measured
from workers.topology.processes import stage_groups

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


def headroom_of(config: Config, phases: Sequence[Phase], measured: float) -> Headroom | None:
    """Of the steps of some phases; None where nothing has been computed or no rate is known.

    Args:
        config: of the run.
        phases: what its steps have come to.
        measured: images a second over the same time.
    """
    images = sum(phase.run["images"] for phase in phases)
    found = [_processes(config, phase) for phase in phases]
    # In mode `sequential` each phase has a slowest process of its own.
    slowest = [max(range(len(processes)), key=lambda place: processes[place].busy) for processes in found]
    least = [processes[place].busy for processes, place in zip(found, slowest, strict=True)]
    if not images or not sum(least) or not measured:
        return None
    longest = max(range(len(phases)), key=lambda phase: least[phase])
    processes, place, bound = found[longest], slowest[longest], images / sum(least)
    lost = phases[longest].run["lost"]
    seconds = images / measured if len(phases) == 1 else processes[place].whole
    reason = reason_of(config, processes, place, seconds, lost) if measured < NEAR * bound else None
    return Headroom(
        measured=measured,
        predicted=None,
        bound=bound,
        stages=() if config.in_one_process else processes[place].stages,
        cause=None if reason is None else reason.cause,
        reason="" if reason is None else reason.sentence,
    )


def predicted_rate(config: Config, phases: Sequence[Phase]) -> float:
    """Images a second that the model says of the stages, links and feed that these steps had."""
    seconds = sum(phase.run["images"] / _of_phase(config, phase) for phase in phases)
    return sum(phase.run["images"] for phase in phases) / seconds


def _of_phase(config: Config, phase: Phase) -> float:
    run, steps = phase.run, phase.run["steps"]
    measured = [
        StageMeasured(stage=stage, **{name: spent[name] / steps for name in ("busy", "copying", "link_bytes")})
        for stage, spent in sorted(phase.stages.items())
    ]
    found = forecast(pipeline_measured(config, measured, _feed_seconds(config, phase)))
    # The last batch of an epoch may be smaller.
    return found.images_per_second * run["images"] / (steps * config.data.batch_size)


def _feed_seconds(config: Config, phase: Phase) -> float | None:
    """For a batch, by all workers of the feed together."""
    images, spent = phase.run["feed_images"], phase.run["feed_seconds"]
    if not images:
        return None
    # With `data.feed=stages` each replica of stage 1 makes its rows.
    makers = config.replicas_of(1) if config.data.feed == "stages" and not config.in_one_process else 1
    return spent / images * config.data.batch_size / (max(config.data.workers, 1) * makers)


def _processes(config: Config, phase: Phase) -> list[ProcessTime]:
    """Those that had work."""
    groups = [tuple(range(1, config.num_stages + 1))] if config.in_one_process else stage_groups(config)
    reached = [tuple(stage for stage in group if stage in phase.stages) for group in groups]
    return [
        ProcessTime(stages=stages, **{name: sum(phase.stages[stage][name] for stage in stages) for name in TIMES})
        for stages in reached
        if stages
    ]


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
