"""The search finds what trying all plans finds, also where links are slow and some processes do not fit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product

import pytest

from launch.partition.constraints import Constraints
from launch.partition.costs import Costs, StageCut
from launch.partition.objective import Plan, value_of
from launch.partition.process_tables import Fits
from launch.partition.search import search
from tests.launch.partition.random_costs import random_costs
from workers.topology.processes import even_groups

Stages = tuple[StageCut, ...]


def everything(cuts: Stages) -> Stages:
    """A device that holds whatever it is given."""
    return cuts


def fussy(seed: int) -> Fits:
    """A device that refuses some processes, and makes others compute again, by their units and replicas alone."""

    def fits(cuts: Stages) -> Stages | None:
        draw = random.Random(f"{seed} {[(cut.stage, cut.first, cut.last, cut.replicas) for cut in cuts]}")
        recompute = draw.choice(["none", "none", "units", "views", "too large"])
        return None if recompute == "too large" else tuple(replace(cut, recompute=recompute) for cut in cuts)

    return fits


def all_divisions(costs: Costs, constraints: Constraints) -> Iterator[Stages]:
    """Every way to cut the network."""
    last = len(costs.units) - 1
    for count in constraints.stages:
        for cuts in combinations(range(last), count - 1):
            ends = (*cuts, last)
            sizes = [costs.units_of(stage)[cut].output for stage, cut in enumerate(cuts, 1)]
            allowed = all(sizes) and constraints.cuts in (None, cuts)
            if allowed and all((stage, end) in costs.ends for stage, end in enumerate(ends, 1)):
                firsts = (0, *(cut + 1 for cut in cuts))
                spans = enumerate(zip(firsts, ends, strict=True), 1)
                yield tuple(StageCut(stage=stage, first=a, last=b) for stage, (a, b) in spans)


def all_plans(costs: Costs, constraints: Constraints, fits: Fits) -> Iterator[tuple[int, float]]:
    """Devices and bottleneck of every plan that fits."""

    def fitted(groups: list[Stages]) -> Stages | None:
        answers = [fits(group) for group in groups]
        return None if None in answers else tuple(cut for answer in answers for cut in answer or ())

    for stages in all_divisions(costs, constraints):
        for replicas in product(constraints.replicas, repeat=len(stages)):
            shared = [(replace(cut, replicas=count),) for cut, count in zip(stages, replicas, strict=True)]
            if sum(replicas) <= constraints.devices + 1 and (plan := fitted(shared)):
                yield sum(replicas), value_of(costs, constraints, plan, None)
        for processes in range(1, len(stages) * constraints.processes):
            groups = [tuple(stages[k - 1] for k in group) for group in even_groups(len(stages), processes)]
            if processes <= constraints.devices + 1 and (plan := fitted(groups)):
                yield processes, value_of(costs, constraints, plan, processes)


def best_by_trying(costs: Costs, constraints: Constraints, fits: Fits) -> dict[int, tuple[float, int]]:
    """By the number of devices: the least bottleneck, and with how few devices it is reached."""
    every = [(value, devices) for devices, value in all_plans(costs, constraints, fits)]
    numbers = range(1, constraints.devices + 2)
    found = {number: min((plan for plan in every if plan[1] <= number), default=None) for number in numbers}
    return {number: plan for number, plan in found.items() if plan is not None}


def random_case(seed: int) -> tuple[Costs, Constraints, Fits]:
    draw = random.Random(seed)
    units, most = draw.randint(1, 6), draw.randint(1, 3)
    stages = tuple(sorted(draw.sample(range(1, most + 1), draw.randint(1, most))))
    uncuttable = [index for index in range(units) if draw.random() < 0.15]
    costs = random_costs(draw, units, most, draw.choice([0.0, 0.15]), uncuttable)
    hosts, per_host = draw.choice([(1, draw.randint(1, 5)), (2, draw.randint(1, 2)), (2, 2)])
    replicas = draw.choice([(1,), (1, 2), (1, 2, 3, 4), (1, 2, 3, 4, 6)])
    cuts = None
    if draw.random() < 0.2 and len(stages) == 1 and units >= stages[0]:
        cuts = tuple(sorted(draw.sample(range(units - 1), stages[0] - 1))) if units > 1 else ()
    constraints = Constraints(
        devices=hosts * per_host, per_host=per_host, stages=stages, cuts=cuts, replicas=replicas,
        processes=draw.random() < 0.7,
    )  # fmt: skip
    return costs, constraints, draw.choice([everything, fussy(seed)])


@pytest.mark.parametrize("hundred", range(6))
def test_the_search_equals_trying_all_plans(hundred: int) -> None:
    for seed in range(100 * hundred, 100 * hundred + 100):
        costs, constraints, fits = random_case(seed)
        plans, best = search(costs, constraints, fits), best_by_trying(costs, constraints, fits)
        assert {number: (plan.bottleneck, plan.devices) for number, plan in plans.items()} == best, seed
        for plan in plans.values():
            assert_valid(plan, costs, constraints, fits)


def assert_valid(plan: Plan, costs: Costs, constraints: Constraints, fits: Fits) -> None:
    assert [cut.stage for cut in plan.stages] == list(range(1, len(plan.stages) + 1))
    assert len(plan.stages) in constraints.stages
    assert [cut.first for cut in plan.stages] == [0, *(cut.last + 1 for cut in plan.stages[:-1])]
    assert plan.stages[-1].last == len(costs.units) - 1
    assert all(cut.replicas in constraints.replicas for cut in plan.stages)
    assert value_of(costs, constraints, plan.stages, plan.processes) == plan.bottleneck
    for group in even_groups(len(plan.stages), plan.processes or len(plan.stages)):
        cuts = tuple(plan.stages[stage - 1] for stage in group)
        assert fits(tuple(replace(cut, recompute="none") for cut in cuts)) == cuts


def test_only_wanted_numbers_of_devices_are_answered_and_as_if_all_were() -> None:
    for seed in range(40):
        costs, constraints, fits = random_case(seed)
        every, last = search(costs, constraints, fits), constraints.devices
        found = search(costs, constraints, fits, numbers=[last])
        assert found == {number: plan for number, plan in every.items() if number == last}, seed


@pytest.mark.long
@pytest.mark.parametrize(("units", "stages"), [(51, (4,)), (25, tuple(range(1, 17)))])
@pytest.mark.parametrize("per_host", [8, 64])
def test_large_networks_on_64_devices(units: int, stages: tuple[int, ...], per_host: int) -> None:
    costs = random_costs(random.Random(units), units, max(stages), batch=256)
    constraints = Constraints(
        devices=64, per_host=per_host, stages=stages, cuts=None, replicas=(1, 2, 4, 8, 16, 32, 64), processes=True
    )
    numbers = [1, 3, 8, 32, 64, 65]
    plans = search(costs, constraints, everything, numbers=numbers)
    assert list(plans) == numbers
    for plan in plans.values():
        assert_valid(plan, costs, constraints, everything)
    values = [plan.bottleneck for plan in plans.values()]
    assert values == sorted(values, reverse=True)
    kept = replace(constraints, stages=stages[-1:], cuts=tuple(range(stages[-1] - 1)))
    assert [cut.last for cut in search(costs, kept, everything, numbers=[64])[64].stages[:-1]] == list(kept.cuts or ())


def uniform(units: int, stages: int) -> Costs:
    """Of units that are all alike, with free links, so that many plans are as good."""
    costs = random_costs(random.Random(0), units, stages)
    link = replace(costs.within, sending=0.0, receiving=0.0, message=0.0, bandwidth=float("inf"))
    end = replace(costs.ends[1, 0], step=0.0)
    one = replace(costs.units[0], step=0.0, input_gradient=0.0)
    return replace(
        costs, units=tuple(replace(one, unit=f"unit{index}") for index in range(units)), of_stages={},
        ends=dict.fromkeys(costs.ends, end), within=link, across=link, feed=0.0,
    )  # fmt: skip


def test_of_plans_that_are_as_good_the_cuts_of_the_configuration_win() -> None:
    costs = uniform(24, 4)
    for cuts in ((5, 11, 17), (4, 10, 17), (7, 11, 15)):
        constraints = Constraints(
            devices=4, per_host=4, stages=(4,), cuts=None, replicas=(1,), processes=True, preferred=cuts
        )
        one = search(costs, constraints, everything)[1]
        assert one.processes == 1
        assert tuple(cut.last for cut in one.stages[:-1]) == cuts
    even = search(costs, constraints, everything)[4]
    assert tuple(cut.last for cut in even.stages[:-1]) == (5, 11, 17)


def test_work_that_no_device_can_take_off_the_slowest_is_shared_evenly() -> None:
    costs = uniform(10, 4)
    heavy = replace(costs.units[0], forward=100.0)
    costs = replace(costs, units=(heavy, *costs.units[1:]))
    constraints = Constraints(devices=4, per_host=4, stages=(4,), cuts=None, replicas=(1,), processes=False)
    plan = search(costs, constraints, everything)[4]
    assert [cut.last - cut.first + 1 for cut in plan.stages] == [1, 3, 3, 3]
