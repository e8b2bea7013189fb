"""Costs that nobody has measured, drawn from a seed: of networks small enough to try all plans, and of large ones."""

from __future__ import annotations

import random
from collections.abc import Collection
from math import inf

from launch.partition.costs import Costs, EndCost, LinkCost, UnitCost


def random_link(draw: random.Random, speed: float) -> LinkCost:
    """`speed`: bytes a second, about."""
    return LinkCost(
        sending=draw.choice([0.0, draw.random() / speed]),
        receiving=draw.choice([0.0, draw.random() / speed]),
        message=draw.choice([0.0, 0.1, 3.0]) * draw.random(),
        bandwidth=draw.choice([inf, speed * (0.5 + draw.random())]),
        latency=draw.random(),
    )


def random_costs(
    draw: random.Random,
    units: int,
    stages: int,
    missing: float = 0.0,
    uncuttable: Collection[int] = (),
    batch: int = 12,
) -> Costs:
    """Of a network of so many units, and of all ends of so many stages but for a share of them that is `missing`."""

    def number(scale: float) -> float:
        return scale * draw.random()

    def made() -> tuple[UnitCost, ...]:
        return tuple(
            UnitCost(
                unit=f"unit{index}", forward=number(1), backward=(back := number(2)),
                input_gradient=back * draw.random(), step=number(0.5), parameters=draw.randrange(1000),
                kept=draw.randrange(1000), output=0 if index in uncuttable else draw.randrange(1, 1000),
            )
            for index in range(units)
        )  # fmt: skip

    own = {stage: made() for stage in range(1, stages + 1) if draw.random() < 0.15}
    ends = {
        (stage, last): EndCost(
            forward=number(0.2), backward=number(0.4), step=number(0.1), loss=number(0.02),
            parameters=draw.randrange(100), kept=draw.randrange(100),
        )
        for stage in range(1, stages + 1)
        for last in range(stage - 1, units)
        if draw.random() >= missing
    }  # fmt: skip
    return Costs(
        device="dice", estimated=True, batch=batch, units=made(), ends=ends,
        within=random_link(draw, 10 ** draw.uniform(1.5, 4)), across=random_link(draw, 10 ** draw.uniform(1.5, 4)),
        summing=draw.choice([0.0, number(0.001)]), feed=number(draw.choice([0.1, 1.0])), memory=2**40,
        of_stages=own, input=draw.choice([0, 100]),
    )  # fmt: skip
