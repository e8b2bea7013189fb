"""Estimated costs: of every preset, in the right order for devices and precisions, for every stage its own."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from launch.partition.costs import Costs, StageCut, StageSeconds, seconds_of
from launch.partition.counting import count
from launch.partition.estimating import costs_of, estimated_costs, feed_seconds, known_device
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.validation.loading import load_config
from tests.documents import PRESETS
from tests.launch.partition.counting_cases import ADAM, VIT
from tests.launch.partition.in_child import in_child
from tests.launch.test_configs import shrunk
from tests.marks import slow
from tests.pipeline.small import small_config

MEMORY = 2**33


def stages_of(config: Config, costs: Costs) -> list[StageSeconds]:
    """The times of the stages of a run."""
    names = [unit.unit for unit in costs.units]
    ends = [names.index(block[-1]) for block in config.model.blocks()]
    starts = [0, *(end + 1 for end in ends[:-1])]
    cuts = [
        StageCut(stage=k, first=first, last=last) for k, (first, last) in enumerate(zip(starts, ends, strict=True), 1)
    ]
    return [seconds_of(costs, cut) for cut in cuts]


def times_of_a_preset(path: str) -> list[float]:
    config = load_config(Path(path), shrunk(load_config(Path(path))))
    costs = estimated_costs(config, "h100")
    assert costs.estimated
    assert costs.batch == config.data.batch_size
    assert costs.feed > 0
    numbers = [number for unit in costs.units for number in list(asdict(unit).values())[1:]]
    numbers += [number for end in costs.ends.values() for number in asdict(end).values()]
    assert min(numbers) >= 0
    return [time for stage in stages_of(config, costs) for time in (stage.forward, stage.update)]


@pytest.mark.processes
@pytest.mark.parametrize(
    "path", [slow(path) if "imagenet" in path.name else path for path in PRESETS], ids=[path.name for path in PRESETS]
)
def test_every_stage_of_every_preset_has_a_time(path: Path) -> None:
    times = in_child(times_of_a_preset, str(path))
    assert min(times[1::2]) > 0
    assert min(times) >= 0


SMALL: dict[str, Any] = {"model": {**VIT, "cuts": ["encoder.layers.encoder_layer_1"]}, "optimizer": ADAM}
WIDE: dict[str, Any] = {
    "model": {**SMALL["model"], "hidden_dim": 1024, "mlp_dim": 4096, "num_heads": 8},
    "optimizer": ADAM,
    "data": {"batch_size": 512, "image_size": 64},
}


def times_on_devices() -> dict[str, list[float]]:
    """Of both stages of one run, by device."""
    half = small_config(**WIDE, precision={"dtype": "bf16"})
    single = small_config(**WIDE)
    exact = single.model_copy(update={"precision": single.precision.model_copy(update={"tf32": True})})
    on_gpu, in_full = (count(config, [1, 2], cuda=True) for config in (half, single))
    runs = {name: (half, on_gpu, name) for name in ("l4", "a100-40", "a100-80", "h100", "h200")}
    runs |= {"h100 in fp32": (single, in_full, "h100"), "h100 in TF32": (exact, in_full, "h100")}
    runs |= {"cpu": (single, in_full, "cpu")}
    return {
        key: [stage.compute for stage in stages_of(config, costs_of(config, known_device(config, name), counted))]
        for key, (config, counted, name) in runs.items()
    }


@pytest.mark.processes
def test_a_run_is_faster_on_faster_devices_and_in_fewer_bits() -> None:
    times = in_child(times_on_devices)
    for order in (
        ["l4", "a100-40", "a100-80", "h100", "h200"],
        ["cpu", "h100 in fp32", "h100 in TF32", "h100"],
    ):
        for slower, faster in pairwise(order):
            assert all(less < more for less, more in zip(times[faster], times[slower], strict=True)), (slower, faster)


def halves() -> list[float]:
    """Seconds of a stage for a step of 512 images, and of one of 256."""
    configs = (small_config(**{**WIDE, "data": {"batch_size": images, "image_size": 64}}) for images in (512, 256))
    cut = StageCut(stage=1, first=0, last=2)
    return [seconds_of(estimated_costs(config, "h100"), cut).compute for config in configs]


@pytest.mark.processes
def test_half_the_images_take_more_than_half_the_time() -> None:
    """What does not depend on their number remains."""
    whole, half = in_child(halves)
    assert whole / 2 < half < whole


def both_sums() -> list[float]:
    """Seconds of a step of stage 1: from the costs, and of all its calls one after the other."""
    config = small_config(**SMALL)
    speed, counted = known_device(config, "l4"), count(config, [1], cuda=True)
    stage = seconds_of(costs_of(config, speed, counted), StageCut(stage=1, first=0, last=2))
    units, end = [each[0] for each in counted.units[1][:3]], counted.ends[1, 2][0]
    calls = [each for unit in units for each in (unit.forward, unit.backward, unit.step)]
    calls += [end.forward, end.backward, end.loss, end.step]
    return [stage.compute, sum(speed.seconds(each, tf32=False) for each in calls)]


@pytest.mark.processes
def test_a_step_of_the_whole_batch_takes_what_its_calls_take() -> None:
    from_costs, from_calls = in_child(both_sums)
    assert from_costs == pytest.approx(from_calls)


PUBLISHED = {("a100-80", "bf16"): 2470, ("a100-80", "fp32"): 938, ("Tesla V100", "bf16"): 1178}
"""Images a second of ResNet-50, with TF32 in fp32; see `device_table`."""


def of_published() -> list[float]:
    shares = []
    for (device, dtype), published in PUBLISHED.items():
        config = small_config(
            model={"backbone": "resnet50", "cuts": []},
            data={"batch_size": 128, "image_size": 224},
            precision={"dtype": dtype, "tf32": dtype == "fp32"},
        )
        counted = count(config, [1], cuda=True)
        costs = costs_of(config, known_device(config, device, MEMORY), counted)
        step = sum(costs.batch * (unit.forward + unit.backward) + unit.step for unit in costs.units)
        shares.append(2 * costs.batch / step / published)
    return shares


@pytest.mark.slow
@pytest.mark.processes
def test_estimates_are_of_the_size_of_what_the_maker_publishes() -> None:
    shares = in_child(of_published)
    assert all(2 / 3 < share < 3 / 2 for share in shares), shares


def own_settings() -> dict[str, Any]:
    stages = {2: {"precision": {"dtype": "bf16"}, "head": {"projector": [64, 64]}}}
    costs = estimated_costs(small_config(**SMALL, stages=stages), "l4", stages=[1, 2, 3])
    return {
        "others": sorted(costs.of_stages),
        "half": costs.units_of(2)[3].output / costs.units_of(1)[3].output,
        "same": costs.units_of(3) == costs.units,
        "head": costs.ends[2, 3].parameters > costs.ends[3, 3].parameters == costs.ends[1, 3].parameters,
    }


@pytest.mark.processes
def test_stages_with_settings_of_their_own_have_units_of_their_own() -> None:
    assert in_child(own_settings) == {"others": [2], "half": 0.5, "same": True, "head": True}


def test_workers_share_the_images() -> None:
    alone, four = (feed_seconds(small_config(data={"workers": workers})) for workers in (0, 4))
    assert alone == feed_seconds(small_config(data={"workers": 1})) == 4 * four


def test_larger_views_and_those_of_pil_take_longer() -> None:
    small, large = (feed_seconds(small_config(data={"image_size": size})) for size in (32, 224))
    assert small < large
    assert small < feed_seconds(small_config(data={"image_size": 32, "augment_backend": "pil"}))
    assert large > feed_seconds(small_config(data={"image_size": 224, "augment_on": "device"}))


def test_the_figures_of_the_feed_are_those_of_the_benchmarks() -> None:
    for size, rate in ((224, 425), (32, 6084)):
        assert feed_seconds(small_config(data={"image_size": size})) == pytest.approx(1 / rate, rel=0.1)


def test_a_card_whose_memory_nobody_says_is_refused_before_anything_is_counted() -> None:
    with pytest.raises(UserError, match="how much memory 'NVIDIA A10' has"):
        estimated_costs(small_config(), "NVIDIA A10")
    with pytest.raises(UserError, match="says how much memory"):
        estimated_costs(small_config(), "24GiB")
