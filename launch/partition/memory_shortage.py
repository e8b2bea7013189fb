"""Why no plan fits its devices, and what would need less, for people."""

from __future__ import annotations

from collections.abc import Iterator
from time import process_time

from launch.partition.costs import StageCut
from launch.partition.memory_fit import MemoryFit, RunOfProcess
from launch.plan.fitting import needs_in_words
from launch.plan.remedies import GIB, Devices, SearchEnded, remedies

SECONDS = 60.0
"""Of the processor, after which no further remedy is looked for."""


def why_nothing_fits(fit: MemoryFit, devices: int) -> str:
    """One unit that is too large for a device alone, and what makes it smaller; or that there are too few devices.

    Args:
        fit: was asked for plans.
        devices: with which there was none.
    """
    names, replicas = [unit.unit for unit in fit.costs.units], max(fit.constraints.replicas)
    for cut in sorted(_single_units(fit, replicas), key=fit.bounds.size, reverse=True):
        if fit((cut,)) is None:
            runs = [*fit.thriftiest((cut,))]
            shared = f" with {replicas} replicas" if replicas > 1 else ""
            need = _need(fit, min(runs, key=lambda run: fit.account(run).needs))
            return f"unit '{names[cut.first]}' alone is too large for a device{shared}: {need}"
    other = "" if fit.constraints.cuts is None else "other cuts, "
    few = f"no plan for {devices} device{'s' * (devices > 1)} fits the memory of one, {fit.costs.memory / GIB:.2f} GiB"
    return f"{few}. Give more devices, {other}more stages, a smaller data.batch_size, or precision.dtype=bf16"


def _single_units(fit: MemoryFit, replicas: int) -> Iterator[StageCut]:
    """Every unit as the only one of a stage, at the first place where that can be."""
    for unit in range(len(fit.costs.units)):
        places = range(1, max(fit.constraints.stages) + 1)
        cuts = (StageCut(stage=stage, first=unit, last=unit, replicas=replicas) for stage in places)
        found = next((cut for cut in cuts if (cut.stage, unit) in fit.costs.ends and fit.run_of((cut,))), None)
        if found is not None:
            yield found


def _need(fit: MemoryFit, run: RunOfProcess) -> str:
    """What a process needs, in a run in which it needs as little as is possible, and what would need less."""
    account, ended = fit.account(run), process_time() + SECONDS
    where = Devices(run.placements, {run.device: fit.costs.memory}, fit.memories)
    try:
        found = remedies(run.config, where, resumed=False, impatient=lambda: process_time() > ended)
    except SearchEnded:
        found = []
    given = f" with memory.recompute={run.config.stage(run.stages[0]).memory.recompute}"
    chunk = getattr(run.config.stage(run.stages[0]).head, "chunk", None)
    given += f" and head.chunk={chunk}" if chunk else ""
    usual = "a smaller data.batch_size, a smaller head, more replicas, or precision.dtype=bf16"
    return f"{needs_in_words(account)},{given}. Give {', or '.join(found) if found else usual}"
