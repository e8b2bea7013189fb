"""Which devices have a speed, and what is said of those that have none."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import pytest

from launch.partition.costs import LinkCost
from launch.partition.device_table import BANDWIDTHS, SHORT_NAMES, device_speed
from launch.partition.kernel_calls import KernelCall
from launch.plan.gpus import GPUS
from pipeline.errors import UserError
from workers.stage.flops import PEAKS

LARGE = KernelCall(10**13, 10**6, True)
WIDE = KernelCall(0, 10**10, False)


def test_every_gpu_that_can_be_named_has_a_speed_and_its_memory() -> None:
    assert SHORT_NAMES.keys() == GPUS.keys()
    for name in GPUS:
        speed = device_speed(name)
        assert speed.memory == int(GPUS[name] * 2**30)
        assert 0 < speed.full <= speed.tf32 <= speed.half
        assert speed.bandwidth > 0


def test_every_card_with_a_peak_has_a_bandwidth() -> None:
    assert PEAKS.keys() <= BANDWIDTHS.keys()
    assert device_speed("NVIDIA A10").memory is None
    assert device_speed("NVIDIA H200").half == device_speed("h200").half == device_speed("4xH200").half


def test_an_operation_takes_what_bounds_it() -> None:
    speed = device_speed("h100")
    assert speed.seconds(Counter({LARGE: 2}), tf32=False) == 2 * LARGE.flops / speed.half
    assert speed.seconds(Counter({WIDE: 1}), tf32=False) == WIDE.bytes / speed.bandwidth
    assert speed.seconds(Counter({KernelCall(1, 1, False): 3}), tf32=False) == pytest.approx(3 * speed.call)
    single = LARGE._replace(half=False)
    assert speed.seconds(Counter({single: 1}), tf32=True) == single.flops / speed.tf32
    assert speed.seconds(Counter({single: 1}), tf32=False) == single.flops / speed.full


@pytest.mark.parametrize(("slower", "faster"), [("l4", "a100-40"), ("a100-40", "a100-80"), ("a100-80", "h100")])
def test_a_faster_device_is_faster(slower: str, faster: str) -> None:
    calls = Counter({LARGE: 1, WIDE: 1})
    assert device_speed(faster).seconds(calls, tf32=False) < device_speed(slower).seconds(calls, tf32=False)


def test_cards_that_do_not_reach_each_other_send_through_the_host() -> None:
    for link in (device_speed("rtx4090").within, device_speed("h100", peers=False).within):
        assert link.receiving == link.sending > device_speed("h100").within.sending
    assert device_speed("h100").within.receiving == 0.0


def test_a_core_has_a_speed_too() -> None:
    core = device_speed("cpu")
    assert 0 < core.full < device_speed("l4").full
    assert core.memory
    assert device_speed("cpu", threads=2).full == 2 * core.full
    assert all(getattr(core.across, field.name) >= 0 for field in fields(LinkCost))


def test_a_size_says_nothing_of_speed() -> None:
    with pytest.raises(UserError, match=r"'24GiB' says how much memory a GPU has.*h100.*--measure"):
        device_speed("24GiB")


@pytest.mark.parametrize("name", ["abacus", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 MIG 1g.10gb"])
def test_the_known_devices_are_named(name: str) -> None:
    with pytest.raises(UserError, match=r"it is not known how fast .*h100, h200, .*cpu.*--measure"):
        device_speed(name)
