"""What a configuration lets a plan do, and what is refused before a search begins."""

from __future__ import annotations

from typing import Any

import pytest

from launch.partition.constraints import Constraints
from pipeline.errors import UserError
from tests.pipeline.small import small_config

DROPPING = {"data": {"drop_last": True, "batch_size": 24}}
KEEPING = {"data": {"drop_last": False, "batch_size": 24}}


def test_a_configuration_says_what_is_allowed() -> None:
    found = Constraints.of(small_config(**DROPPING), devices=8, hosts=2)
    assert (found.devices, found.per_host, found.hosts) == (8, 4, 2)
    assert (found.stages, found.cuts, found.preferred) == ((4,), None, (2, 4, 6))
    assert found.replicas == (1, 2, 3, 4, 6, 8)
    assert found.processes
    assert Constraints.of(small_config(**DROPPING), devices=8, keep_cuts=True).cuts == (2, 4, 6)
    assert Constraints.of(small_config(**DROPPING), devices=8, stages=range(2, 4)).stages == (2, 3)


@pytest.mark.parametrize("why", [KEEPING, {**DROPPING, "precision": {"compile": True}}])
def test_a_stage_has_replicas_only_where_a_run_may_have_them(why: dict[str, Any]) -> None:
    assert Constraints.of(small_config(**why), devices=4).replicas == (1,)


def test_one_device_more_is_on_the_last_host() -> None:
    hosts = Constraints.of(small_config(**DROPPING), devices=4, hosts=2)
    assert [hosts.host_of(rank) for rank in range(-1, 5)] == [0, 0, 0, 1, 1, 1]
    one = Constraints.of(small_config(**DROPPING), devices=4)
    assert [one.host_of(rank) for rank in range(-1, 5)] == [0] * 6


@pytest.mark.parametrize(
    ("sections", "given", "says"),
    [
        ({}, {"devices": 0}, "got 0 GPUs to plan for. Give 1 or more"),
        ({}, {"devices": 4, "hosts": 5}, "got 4 GPUs on 5 hosts. Give 1 to 4 hosts"),
        ({}, {"devices": 4, "stages": [10]}, "got 10 stages, and the network has 9 units. Give 1 to 9 stages"),
        ({}, {"devices": 4, "stages": [3], "keep_cuts": True}, "the cuts that are kept make 4"),
        ({"stages": {4: {"replicas": 1}}}, {"devices": 3, "stages": [3]}, r"stages.4: has settings of its own"),
        (KEEPING, {"devices": 5}, r"4 of 5 GPUs can be used at most: 4 stages, .* Give --gpus 4, data.drop_last=true"),
        (
            {**DROPPING, "precision": {"compile": True}},
            {"devices": 6, "stages": [2, 5]},
            r"5 of 6 GPUs can be used at most: 5 stages, and .* compiled .* precision.compile=false",
        ),
        (DROPPING, {"devices": 49}, r"48 of 49 GPUs .* 24 images can be shared by 12 replicas .* data.batch_size"),
        ({"runtime": "serial"}, {"devices": 2}, "runtime: got 'serial', which trains all blocks in one process"),
        ({"mode": "end_to_end"}, {"devices": 2}, "mode: got 'end_to_end', which trains all blocks in one process"),
        ({"mode": "sequential"}, {"devices": 2}, "mode: got 'sequential', which trains one block at a time"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_what_can(
    sections: dict[str, Any], given: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        Constraints.of(small_config(**sections), **given)


def test_as_many_devices_as_can_be_used_are_accepted() -> None:
    assert max(Constraints.of(small_config(**DROPPING), devices=48).replicas) == 12
