"""The configuration of a run as a plan has it."""

from __future__ import annotations

from collections.abc import Sequence

from launch.partition.constraints import cut_units
from launch.partition.objective import Plan
from launch.prepare.recompute import with_recompute
from pipeline.config import Config
from pipeline.validation.loading import parse_config


def config_with(config: Config, plan: Plan, units: Sequence[str] | None = None) -> Config:
    """The configuration with the cuts, replicas, processes, recompute and chunks of a plan, validated as any other.

    Where a stage of the plan has no chunk, `head.chunk` stays as it is. Replicas need `data.drop_last`, which is set.

    Args:
        config: of the run.
        plan: for it.
        units: names of all units between which plans cut; those of the configuration if not given.

    Raises:
        ConfigError: it cannot work.
    """
    names, stages = list(units or config.model.units()), plan.stages
    as_given = dict(zip(cut_units(config, names), config.model.cuts, strict=True))
    counts = {cut.replicas for cut in stages}
    usual = counts.pop() if len(counts) == 1 else 1
    values = with_recompute(config, {cut.stage: cut.recompute for cut in stages}).model_dump(mode="json")
    values["model"]["cuts"] = [as_given.get(cut.last, names[cut.last]) for cut in stages[:-1]]
    values["processes"], values["replicas"] = plan.processes, usual
    if any(cut.replicas > 1 for cut in stages):
        values["data"]["drop_last"] = True
    by_stage = {int(index): own for index, own in values["stages"].items()}
    for cut in stages:
        own = by_stage.setdefault(cut.stage, {})
        own["replicas"] = None if cut.replicas == usual else cut.replicas
        if cut.chunk is not None:
            own["head"] = {**own.get("head", {}), "chunk": cut.chunk}
    values["stages"] = {str(index): own for index, own in by_stage.items() if any(own.values())}
    return parse_config(values)
