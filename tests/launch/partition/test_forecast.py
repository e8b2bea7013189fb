"""From costs and a configuration to a modelled pipeline: who copies what, which processes share stages, and hosts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launch.partition.costs import Costs, EndCost, LinkCost, UnitCost
from launch.partition.forecast import cuts_of, forecast_of, modelled
from pipeline.config import Config
from pipeline.validation.loading import load_config
from workers.throughput.records import ModelledPipeline

BATCH = 256
WITHIN = LinkCost(sending=1.0, receiving=2.0, message=0.0, bandwidth=float("inf"), latency=0.25)
ACROSS = LinkCost(sending=0.0, receiving=0.0, message=8.0, bandwidth=64.0, latency=0.5)
UNIT = UnitCost(unit="", forward=1.0, backward=2.0, input_gradient=0.0, step=0.0, parameters=0, kept=0, output=1)
END = EndCost(forward=0.0, backward=1.0, step=0.0, loss=0.0, parameters=0, kept=0)
IMAGES = 2 * BATCH * 28 * 28 * 3
ACTIVATIONS = [2 * BATCH * 4 * channels * side * side for channels, side in ((16, 14), (32, 7), (64, 4))]


def configured(repository: Path, *overrides: str) -> Config:
    return load_config(repository / "configs/quickstart.yaml", overrides)


def pipeline(config: Config, hosts: list[int] | None = None, **others: float) -> ModelledPipeline:
    names = config.model.units()
    units = tuple(replace(UNIT, unit=name) for name in names)
    ends = {(stage, last): END for stage in range(1, 5) for last in range(len(names))}
    costs = Costs(
        device="abacus", estimated=True, batch=BATCH, units=units, ends=ends, within=WITHIN, across=ACROSS,
        summing=0.0, feed=0.5, memory=2**30,
    )  # fmt: skip
    return modelled(replace(costs, **others), config, cuts_of(config, names), hosts or [0] * 64)  # type: ignore[arg-type]


def test_a_stage_has_the_units_of_its_block_and_copies_what_comes_and_goes(repository: Path) -> None:
    made = pipeline(configured(repository))
    first, second, _, last = made.stages
    assert (first.name, first.forward, first.update) == ("stage 1", BATCH * 3.0, BATCH * (3 * 2.0 + 1.0))
    assert (first.receiving, first.sending) == (2.0 * IMAGES, 1.0 * ACTIVATIONS[0])
    assert (second.forward, second.receiving, second.sending) == (BATCH * 2.0, 2.0 * ACTIVATIONS[0], ACTIVATIONS[1])
    assert last.sending == 0.0
    assert [link.bytes for link in made.links] == [IMAGES, *ACTIVATIONS]
    assert (made.feed.seconds, made.feed.sending) == (BATCH * 0.5, IMAGES)


def test_stages_of_one_process_send_each_other_nothing(repository: Path) -> None:
    first, last = pipeline(configured(repository, "processes=2")).stages
    assert (first.name, last.name) == ("stages 1-2", "stages 3-4")
    assert first.forward == BATCH * 5.0
    assert (first.sending, last.receiving) == (ACTIVATIONS[1], 2.0 * ACTIVATIONS[1])


def test_replicas_share_the_batch_and_each_copies_its_part(repository: Path) -> None:
    made = pipeline(configured(repository, "stages={1: {replicas: 2}, 2: {replicas: 4}}"))
    first, second = made.stages[:2]
    assert (first.replicas, first.forward, first.receiving) == (2, BATCH * 3.0 / 2, 2.0 * IMAGES / 2)
    assert (first.sending, second.receiving) == (ACTIVATIONS[0] / 2, 2.0 * ACTIVATIONS[0] / 4)
    assert made.feed.sending == IMAGES


def test_between_hosts_each_message_costs_what_it_does_there(repository: Path) -> None:
    made = pipeline(configured(repository, "link.kind=p2p", "stages={2: {replicas: 2}}"), hosts=[0, 0, 1, 1, 1])
    first, second, third = made.stages[:3]
    assert second.hosts == (0, 1)
    assert first.sending == ACTIVATIONS[0] / 2 + 8.0  # one half to a neighbour on its host, and one message to another
    assert second.receiving == 2.0 * ACTIVATIONS[0] / 2  # of the slower replica, which copies
    assert (second.sending, third.receiving) == (ACTIVATIONS[1] / 2, 2.0 * ACTIVATIONS[1] / 2 + 8.0)
    assert (made.links[0].card, made.links[0].card_latency, made.links[0].latency) == (64.0, 0.5, 0.25)


def test_a_codec_makes_messages_smaller_but_not_the_images(repository: Path) -> None:
    made = pipeline(configured(repository, "link.codec=bf16"))
    assert [link.bytes for link in made.links] == [IMAGES, *(size / 2 for size in ACTIVATIONS)]


@pytest.mark.parametrize(("overrides", "makers"), [((), 1), (("data.feed=stages", "stages={1: {replicas: 4}}"), 4)])
def test_every_process_of_stage_1_may_have_a_feed_of_its_own(
    repository: Path, overrides: tuple[str, ...], makers: int
) -> None:
    made = pipeline(configured(repository, *overrides))
    assert made.feed.seconds == BATCH * 0.5 / makers


def test_without_the_feed_the_stages_alone_count(repository: Path) -> None:
    made = pipeline(configured(repository), feed=1e6)
    slow, fast = forecast_of(made), forecast_of(made, fed=False)
    rates = slow.images_per_second, fast.images_per_second
    assert (slow.limit, rates[0]) == ("feed", pytest.approx(1e-6, rel=0.1))
    assert rates[1] > 2 * rates[0]


def test_units_that_the_costs_do_not_have_are_an_error(repository: Path) -> None:
    with pytest.raises(ValueError, match=r"layer1\.1"):
        cuts_of(configured(repository), ["stem", "layer1.0"])
