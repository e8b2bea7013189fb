"""What was measured is kept by machine, version and run, and measured again where that is not sure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest

from launch.partition import cost_cache, measuring
from launch.partition.cost_cache import from_message, to_message
from launch.partition.costs import Costs, EndCost, LinkCost, UnitCost
from launch.partition.measuring import measured_costs
from launch.partition.measuring_feed import measured_feed
from pipeline.config import Config
from pipeline.errors import UserError
from tests.launch.partition.small_runs import small_run

LINK = LinkCost(sending=1e-9, receiving=0.0, message=1e-4, bandwidth=inf, latency=1e-5)
END = EndCost(forward=0.25, backward=0.5, step=1.0, loss=0.125, parameters=4, kept=8)


def costs_of(names: list[str], seconds: float) -> Costs:
    units = tuple(
        UnitCost(
            unit=name, forward=seconds, backward=2.0, input_gradient=1.0, step=0.1, parameters=16, kept=32, output=64
        )
        for name in names
    )
    places = [(stage, last) for stage in range(1, len(names) + 1) for last in range(stage - 1, len(names))]
    return Costs(
        device="cpu", estimated=False, batch=8, units=units, ends=dict.fromkeys(places, END), within=LINK,
        across=LINK, summing=1e-9, feed=1e-4, memory=2**30,
        of_stages={2: tuple(replace(unit, step=0.3) for unit in units)},
    )  # fmt: skip


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Takes the place of measuring; how long each unit took, every time that something was measured."""
    measured: list[float] = []

    def measure(config: Config, finest: Config, *_: object) -> Costs:
        measured.append(float(len(measured) + 1))
        return costs_of(finest.model.units(), measured[-1])

    monkeypatch.setattr(measuring, "_measured", measure)
    return measured


def test_the_second_time_nothing_is_measured(times: list[float], tmp_path: Path) -> None:
    first, second = (measured_costs(small_run(), cache=tmp_path) for _ in range(2))
    assert times == [1.0]
    assert first == second
    assert measured_costs(small_run(), cache=tmp_path, fresh=True).units[0].forward == 2.0
    assert measured_costs(small_run(), cache=tmp_path).units[0].forward == 2.0, "and that is kept in its place"


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"model": {"cuts": ["layer1.0"]}}, False),
        ({"train": {"epochs": 7}}, False),
        ({"mode": "sequential"}, False),
        ({"model": {"width": 16}}, True),
        ({"data": {"batch_size": 16}}, True),
        ({"threads": 2}, True),
        ({"stages": {2: {"head": {"width": 32}}}}, True),
        ({"link": {"checksum": False}}, True),
    ],
)
def test_what_times_depend_on_is_measured_for_itself(
    times: list[float], tmp_path: Path, changes: dict[str, Any], again: bool
) -> None:
    measured_costs(small_run(), cache=tmp_path)
    measured_costs(small_run(**changes), cache=tmp_path)
    assert len(times) == 1 + again


@pytest.mark.parametrize(
    "facts",
    [
        ("machine_facts", lambda device: {"processor": "another"}),
        ("usable_cores", lambda: 1000),
        ("_digest_of_sources", lambda: "another version"),
    ],
)
def test_another_machine_or_version_measures_for_itself(
    times: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: tuple[str, Callable[..., object]]
) -> None:
    measured_costs(small_run(), cache=tmp_path)
    monkeypatch.setattr(cost_cache, *facts)
    measured_costs(small_run(), cache=tmp_path)
    assert len(times) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"ends": [[1, 2]]}',
        b"[" * 100_000,
        json.dumps(to_message(costs_of(["another"], 1.0))).encode(),
    ],
)
def test_a_damaged_file_is_measured_again(times: list[float], tmp_path: Path, content: bytes) -> None:
    measured_costs(small_run(), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert measured_costs(small_run(), cache=tmp_path).units[0].forward == 2.0
    assert measured_costs(small_run(), cache=tmp_path).units[0].forward == 2.0, "and the file is whole again"


def test_a_folder_that_others_may_write_to_keeps_nothing(times: list[float], tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for _ in range(2):
        measured_costs(small_run(), cache=tmp_path)
    assert len(times) == 2
    assert not list(tmp_path.iterdir())


def test_what_code_of_the_users_own_costs_is_not_kept(times: list[float], tmp_path: Path) -> None:
    model = {"backbone": "torchvision.models:squeezenet1_1", "output": "features", "width": None, "stem": None}
    for _ in range(2):
        measured_costs(small_run(data={"image_size": 32}, model=model), cache=tmp_path)
    assert len(times) == 2


def test_stages_choose_among_what_is_kept(times: list[float], tmp_path: Path) -> None:
    every = measured_costs(small_run(), cache=tmp_path)
    assert {stage for stage, _ in every.ends} == set(range(1, 10))
    assert every.of_stages.keys() == {2}
    some = measured_costs(small_run(), cache=tmp_path, stages=[2, 4])
    assert {stage for stage, _ in some.ends} == {2, 4}
    assert (some.units_of(2), some.units_of(4)) == (every.units_of(2), every.units_of(4))
    assert measured_costs(small_run(), cache=tmp_path, across=replace(LINK, bandwidth=5.0)).across.bandwidth == 5.0
    assert len(times) == 1


def test_costs_are_the_same_after_they_were_written() -> None:
    costs = costs_of(["a", "b", "c"], 0.1)
    assert from_message(json.loads(json.dumps(to_message(costs)))) == costs


def test_no_gpu_to_measure_on_is_said() -> None:
    with pytest.raises(UserError, match=r"device is 'cuda'.*has no GPU to measure on.*--gpu"):
        measured_costs(small_run(device="cuda"))


def test_the_feed_is_timed_by_the_batches_after_the_first() -> None:
    ticks = iter(range(100))
    assert measured_feed(small_run(), 0.0, lambda: float(next(ticks))) == 2 / 8, "one batch, and two readings since"


def test_a_feed_without_images_says_what_to_do(tmp_path: Path) -> None:
    config = small_run(data={"name": "image_folder", "root": str(tmp_path / "nowhere")})
    with pytest.raises(UserError, match=r"the feed cannot be measured: .*nowhere.*plan without --measure"):
        measured_feed(config, 0.0)
