"""A plan becomes a configuration that is validated as any other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launch.partition.costs import StageCut
from launch.partition.objective import Plan
from launch.partition.planned_config import config_with
from pipeline.config import Config
from pipeline.errors import ConfigError
from tests.pipeline.small import small_config

ENDS = (2, 4, 6, 8)
"""The last units of the four blocks of ResNet-18."""


def plan_of(config: Config, ends: tuple[int, ...] = ENDS, processes: int | None = None) -> Plan:
    firsts = (0, *(end + 1 for end in ends[:-1]))
    spans = enumerate(zip(firsts, ends, strict=True), 1)
    stages = tuple(
        StageCut(stage=stage, first=a, last=b, replicas=config.replicas_of(stage)) for stage, (a, b) in spans
    )
    return Plan(stages=stages, processes=processes, bottleneck=1.0)


def changed(plan: Plan, stage: int, **values: object) -> Plan:
    stages = [replace(cut, **values) if cut.stage == stage else cut for cut in plan.stages]
    return replace(plan, stages=tuple(stages))


def test_a_plan_that_changes_nothing_gives_the_same_configuration() -> None:
    for config in (small_config(), small_config(replicas=2, data={"drop_last": True}, stages={2: {"frozen": True}})):
        assert config_with(config, plan_of(config)) == config


def test_cuts_that_stay_keep_their_names_and_others_are_units() -> None:
    config = small_config()
    assert config_with(config, plan_of(config, (2, 5, 8))).model.cuts == ("layer1", "layer3.0")


def test_replicas_are_given_by_stage_and_the_smaller_batch_is_dropped() -> None:
    config = small_config(stages={3: {"replicas": 4}})
    two = config_with(config, changed(changed(plan_of(config), 3, replicas=1), 2, replicas=2))
    assert [two.replicas_of(stage) for stage in range(1, 5)] == [1, 2, 1, 1]
    alike = [changed(plan_of(config), stage, replicas=2).stages[stage - 1] for stage in range(1, 5)]
    every = config_with(
        small_config(data={"drop_last": False}), Plan(stages=tuple(alike), processes=None, bottleneck=1.0)
    )
    assert (every.replicas, every.stages) == (2, {})
    assert every.data.drop_last


def test_processes_are_shared_or_not() -> None:
    config = small_config(processes=2)
    assert config_with(config, plan_of(config)).processes is None
    assert config_with(small_config(), plan_of(config, processes=3)).processes == 3


def test_recompute_and_chunks_are_of_their_stage_and_other_chunks_stay() -> None:
    config = small_config(memory={"recompute": "auto"}, head={"chunk": 4})
    made = config_with(config, changed(plan_of(config), 2, recompute="units", chunk=2))
    assert [made.stage(stage).memory.recompute for stage in range(1, 5)] == ["none", "units", "none", "none"]
    assert [getattr(made.stage(stage).head, "chunk", None) for stage in range(1, 5)] == [4, 2, 4, 4]


def test_what_cannot_work_is_refused_as_in_a_file() -> None:
    config = small_config()
    with pytest.raises(ConfigError, match=r"stages\.2\.replicas: 3 replicas cannot share a batch of 8 evenly"):
        config_with(config, changed(plan_of(config), 2, replicas=3))
    with pytest.raises(ConfigError, match=r"stages\.2\.replicas.*processes=2"):
        config_with(config, changed(plan_of(config, processes=2), 2, replicas=2))
