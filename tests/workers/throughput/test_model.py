"""The throughput model against what follows from the protocol by hand, and what must hold of every pipeline."""

from __future__ import annotations

from dataclasses import astuple, replace

import pytest

from tests.workers.throughput.pipelines import BATCH, drawn, link, pipeline, stage
from workers.links.resharding import overlaps
from workers.throughput.model import forecast, parts_of_batch
from workers.throughput.records import ModelledFeed, ModelledPipeline, StageForecast

SEEDS = range(60)


def shares(busy: float = 0.0, wait_input: float = 0.0, wait_output: float = 0.0, copying: float = 0.0) -> StageForecast:
    return StageForecast(busy=busy, wait_input=wait_input, wait_output=wait_output, copying=copying)


def limits(modelled: ModelledPipeline) -> tuple[str, str, float]:
    """What limits a pipeline, and the seconds that it needs for a step."""
    says = forecast(modelled)
    return says.limit, says.limiting, BATCH / says.images_per_second


def test_one_stage_does_nothing_but_compute() -> None:
    says = forecast(pipeline(stage(1, 3)))
    assert (says.images_per_second, says.bound, says.fill) == (BATCH / 4, BATCH / 4, 4)
    assert (says.limit, says.limiting, says.stages) == ("stage", "stage 1", (shares(busy=1.0),))


def test_before_a_slower_stage_the_first_waits_for_room() -> None:
    says = forecast(pipeline(stage(1, 5, 1), stage(2, 6, 2)))
    assert (says.images_per_second, says.limiting) == (BATCH / 8, "stage 2")
    assert says.stages == (shares(busy=0.75, wait_output=0.25), shares(busy=1.0))


def test_behind_a_slower_stage_the_second_waits_for_input() -> None:
    says = forecast(pipeline(stage(2, 6, 1), stage(1, 3, 2)))
    assert (says.images_per_second, says.limiting) == (BATCH / 8, "stage 1")
    assert says.stages == (shares(busy=1.0), shares(busy=0.5, wait_input=0.5))


def test_the_pipeline_is_full_when_the_last_stage_has_done_a_step_on_what_the_others_sent_before_their_update() -> None:
    feed = ModelledFeed(seconds=4, sending=1)
    stages = stage(2, 50, 1, receiving=1, sending=3), stage(5, 50, 2), stage(7, 8, 3)
    ways = {2: link(bytes=10, bandwidth=5), 3: link(bytes=6, bandwidth=2, latency=1)}
    says = forecast(pipeline(*stages, links=ways, feed=feed))
    assert says.fill == 4 + 1 + (1 + 2 + 3) + 2 + 5 + (3 + 1) + (7 + 8)


def test_a_slow_feed_makes_the_first_stage_wait_for_input() -> None:
    says = forecast(pipeline(stage(1, 3, 1), stage(1, 1, 2), feed=ModelledFeed(seconds=8)))
    assert (says.limit, says.limiting, says.images_per_second) == ("feed", "feed", BATCH / 8)
    assert says.bound == BATCH / 4
    assert says.stages == (shares(busy=0.5, wait_input=0.5), shares(busy=0.25, wait_input=0.75))


def test_batches_are_made_while_others_are_sent() -> None:
    assert limits(pipeline(stage(1, 1), feed=ModelledFeed(seconds=5, sending=8))) == ("feed", "feed", 8)


def test_a_feed_in_the_process_of_the_first_stage_makes_batches_ahead_of_it() -> None:
    """Without a link of its own: see the docstring of the model."""
    own = ModelledFeed(seconds=4, ahead=0)
    assert limits(pipeline(stage(1, 4), links={1: link(1)}, feed=own)) == ("stage", "stage 1", 5)


def test_copying_is_time_of_the_stage_that_copies_and_not_of_the_bound() -> None:
    says = forecast(pipeline(stage(2, 2, 1, receiving=1, sending=3), stage(1, 1, 2, receiving=2)))
    assert (says.images_per_second, says.bound) == (BATCH / 8, BATCH / 4)
    assert says.stages == (shares(busy=0.5, copying=0.5), shares(busy=0.25, wait_input=0.5, copying=0.25))


def test_the_last_stage_sends_nothing() -> None:
    assert forecast(pipeline(stage(1, 3, sending=4))) == forecast(pipeline(stage(1, 3)))


def test_a_link_of_depth_1_is_enough_where_messages_take_no_time() -> None:
    deep, flat = (pipeline(stage(1, 3, 1), stage(5, 3, 2), links={2: link(depth)}) for depth in (4, 1))
    assert forecast(flat).images_per_second == BATCH / 8
    assert forecast(flat).stages == forecast(deep).stages


def test_at_depth_1_nothing_is_sent_while_the_message_before_is_on_its_way() -> None:
    """Two on their way hide the latency, and the bandwidth is left."""
    found = {}
    for depth in (1, 2, 3, 4):
        way = link(depth, bytes=6, bandwidth=1, latency=3)
        found[depth] = limits(pipeline(stage(1, 1, 1), stage(1, 1, 2), links={2: way}))
    assert found == {1: ("link", "stage 2", 12), 2: ("link", "stage 2", 6), 3: ("link", "stage 2", 6),
                     4: ("link", "stage 2", 6)}  # fmt: skip


def test_more_depth_hides_more_latency() -> None:
    found = {}
    for depth in (1, 2, 4, 8):
        way = link(depth, latency=16)
        found[depth] = limits(pipeline(stage(1, 4, 1), stage(1, 4, 2), links={2: way}))[2]
    assert found == {1: 32, 2: 16, 4: 8, 8: 5}


def test_a_slow_link_makes_the_stages_at_both_of_its_ends_wait() -> None:
    says = forecast(pipeline(stage(1, 3, 1), stage(1, 1, 2), links={2: link(bytes=16, bandwidth=2)}))
    assert says.stages == (shares(busy=0.5, wait_output=0.5), shares(busy=0.25, wait_input=0.75))


def test_every_pair_of_one_host_has_a_way_of_its_own() -> None:
    stages = stage(1, 1, 1, replicas=2), stage(1, 1, 2, replicas=2)
    assert limits(pipeline(*stages, links={2: link(bytes=16, bandwidth=1)})) == ("link", "stage 2", 8)


def test_all_links_of_a_host_share_its_card() -> None:
    stages = stage(1, 1, 1, replicas=2, hosts=(0, 0)), stage(1, 1, 2, replicas=2, hosts=(1, 1))
    assert limits(pipeline(*stages, links={2: link(bytes=16, bandwidth=4, card=1)})) == ("link", "stage 2", 16)


def test_hosts_with_a_card_each_share_none() -> None:
    stages = stage(1, 1, 1, replicas=2, hosts=(0, 1)), stage(1, 1, 2, replicas=2, hosts=(2, 3))
    assert limits(pipeline(*stages, links={2: link(bytes=16, card=1)})) == ("link", "stage 2", 8)


def test_links_of_two_stages_share_a_card_and_the_larger_one_is_named() -> None:
    """Host 0 sends to the second replica of stage 2, and from its first one to stage 3."""
    stages = stage(1, 1, 1), stage(1, 1, 2, replicas=2, hosts=(0, 1)), stage(1, 1, 3, hosts=(1,))
    ways = {2: link(bytes=24, card=2), 3: link(bytes=8, card=2)}
    assert limits(pipeline(*stages, links=ways)) == ("link", "stage 2", 8)


def test_the_two_directions_of_a_card_are_apart() -> None:
    stages = stage(1, 1, 1, hosts=(0,)), stage(1, 1, 2, hosts=(1,)), stage(1, 1, 3, hosts=(0,))
    ways = {2: link(bytes=8, card=1), 3: link(bytes=8, card=1)}
    assert limits(pipeline(*stages, links=ways))[2] == 8


def test_images_come_from_the_host_of_the_first_process() -> None:
    assert limits(pipeline(stage(1, 1, hosts=(3,)), links={1: link(bytes=16, bandwidth=8, card=1)}))[2] == 2


def test_cards_without_a_limit_are_none() -> None:
    stages = stage(1, 1, 1, replicas=2, hosts=(0, 1)), stage(1, 3, 2, replicas=4, hosts=(0, 1, 2, 3))
    assert limits(pipeline(*stages, links={2: link(bytes=32, bandwidth=1)})) == ("link", "stage 2", 8)


def test_a_link_between_hosts_has_the_latency_of_the_card() -> None:
    stages = stage(1, 0, 1, hosts=(0,)), stage(1, 0, 2, hosts=(1,))
    ways = {2: link(bytes=3, bandwidth=1, latency=100, card=1, card_latency=5)}
    assert forecast(pipeline(*stages, links=ways)).fill == 1 + 3 + 5 + 1


def test_replicas_end_their_updates_together() -> None:
    """The sender copies one half after the other, so that the first replica computes until the second has begun."""
    says = forecast(pipeline(stage(1, 3, 1, sending=4), stage(1, 1, 2, replicas=2)))
    assert says.fill == 1 + 4 + 1 + 1
    assert says.images_per_second == BATCH / 8
    assert says.stages[1] == shares(busy=0.5, wait_input=0.5)


def test_a_sender_waits_for_room_in_all_links_before_it_sends_into_the_first() -> None:
    """The second half is copied when the first one was; so stage 2 is as fast as its links are together."""
    stages = stage(1, 1, 1, sending=4), stage(1, 9, 2, replicas=2)
    says = forecast(pipeline(*stages, links={2: link(1)}))
    assert (says.limiting, says.images_per_second) == ("stage 2", BATCH / 10)
    assert says.stages[0] == shares(busy=0.2, wait_output=0.4, copying=0.4)


@pytest.mark.parametrize(("senders", "receivers"), [(1, 1), (1, 3), (3, 1), (2, 3), (3, 2), (4, 6), (6, 4)])
def test_replicas_have_links_where_their_rows_overlap(senders: int, receivers: int) -> None:
    rows = {(one.sender, one.receiver): one.rows(24) for one in overlaps(senders, receivers)}
    parts = parts_of_batch(senders, receivers)
    assert {pair: part * 24 for pair, part in parts.items()} == {p: r.stop - r.start for p, r in rows.items()}
    assert list(parts) == list(rows)


def parts_alone(made: ModelledPipeline) -> list[tuple[float, str, str]]:
    """Seconds that each part of a pipeline on one host needs for a step, what it is, and its name."""
    feed = made.feed
    parts = [(max(feed.seconds, feed.sending, (feed.seconds + feed.sending) / (feed.ahead + 1)), "feed", "feed")]
    senders, copying = 1, feed.sending
    for one, way in zip(made.stages, made.links, strict=True):
        sending = one.sending * (one is not made.stages[-1])
        parts.append((one.compute + one.receiving + sending, "stage", one.name))
        for number in range(senders):
            copied = 0.0
            for (sender, _), part in parts_of_batch(senders, one.replicas).items():
                if sender == number:
                    copied += copying * float(part) * senders
                    on_its_way = float(part) * way.bytes / way.bandwidth
                    there_and_back = (copied + on_its_way + 2 * way.latency) / way.depth
                    parts.append((max(on_its_way, there_and_back), "link", one.name))
        senders, copying = one.replicas, one.sending
    return parts


@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_takes_as_long_as_the_slowest_part_alone(seed: int) -> None:
    """Whatever the others do: that is what queues between them are for, if times are always the same."""
    made = drawn(seed)
    parts, says = parts_alone(made), forecast(made, steps=200)
    most = max(seconds for seconds, _, _ in parts)
    assert says.images_per_second == pytest.approx(BATCH / most, rel=1e-9)
    nearly = [(kind, name) for seconds, kind, name in parts if seconds > most * (1 - 1e-9)]
    assert (says.limit, says.limiting) in nearly


@pytest.mark.parametrize("seed", SEEDS)
def test_the_shares_of_every_stage_are_all_of_its_time(seed: int) -> None:
    for found in forecast(drawn(seed)).stages:
        assert sum(astuple(found)) == pytest.approx(1.0, abs=1e-12)
        assert all(share >= 0.0 for share in astuple(found))


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_faster_than_its_slowest_stage_computes(seed: int) -> None:
    says = forecast(drawn(seed, unit=0.1))  # which binary numbers only come near
    assert says.images_per_second <= says.bound


@pytest.mark.parametrize("seed", SEEDS)
def test_a_faster_stage_never_slows_the_pipeline_down(seed: int) -> None:
    made = drawn(seed)
    before = forecast(made, steps=100)
    for number, one in enumerate(made.stages):
        faster = list(made.stages)
        faster[number] = replace(one, update=one.update / 2, forward=one.forward / 2)
        after = forecast(replace(made, stages=tuple(faster)), steps=100)
        assert after.images_per_second >= before.images_per_second * (1 - 1e-9)
        assert after.fill <= before.fill


@pytest.mark.parametrize("seed", SEEDS)
def test_in_other_units_of_time_it_says_the_same(seed: int) -> None:
    one, other = forecast(drawn(seed)), forecast(drawn(seed, unit=2.0**-10))
    assert one.images_per_second == other.images_per_second / 2**10
    assert (one.stages, one.limit, one.limiting) == (other.stages, other.limit, other.limiting)
    assert one.fill == other.fill * 2**10


def test_what_takes_no_time_has_no_limit() -> None:
    says = forecast(pipeline(stage(0, 0, 1), stage(0, 0, 2)))
    assert (says.images_per_second, says.bound, says.fill) == (float("inf"), float("inf"), 0.0)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"links": (link(),) * 3}, "2 stages have 3 links into them"),
        ({"stages": (), "links": ()}, "0 stages have 0 links"),
        ({"stages": (stage(1, 1, 1), stage(1, 1, 2, replicas=3, hosts=(0, 1)))}, "stage 2 has 3 replicas on 2 hosts"),
    ],
)
def test_what_fits_together_nowhere_is_refused(changed: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        forecast(replace(pipeline(stage(1, 1, 1), stage(1, 1, 2)), **changed))


def test_a_rate_takes_two_steps() -> None:
    assert forecast(pipeline(stage(1, 3)), steps=2).images_per_second == BATCH / 4
    with pytest.raises(ValueError, match="a rate takes two"):
        forecast(pipeline(stage(1, 3)), steps=1)
