"""A process of a plan gets the recompute and the chunk with which its device holds it, by the account of memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from launch.partition import memory_fit
from launch.partition.constraints import Constraints
from launch.partition.costs import Costs, EndCost, LinkCost, StageCut, UnitCost
from launch.partition.memory_fit import MemoryFit
from launch.partition.memory_shortage import why_nothing_fits
from launch.partition.search import search
from launch.plan.account import ProcessAccount, StageAccount
from launch.plan.memories import ProcessMemories
from pipeline.config import Config
from tests.pipeline.small import small_config
from workers.determinism.child import run_in_child

GIB = 2**30
LINK = LinkCost(sending=0.0, receiving=0.0, message=0.0, bandwidth=float("inf"), latency=0.0)
BATCH = 1024
LIMIT = 200.0


def costs_of(config: Config, room: float, heavy: str = "") -> Costs:
    """One GiB kept of every unit, for the whole batch; forty of `heavy`; `room` for tensors, in GiB."""
    names = config.model.units()
    unit = UnitCost(
        unit="", forward=1.0, backward=2.0, input_gradient=0.5, step=0.1, parameters=0, kept=GIB // BATCH, output=1
    )
    end = EndCost(forward=0.1, backward=0.2, step=0.1, loss=0.0, parameters=0, kept=0)
    return Costs(
        device="a device", estimated=True, batch=BATCH,
        units=tuple(replace(unit, unit=name, kept=unit.kept * (40 if name == heavy else 1)) for name in names),
        ends={(stage, last): end for stage in range(1, 5) for last in range(stage - 1, len(names))},
        within=LINK, across=LINK, summing=0.0, feed=0.0, memory=int((1.05 * room + 0.65) * GIB),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _account_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of these networks, which are so small that any device holds them."""
    monkeypatch.setattr(memory_fit, "surely_fits", lambda config, everyone, sizes: False)


class Memories:
    """An account that is known: by units as `costs_of`, 2 GiB of a head, and half of it with units or views again."""

    def __init__(self, costs: Costs) -> None:
        self._kept = {unit.unit: unit.kept for unit in costs.units}
        self.asked: list[tuple[tuple[str, ...], str, int | None]] = []

    def __call__(self, config: Config, stages: tuple[int, ...], on_gpu: bool) -> ProcessAccount:
        peaks = {}
        for index in stages:
            stage = config.stage(index)
            chunk, images = getattr(stage.head, "chunk", None), config.data.batch_size // stage.replicas
            kept = [self._kept[unit] * images for unit in stage.units]
            of_units = {"none": sum(kept), "units": max(kept), "views": 0.5 * max(kept)}[stage.memory.recompute]
            head = 2 * GIB * (chunk or images) / BATCH
            peaks[index] = int(of_units + head)
            self.asked.append((stage.units, stage.memory.recompute, chunk))
        largest = max(peaks, key=lambda index: peaks[index])
        empty = {"parameters": 0, "optimizer": 0, "gradients": 0, "snapshot": 0}
        accounts = tuple(StageAccount(stage=index, kept=peaks[index], **empty) for index in stages)
        return ProcessAccount(accounts, 0, 0, max(peaks.values()), f"backward of stage {largest}")


def fit_of(room: float, heavy: str = "", **sections: Any) -> tuple[MemoryFit, Memories]:
    config = small_config(**{"data": {"batch_size": BATCH}, **sections})
    costs = costs_of(config, room, heavy)
    memories = Memories(costs)
    constraints = Constraints.of(config, devices=4)
    return MemoryFit(config, costs, constraints, on_gpu=True, memories=memories), memories


def test_the_least_recompute_that_fits_is_taken() -> None:
    four = (StageCut(stage=2, first=1, last=4),)
    for memory, recompute in ((6.5, "none"), (3.5, "units"), (2.7, "views")):
        fit, _ = fit_of(memory)
        assert fit(four) == (replace(four[0], recompute=recompute),), memory


def test_what_the_run_gives_is_kept_unless_it_does_not_fit() -> None:
    four = (StageCut(stage=2, first=1, last=4),)
    for given, memory, recompute in (("units", 6.5, "units"), ("units", 2.7, "views"), ("auto", 6.5, "none")):
        fit, _ = fit_of(memory, memory={"recompute": given})
        assert fit(four) == (replace(four[0], recompute=recompute),), (given, memory)
    fit, _ = fit_of(6.5, stages={2: {"memory": {"recompute": "views"}}})
    assert fit(four) == (replace(four[0], recompute="views"),)


def test_a_head_is_computed_in_the_largest_slices_that_do_where_nothing_else_does() -> None:
    four = (StageCut(stage=2, first=1, last=4),)
    for memory, chunk in ((2.2, 512), (1.6, 256), (1.16, 64)):
        fit, _ = fit_of(memory)
        assert fit(four) == (replace(four[0], recompute="units", chunk=chunk),), memory
    assert fit_of(0.64)[0](four) == (replace(four[0], recompute="views", chunk=64),)
    assert fit_of(0.3)[0](four) is None
    assert fit_of(1.2, head={"kind": "gsp", "projector": [8]})[0](four) is None


def test_replicas_need_less_and_processes_are_asked_for_as_a_whole() -> None:
    fit, memories = fit_of(3.5)
    shared = (StageCut(stage=2, first=1, last=4, replicas=2),)
    assert fit(shared) == shared
    group = (StageCut(stage=3, first=3, last=4), StageCut(stage=4, first=5, last=8))
    memories.asked.clear()
    assert fit(group) == tuple(replace(cut, recompute="units") for cut in group)
    asked = {units for units, _, _ in memories.asked}
    assert asked == {("layer2.0", "layer2.1"), ("layer3.0", "layer3.1", "layer4.0", "layer4.1")}


def test_stages_that_are_alike_are_asked_for_once() -> None:
    fit, memories = fit_of(6.5, model={"backbone": "resnet50", "width": 8, "stem": "cifar"})
    fit((StageCut(stage=2, first=2, last=3),))
    before = len(memories.asked)
    assert fit((StageCut(stage=3, first=2, last=3),)) == (StageCut(stage=3, first=2, last=3),)
    assert len(memories.asked) == before
    fit((StageCut(stage=3, first=3, last=4),))
    assert len(memories.asked) > before


def test_what_cannot_fit_by_the_costs_alone_is_not_asked_for() -> None:
    fit, memories = fit_of(4.0, heavy="layer1.1")
    heavy = (StageCut(stage=2, first=2, last=2),)
    assert fit.optimistic(heavy) is None
    assert fit(heavy) is None
    assert not memories.asked
    many = (StageCut(stage=2, first=3, last=7),)
    assert fit_of(2.7)[0].optimistic(many) == (replace(many[0], recompute="units"),)


def test_the_optimistic_answer_refuses_nothing_that_fits_and_asks_for_no_more() -> None:
    order = ("none", "units", "views")
    for memory in (0.7, 1.2, 2.2, 2.7, 3.5, 6.5, 9.5):
        fit, _ = fit_of(memory)
        for first, last in ((1, 1), (1, 4), (2, 6), (3, 7)):
            cuts = (StageCut(stage=2, first=first, last=last),)
            answer, quick = fit(cuts), fit.optimistic(cuts)
            if answer is not None:
                assert quick is not None
                assert order.index(quick[0].recompute) <= order.index(answer[0].recompute)


def test_where_a_generous_bound_fits_no_account_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    fit, memories = fit_of(6.5)
    assert fit((StageCut(stage=2, first=1, last=4),)) == (StageCut(stage=2, first=1, last=4),)
    assert not memories.asked


def test_a_search_finds_the_plan_that_fits() -> None:
    fit, memories = fit_of(3.5)
    plans = search(fit.costs, fit.constraints, fit, fit.optimistic)
    every = [fit((cut,)) == (cut,) for cut in plans[4].stages]
    assert all(every)
    assert plans[4].bottleneck >= search(fit.costs, fit.constraints, lambda cuts: cuts)[4].bottleneck
    for_all = len(memories.asked)
    few, asked = fit_of(3.5)
    assert search(few.costs, few.constraints, few, few.optimistic, [4]) == {4: plans[4]}
    assert len(asked.asked) < for_all


def test_a_unit_that_is_too_large_is_named_with_what_makes_it_smaller() -> None:
    fit, _ = fit_of(4.0, heavy="layer2.0")
    assert search(fit.costs, replace(fit.constraints, replicas=(1,)), fit, fit.optimistic) == {}
    fit.constraints = replace(fit.constraints, replicas=(1,))
    message = why_nothing_fits(fit, 4)
    assert message.startswith("unit 'layer2.0' alone is too large for a device: stage 2 needs 21.")
    assert "which has 4.85 GiB" in message
    assert "with memory.recompute=views and head.chunk=64" in message
    assert "data.batch_size=" in message


def test_where_every_unit_fits_more_devices_or_stages_are_named() -> None:
    fit, _ = fit_of(3.5)
    assert why_nothing_fits(fit, 2).startswith("no plan for 2 devices fits the memory of one, 4.32 GiB. Give more")


@pytest.mark.processes
@pytest.mark.parametrize("on_gpu", [True, False])
def test_the_account_of_the_product_decides(on_gpu: bool) -> None:
    config = small_config(model={"backbone": "resnet18", "width": 32, "stem": "cifar"}, data={"batch_size": 32})
    cuts = (StageCut(stage=2, first=1, last=6),)

    def work() -> list[str | None]:
        memories, found = ProcessMemories(), []
        costs = replace(costs_of(config, 60.0), batch=32)
        fit = MemoryFit(config, costs, Constraints.of(config, devices=4), on_gpu=on_gpu, memories=memories)
        runs = [fit.run_of((replace(cuts[0], recompute=mode),)) for mode in ("none", "units", "views")]
        needs = [fit.account(run).needs for run in runs if run is not None]
        light = tuple(replace(unit, kept=0) for unit in costs.units)
        for has in (needs[0], needs[1], min(needs) - 1):
            less = replace(costs, units=light, memory=has)
            answer = MemoryFit(config, less, fit.constraints, on_gpu=on_gpu, memories=memories)(cuts)
            found.append(None if answer is None else answer[0].recompute)
        return found

    outcome = run_in_child(work, LIMIT)
    assert outcome.result == ["none", "units", None], outcome
