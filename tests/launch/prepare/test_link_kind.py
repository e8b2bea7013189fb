"""Which links a run may have, by what is known of its devices before it starts."""

from __future__ import annotations

import pytest

from launch.prepare.link_kind import check_nccl
from launch.prepare.placement import place
from pipeline.errors import ConfigError
from tests.pipeline.small import small_config


def check(kind: str, gpus: int, restart: str = "stage", **sections: object) -> None:
    run = small_config(link={"kind": kind}, restart=restart, snapshots={"every": 4}, **sections)
    check_nccl(run, place(run, gpus))


def test_a_stage_does_not_restart_alone_where_its_links_are_nccls() -> None:
    with pytest.raises(ConfigError) as refused:
        check("p2p", 2)
    assert str(refused.value) == (
        "restart: got 'stage', and from stage 2 on cuda:0 to stage 3 on cuda:1 a p2p link is NCCL's, for which the "
        "restart of one process has never been tried. Give link.kind=queue, or restart=job"
    )
    with pytest.raises(ConfigError, match="from stage 1 replica 1 on cuda:0 to stage 2 on cuda:2 a p2p link"):
        check("p2p", 5, stages={"1": {"replicas": 2}})


@pytest.mark.parametrize(
    ("kind", "gpus", "restart"),
    [("p2p", 0, "stage"), ("p2p", 1, "stage"), ("queue", 4, "stage"), ("p2p", 4, "job"), ("p2p", 4, "none")],
)
def test_where_gloo_or_a_queue_carries_or_all_start_again_it_may(kind: str, gpus: int, restart: str) -> None:
    check(kind, gpus, restart)
