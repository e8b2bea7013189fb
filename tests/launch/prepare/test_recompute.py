"""The cheapest way to compute again with which every stage fits its device, for accounts that are made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from launch.prepare.recompute import DevicePeak, resolve_recompute
from pipeline.config import Config
from pipeline.validation.loading import parse_config

NEEDS = {"none": 80, "units": 30, "views": 20}
"""Bytes of a stage beside 10 for each stage on its device."""


def account(config: Config) -> Sequence[DevicePeak]:
    """Stage 1 has a device, needs twice as much and shares with nobody; the others share one."""
    peaks = {k: NEEDS[config.stage(k).memory.recompute] for k in range(1, config.num_stages + 1)}
    greedy = max((k for k in peaks if k > 1), key=lambda k: peaks[k])
    return DevicePeak("a", 10 + 2 * peaks[1], 1), DevicePeak("b", 10 * (len(peaks) - 1) + peaks[greedy], greedy)


def chosen(config: Config) -> list[str]:
    return [config.stage(k).memory.recompute for k in range(1, config.num_stages + 1)]


def config(**sections: Any) -> Config:
    return parse_config({"data": {"batch_size": 64}, **sections})


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((170, 110), ["none"] * 4),
        ((169, 110), ["units", "none", "none", "none"]),
        ((70, 109), ["units", "units", "units", "units"]),
        ((69, 60), ["views", "units", "units", "units"]),
        ((1, 1), ["views"] * 4),
    ],
)
def test_each_stage_takes_the_cheapest_that_fits(sizes: tuple[int, int], expected: list[str]) -> None:
    """What cannot fit is left as thrifty as it can be, for whoever refuses it."""
    resolved = resolve_recompute(config(), range(1, 5), dict(zip("ab", sizes, strict=True)), account)
    assert chosen(resolved) == expected


def test_a_stage_that_was_given_a_value_keeps_it() -> None:
    given = config(stages={1: {"memory": {"recompute": "views"}}})
    assert chosen(resolve_recompute(given, (2, 3, 4), {"a": 1, "b": 60}, account)) == ["views"] + ["units"] * 3


def test_only_what_validation_lets_through_is_chosen() -> None:
    deepspeed = config(engine={"kind": "deepspeed"}, optimizer={"kind": "adamw"})
    assert chosen(resolve_recompute(deepspeed, range(1, 5), {"a": 1, "b": 1}, account)) == ["units"] * 4
    whole = config(mode="end_to_end")
    assert chosen(resolve_recompute(whole, range(1, 5), {"a": 169, "b": 999}, account)) == ["units"] * 4
    assert chosen(resolve_recompute(whole, (2, 3, 4), {"a": 1, "b": 1}, account)) == ["none"] + ["units"] * 3


def test_stages_that_share_a_device_all_save_and_none_takes_more() -> None:
    """Where two views are computed one by one, one of them may keep more than the inputs of all units."""
    needs = {"none": 80, "units": 30, "views": 40}

    def together(config: Config) -> Sequence[DevicePeak]:
        peaks = {k: needs[config.stage(k).memory.recompute] for k in range(1, 5)}
        first, *others = sorted(peaks, key=lambda k: -peaks[k])
        return [DevicePeak("a", sum(peaks.values()), first, tuple(others))]

    assert chosen(resolve_recompute(config(), range(1, 5), {"a": 1}, together)) == ["units"] * 4
    assert chosen(resolve_recompute(config(), range(1, 5), {"a": 230}, together)) == ["units", "units", "none", "none"]
