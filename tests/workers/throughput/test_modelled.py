"""The pipeline of a configuration has the processes and the messages that a run of it would have."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import Config
from tests.pipeline.small import small_config
from tests.workers.throughput.pipelines import step_seconds
from workers.links.factory import link_buffers
from workers.throughput.model import forecast
from workers.throughput.modelled import LinkSpeeds, StageMeasured, StageWork, pipeline_measured, pipeline_of
from workers.throughput.records import ModelledFeed, ModelledPipeline
from workers.wiring import LinkPlan

FEED = ModelledFeed(seconds=0.5, sending=0.25)
WORK = [StageWork(forward=1.0 * n, update=10.0 * n, receiving=0.125 * n, sending=0.25 * n) for n in (1, 2, 3, 4)]
REPLICAS = {"stages": {2: {"replicas": 2}, 3: {"replicas": 4}}, "data": {"drop_last": True}}


def modelled(config: Config, **options: Any) -> ModelledPipeline:
    return pipeline_of(config, WORK, FEED, **options)


def times(pipeline: ModelledPipeline) -> list[tuple[float, float, float, float]]:
    return [(one.forward, one.update, one.receiving, one.sending) for one in pipeline.stages]


def test_every_stage_has_a_process_and_a_link_into_it() -> None:
    config = small_config(link={"depth": 3})
    found = modelled(config)
    assert [one.name for one in found.stages] == ["stage 1", "stage 2", "stage 3", "stage 4"]
    assert times(found) == [(n, 10 * n, 0.125 * n, 0.25 * n) for n in (1, 2, 3, 4)]
    assert [one.depth for one in found.links] == [3] * 4
    assert (found.batch, found.feed) == (8, FEED)


def test_stages_of_one_process_compute_one_after_the_other_and_send_nothing_to_each_other() -> None:
    found = modelled(small_config(processes=2))
    assert [one.name for one in found.stages] == ["stages 1-2", "stages 3-4"]
    assert times(found) == [(3, 30, 0.125, 0.5), (7, 70, 0.375, 1.0)]
    assert [one.bytes for one in found.links] == [modelled(small_config()).links[n].bytes for n in (0, 2)]


@pytest.mark.parametrize("codec", ["none", "bf16", "int8"])
def test_links_carry_what_the_links_of_a_run_carry(codec: str) -> None:
    """All messages of a batch together, where replicas have their rows."""
    config = small_config(link={"codec": codec}, **REPLICAS)
    plan, depth = LinkPlan(config), config.link.depth
    carried = [
        sum(link_buffers("queue", one.spec, depth, one.codec).message for one in plan.into(group))
        for group in plan.stage_groups
    ]
    assert [one.bytes for one in modelled(config).links] == carried


def test_replicas_are_on_the_hosts_of_their_ranks() -> None:
    found = modelled(small_config(**REPLICAS), hosts=[0, 0, 1, 1, 2, 2, 3, 3])
    assert [(one.replicas, one.hosts) for one in found.stages] == [
        (1, (0,)), (2, (0, 1)), (4, (1, 2, 2, 3)), (1, (3,)),
    ]  # fmt: skip


def test_on_one_host_all_are_on_the_same() -> None:
    assert {host for one in modelled(small_config(**REPLICAS)).stages for host in one.hosts} == {0}


def test_every_link_has_the_speed_of_the_network() -> None:
    speeds = LinkSpeeds(bandwidth=5.0, latency=0.5, card=7.0, card_latency=0.75)
    found = modelled(small_config(), speeds=speeds).links
    assert {(one.bandwidth, one.latency, one.card, one.card_latency) for one in found} == {(5.0, 0.5, 7.0, 0.75)}


def test_without_one_a_message_takes_no_time() -> None:
    config = small_config()
    fill = forecast(modelled(config)).fill
    assert fill == 0.5 + 0.25 + sum((1.125 + 0.25) * n for n in (1, 2, 3)) + (0.125 + 1 + 10) * 4


@pytest.mark.parametrize("sections", [{"runtime": "serial"}, {"data": {"feed": "stages"}}, {"mode": "end_to_end"}])
def test_nothing_lies_between_the_first_stage_and_a_feed_in_its_process(sections: dict[str, Any]) -> None:
    if sections.get("mode") == "end_to_end":
        sections = {**sections, "objective": {"kind": "barlow_twins"}}
    found = modelled(small_config(**sections))
    assert (found.links[0].depth, found.links[0].bytes, found.feed.ahead) == (1, 0, 0)


def test_a_run_in_one_process_has_one_stage() -> None:
    found = modelled(small_config(runtime="serial"))
    assert [one.name for one in found.stages] == ["stages 1-4"]
    assert times(found) == [(10, 100, 0.125, 1.0)]


def test_in_mode_sequential_stages_before_the_one_that_learns_run_forward_and_those_behind_it_do_nothing() -> None:
    found = modelled(small_config(mode="sequential"), learner=2)
    assert times(found) == [(1, 0, 0.125, 0.25), (2, 20, 0.25, 0)]
    assert len(found.links) == 2


def test_processes_of_a_phase_train_only_those_of_their_stages_that_it_reaches() -> None:
    found = modelled(small_config(mode="sequential", processes=2), learner=3)
    assert times(found) == [(3, 0, 0.125, 0.5), (3, 30, 0.375, 0)]


def test_what_a_run_has_measured_is_what_its_stages_do() -> None:
    """In any order; those that send copy while they do, others as they receive."""
    config = small_config(processes=2)
    measured = [
        StageMeasured(stage=3, busy=6.0, copying=0.25, link_bytes=0),
        StageMeasured(stage=1, busy=3.0, copying=0.0, link_bytes=0),
        StageMeasured(stage=2, busy=9.0, copying=0.5, link_bytes=1000),
        StageMeasured(stage=4, busy=3.0, copying=0.0, link_bytes=0),
    ]
    found = pipeline_measured(config, measured, 0.125, forward_share=0.25)
    assert times(found) == [(3.0, 9.0, 0.0, 0.5), (2.25, 6.75, 0.25, 0.0)]
    assert [one.bytes for one in found.links] == [pipeline_of(config, WORK, FEED).links[0].bytes, 1000]
    assert found.feed.seconds == 0.125
    assert pipeline_measured(config, measured, None).feed.seconds == 0.0


def test_replicas_send_as_much_as_the_first_each() -> None:
    measured = [StageMeasured(stage=n, busy=1.0, copying=0.0, link_bytes=100 * (n < 4)) for n in (1, 2, 3, 4)]
    found = pipeline_measured(small_config(**REPLICAS), measured, None)
    assert [one.bytes for one in found.links[1:]] == [100, 200, 400]


def test_what_is_measured_before_a_stage_sends_changes_the_fill_and_not_the_rate() -> None:
    measured = [StageMeasured(stage=n, busy=8.0 * n, copying=0.5, link_bytes=4) for n in (1, 2, 3, 4)]
    early, late = (
        forecast(pipeline_measured(small_config(), measured, 0.5, forward_share=share)) for share in (0.25, 0.75)
    )
    assert early.fill < late.fill
    assert (step_seconds(early), early.limiting) == (step_seconds(late), late.limiting)
