"""Pipelines for the model, in whole seconds and bytes, so that sums of times are exact."""

from __future__ import annotations

import random

from workers.throughput.records import Forecast, ModelledFeed, ModelledLink, ModelledPipeline, ModelledStage

BATCH = 64


def stage(
    forward: float, update: float, number: int = 1, *, receiving: float = 0, sending: float = 0, replicas: int = 1,
    hosts: tuple[int, ...] = (0,),
) -> ModelledStage:  # fmt: skip
    """Stage `number`."""
    return ModelledStage(
        name=f"stage {number}", forward=forward, update=update, receiving=receiving, sending=sending,
        replicas=replicas, hosts=hosts,
    )  # fmt: skip


def link(depth: int = 2, **values: float) -> ModelledLink:
    """One that takes no time, but for what is said."""
    return ModelledLink(**{"depth": depth, "bytes": 0.0, **values})


def pipeline(
    *stages: ModelledStage, links: dict[int, ModelledLink] | None = None, feed: ModelledFeed | None = None
) -> ModelledPipeline:
    """Of these stages; `links` are those that take time, by the number of the stage that they lead to."""
    return ModelledPipeline(
        batch=BATCH,
        feed=feed or ModelledFeed(seconds=0.0),
        stages=stages,
        links=tuple((links or {}).get(number, link()) for number in range(1, len(stages) + 1)),
    )


def step_seconds(says: Forecast) -> float:
    """What a step takes once the pipeline is full: not on some machine, but by the model."""
    return BATCH / says.images_per_second


def drawn(seed: int, unit: float = 1.0) -> ModelledPipeline:
    """Some pipeline on one host, with times of whole `unit`s of a second."""
    draw = random.Random(seed)

    def seconds(most: int) -> float:
        return draw.randint(0, most) * unit

    count = draw.randint(1, 5)
    stages = [
        stage(
            seconds(6), seconds(8) + unit, number, receiving=seconds(1), sending=6 * seconds(1),
            replicas=draw.choice([1, 1, 1, 2, 3]),
        )
        for number in range(1, count + 1)
    ]  # fmt: skip
    links = {
        number: link(draw.randint(1, 4), bytes=seconds(12) / unit, bandwidth=1.0 / unit, latency=seconds(3))
        for number in range(1, count + 1)
    }
    made = ModelledFeed(seconds=seconds(8), ahead=draw.randint(0, 2), sending=6 * seconds(1))
    return pipeline(*stages, links=links, feed=made)
