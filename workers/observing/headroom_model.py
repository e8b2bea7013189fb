"""Computes the headroom of a run from what its steps have come to, with the throughput model."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import Config
from workers.observing.headroom import NEAR, Headroom
from workers.observing.observer import TIMES
from workers.observing.step_sums import Phase
from workers.observing.wait_reasons import ProcessTime, reason_of
from workers.throughput.model import forecast
from workers.throughput.modelled import StageMeasured, pipeline_measured
from workers.topology.processes import stage_groups


def headroom_of(config: Config, phases: Sequence[Phase], measured: float, ended: bool) -> Headroom | None:
    """Of the steps of some phases; None where nothing has been computed or no rate is known.

    Args:
        config: of the run.
        phases: what its steps have come to.
        measured: images a second over the same time.
        ended: they are those of the whole run.
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
    seconds = least[longest] * bound / measured  # as if every phase had reached the same share of its bound
    near = measured >= NEAR * bound
    reason = None if near else reason_of(config, processes, place, seconds, lost, ended)
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
