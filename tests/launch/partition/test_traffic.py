"""What links take of processes, ways and cards; the pieces are those that resharding makes."""

from __future__ import annotations

import random
from math import inf, lcm

import pytest

from launch.partition.constraints import Constraints
from launch.partition.costs import Costs, LinkCost, StageCut
from launch.partition.objective import value_of
from launch.partition.traffic import Traffic, shares
from tests.launch.partition.random_costs import random_costs
from tests.launch.partition.test_costs import COSTS, END, UNIT
from workers.links.resharding import overlaps

FREE = LinkCost(sending=0.0, receiving=0.0, message=0.0, bandwidth=inf, latency=0.0)


def constraints_of(devices: int, per_host: int) -> Constraints:
    return Constraints(devices=devices, per_host=per_host, stages=(2,), cuts=None, replicas=(1, 2, 4), processes=True)


@pytest.mark.parametrize(("senders", "receivers"), [(1, 1), (1, 4), (4, 1), (2, 3), (4, 6), (6, 4)])
def test_pieces_are_those_of_resharding(senders: int, receivers: int) -> None:
    batch, part = lcm(senders, receivers), shares(senders, receivers)
    rows = {(one.sender, one.receiver): len(range(batch)[one.rows(batch)]) for one in overlaps(senders, receivers)}
    pairs = ((i, j) for i in range(senders) for j in range(receivers))
    assert all(part[i, j] == rows.get((i, j), 0) / batch for i, j in pairs)


def of_two(within: LinkCost, across: LinkCost, replicas: tuple[int, int], per_host: int, feed: float = 0.0) -> float:
    """The value of a unit in each of two stages; a batch of 4 images has 256 bytes between them."""
    costs = Costs(
        device="abacus", estimated=True, batch=4, units=COSTS.units, ends={(1, 0): END, (2, 1): END}, within=within,
        across=across, summing=0.0, feed=feed, memory=2**30,
    )  # fmt: skip
    stages = [StageCut(stage=stage, first=stage - 1, last=stage - 1, replicas=replicas[stage - 1]) for stage in (1, 2)]
    return value_of(costs, constraints_of(sum(replicas), per_host), stages, None)


def test_the_slowest_of_processes_ways_cards_and_feed_counts() -> None:
    alone = of_two(FREE, FREE, (1, 1), 2)
    assert alone == 4 * (1.0 + 4.0 - 2.0 + 0.75) + 8.0 + 100.0 + 4 * 1000.0
    copying = LinkCost(sending=1.0, receiving=2.0, message=8.0, bandwidth=inf, latency=50.0)
    assert of_two(copying, FREE, (1, 1), 2) == alone + 8.0 + 2 * 256  # the second receives all, and sends nothing
    slow = LinkCost(sending=0.0, receiving=0.0, message=0.0, bandwidth=2**-6, latency=0.0)
    assert of_two(slow, FREE, (1, 1), 2) == 256 * 2**6
    assert of_two(slow, FREE, (2, 1), 3) == 128 * 2**6  # two ways, each for itself
    assert of_two(FREE, slow, (1, 1), 1) == 256 * 2**6
    assert of_two(FREE, slow, (2, 1), 2) == 256 * 2**6  # one card for both
    assert of_two(FREE, slow, (1, 2), 2) == 128 * 2**6  # one of the two is on the same host
    assert of_two(FREE, FREE, (1, 1), 2, feed=2**20) == 4 * 2**20


def test_more_pieces_are_more_messages() -> None:
    message = LinkCost(sending=0.0, receiving=0.0, message=1000.0, bandwidth=inf, latency=0.0)
    assert of_two(message, FREE, (1, 4), 5) - of_two(FREE, FREE, (1, 4), 5) == 1000.0 * (1 + 4)


def test_the_card_of_a_host_carries_all_that_leaves_it() -> None:
    """Ranks 0 | 1 2: the first stage's replicas are on both hosts, and the second stage is on the second."""
    card = LinkCost(sending=0.0, receiving=0.0, message=0.0, bandwidth=2**-6, latency=0.0)
    assert of_two(FREE, card, (2, 1), 1) > of_two(FREE, card, (2, 1), 3)
    load = Traffic(
        Costs(device="", estimated=True, batch=4, units=(UNIT, UNIT), ends={}, within=FREE, across=card, summing=0.0,
              feed=0.0, memory=0, input=10),
        constraints_of(4, 2),
    ).stage(0, None, 4, None)  # fmt: skip
    assert load.ways == ((0.5 * 2**6, 0.0),)  # half of the images go from the coordinator to the second host


@pytest.mark.parametrize("seed", range(30))
def test_where_neighbours_are_not_known_the_load_is_a_lower_bound(seed: int) -> None:
    draw = random.Random(seed)
    traffic = Traffic(random_costs(draw, 3, 2), constraints_of(12, draw.choice([1, 2, 3, 5, 12])))
    for before, replicas, after in ((1, 2, 3), (4, 2, 1), (2, 2, 4), (3, 4, 1)):
        start = before + draw.randrange(3)
        sizes = draw.random(), draw.random() * 1000, draw.random() * 1000
        exact = float(traffic.stage(start, before, replicas, after).seconds(*sizes))
        for known in ((0, after), (before, 0), (0, 0)):
            assert float(traffic.stage(start, known[0], replicas, known[1]).seconds(*sizes)) <= exact * (1 + 1e-12)
