"""Sums for devices, and what would make a run fit them, for processes whose memory is made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from launch.plan.account import ProcessAccount, StageAccount
from launch.plan.devices import CUBLAS, CUDA_CONTEXT, DeviceAccount, device_accounts
from launch.plan.fitting import place_on
from launch.plan.gpus import Gpu
from launch.plan.remedies import Devices, SearchEnded, remedies
from launch.prepare.placement import place
from pipeline.config import Config
from pipeline.validation.loading import parse_config

GIB = 2**30
SHARE = {"none": 1.0, "units": 0.3, "views": 0.5}


def memory(config: Config, stages: tuple[int, ...], on_gpu: bool) -> ProcessAccount:
    """A GiB for the weights of each stage; for 1024 images 40 GiB at stage 1, half as much at the next, and so on.

    Of these the head is a quarter, less in slices.
    """
    held, largest, peak = len(stages) * GIB, 0.0, stages[0]
    for index in stages:
        stage = config.stage(index)
        images = config.data.batch_size / stage.replicas / 1024
        chunk = getattr(stage.head, "chunk", None)
        head = 0.25 * (1 if chunk is None else chunk * stage.replicas / config.data.batch_size)
        need = 80 * 2**-index * images * (0.75 * SHARE[stage.memory.recompute] + head)
        largest, peak = (need, index) if need > largest else (largest, peak)
    empty = [StageAccount(stage=k, parameters=0, optimizer=0, gradients=0, kept=0, snapshot=0) for k in stages]
    return ProcessAccount(tuple(empty), 0, 0, held + int(largest * GIB), f"loss of stage {peak}")


def run(**sections: Any) -> Config:
    """With `link.device_to_device` decided, as `remedies` gets it; test_links.py looks at rings."""
    values = {
        "link": {"device_to_device": False},
        "data": {"batch_size": 1024, "drop_last": True, "image_size": 32},
        "model": {"backbone": "resnet18"},
    }
    return parse_config({**values, **sections})


def devices(config: Config, gpus: int, gib: float) -> Devices:
    placements = place(config, gpus)
    names = {name for placement in placements for name in placement.devices}
    return Devices(placements, dict.fromkeys(names, int(gib * GIB)), memory)


def test_processes_on_one_device_are_added_up() -> None:
    config = run()
    alone = devices(config, 4, 99).accounts(config)
    shared = devices(config, 2, 99).accounts(config)
    assert [account.processes for account in shared] == [("stage 1", "stage 2"), ("stage 3", "stage 4")]
    assert [account.stage for account in (*alone, *shared)] == [1, 2, 3, 4, 1, 3]
    for both, pair in zip(shared, (alone[:2], alone[2:]), strict=True):
        named = [{term.name: term.bytes for term in account.terms} for account in (both, *pair)]
        for name in ("tensors", "CUDA", "cuBLAS", "cuDNN"):
            assert named[0][name] == named[1][name] + named[2][name]
        assert (named[0]["CUDA"], named[0]["cuBLAS"]) == (2 * CUDA_CONTEXT, 2 * CUBLAS)
    assert DeviceAccount.from_message(json.loads(json.dumps(shared[0].to_message()))) == shared[0]


def test_only_on_the_cpu_are_the_bytes_of_tensors_exact() -> None:
    config = run()
    on_cpu, on_gpu = (devices(config, gpus, 99).accounts(config)[0] for gpus in (0, 4))
    assert {term.name for term in on_cpu.terms if not term.estimated} == {"tensors", "batches"}
    assert all(term.estimated for term in on_gpu.terms)
    assert len(on_cpu.processes) == 4


def test_a_gpu_that_is_not_here_can_be_asked_about() -> None:
    config = run(stages={2: {"device": "cuda:6"}}, device="cuda")
    assert [p.device for p in place_on(config, Gpu("l4", GIB))] == ["cuda:0", "cuda:6", "cuda:2", "cuda:3"]
    assert {p.device for p in place_on(run(), Gpu("l4", GIB, 1))} == {"cuda:0"}


def found(config: Config, gpus: int, gib: float, resumed: bool = False) -> list[str]:
    there = devices(config, gpus, gib)
    changes = remedies(config, there, resumed, impatient=lambda: False)
    for change in changes:  # each of them does
        keys, on_more, _ = change.partition(" on ")
        changed = overridden(config, keys.partition(" (")[0].split())
        assert devices(changed, 99 if on_more else gpus, gib).fit(changed), change
    return changes


def overridden(config: Config, keys: Sequence[str]) -> Config:
    values = config.model_dump(mode="json")
    for key in keys:
        path, value = key.split("=")
        section = values
        *above, last = path.split(".")
        for name in above:
            section = section.setdefault(name, {})
        section[last] = int(value) if value.isdigit() else value == "true" or value
    return parse_config(values)


@pytest.mark.parametrize(
    ("gib", "first"),
    [
        (30, "stages.1.memory.recompute=units ("),
        (16, "stages.1.memory.recompute=units stages.2.memory.recompute=units stages.1.head.chunk=256 ("),
        (5, "stages.1.replicas=16 stages.2.replicas=8 stages.3.replicas=4 stages.4.replicas=2 on 30 GPUs"),
    ],
)
def test_the_cheapest_change_that_does_comes_first(gib: float, first: str) -> None:
    changes = found(run(), 4, gib)
    assert changes[0].startswith(first)
    assert ("recompute=units" in changes[-1]) == (gib == 5)  # with the batch, where nothing else saves
    assert "data.batch_size=" in changes[-1]


def test_a_larger_change_would_not_do() -> None:
    slices = overridden(run(), ["stages.1.memory.recompute=units", "stages.1.head.chunk=256"])
    assert not devices(slices, 4, 16).fit(slices)
    (batch,) = [change.split()[0] for change in found(run(), 4, 30) if "batch_size" in change]
    more = int(batch.split("=")[1]) * 17 // 16
    assert not devices(run(), 4, 30).fit(overridden(run(), [f"data.batch_size={more}"]))


def test_where_stages_share_a_device_all_their_heads_are_sliced() -> None:
    (batch, *_), (slices, *_) = (found(run(), 0, gib) for gib in (14, 20))
    assert "data.batch_size" in batch
    assert [f"stages.{k}.head.chunk" in slices for k in range(1, 5)] == [True] * 4


def test_fewest_replicas_are_named_with_the_gpus_that_they_take() -> None:
    changes = found(run(data={"batch_size": 1024, "drop_last": False}, model={"backbone": "resnet18"}), 4, 15)
    assert "stages.1.replicas=4 stages.2.replicas=2 data.drop_last=true on 8 GPUs" in changes
    assert not any("replicas" in change for change in found(run(), 0, 40))  # they would share the memory


def test_of_a_run_that_goes_on_the_numbers_stay() -> None:
    assert not any("batch" in change or "chunk" in change for change in found(run(), 4, 16, resumed=True))


def test_where_nothing_else_does_a_batch_does_with_all_that_saves() -> None:
    (batch,) = found(run(runtime="serial"), 1, 6)
    assert "units" in batch
    assert "batch_size" in batch
    assert found(run(), 4, 1) == []  # less than the weights


@pytest.mark.parametrize(("gpus", "gib", "most"), [(4, 16, 20), (4, 5, 28), (0, 20, 44)])
def test_a_search_makes_few_accounts(gpus: int, gib: float, most: int) -> None:
    """Of each process once, the fullest device first, and none where a bound says that it cannot fit."""
    asked: set[tuple[object, ...]] = set()

    def counted(config: Config, stages: tuple[int, ...], on_gpu: bool) -> ProcessAccount:
        own = tuple(config.stage(index).model_dump_json(exclude={"device"}) for index in stages)
        asked.add((own, config.data.batch_size))
        return memory(config, stages, on_gpu)

    config = run()
    assert remedies(config, replace(devices(config, gpus, gib), memory=counted), False, impatient=lambda: False)
    assert 0 < len(asked) <= most


@pytest.mark.long
def test_when_time_is_up_what_was_found_is_named_and_no_further_account_is_made() -> None:
    config = run()
    there, every = devices(config, 4, 30), found(config, 4, 30)
    asked = 0

    def impatient() -> bool:
        nonlocal asked
        asked += 1
        return asked > patience

    ended = set()
    for patience in range(0, 400, 5):
        asked = 0
        try:
            named = remedies(config, there, False, impatient)
        except SearchEnded:
            named = []
        assert named == every[: len(named)]
        assert asked <= patience + 1
        ended.add(len(named))
    assert ended == set(range(len(every) + 1))


def test_where_it_fits_nothing_is_to_be_done() -> None:
    assert found(run(), 4, 99) == []
    config = run()
    assert device_accounts(config, place(config, 4), {}, memory) == ()
