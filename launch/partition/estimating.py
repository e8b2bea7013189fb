"""What the parts of a network cost on a device that nobody has measured: from operations and bytes, by a roofline.

An operation takes as long as its computing or its memory traffic, whichever is longer, and no less than a call. Where
that is not in proportion to the images, the line through the times of a whole batch and of a fourth says what an image
takes, and what a step of none would. Operations are those of the code as it is written: what `precision.compile` makes
of them, and engines other than PyTorch's, are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from launch.partition.costs import Costs, EndCost, UnitCost
from launch.partition.counted_ends import EndCalls
from launch.partition.counted_units import UnitCalls
from launch.partition.counting import Counted, count
from launch.partition.device_table import SHORT_NAMES, DeviceSpeed, device_speed
from launch.partition.kernel_calls import KernelCalls
from pipeline.config import Config
from pipeline.data.augment.device_photometrics import photometrics_on_device
from pipeline.data.augment.view_kinds import view_kinds
from pipeline.errors import UserError

IMAGE, PIXEL = 0.12e-3, 44e-9
"""Seconds of one core for an image, and for each pixel of the mean of two views. BENCHMARKS.md has 425 images/s for
two views of 224 pixels and 6084 of 32; a line through both is IMAGE + PIXEL * size^2."""
CROPPED, PACKED, PIL = 425 / 671, 425 / 593, 6.3
"""Factors on that: for workers that only crop, for packed data, for views made by PIL; by the same table."""

_Counts = TypeVar("_Counts", UnitCalls, EndCalls)


def estimated_costs(
    config: Config, device: str, *, stages: Sequence[int] | None = None, memory: int | None = None
) -> Costs:
    """What the parts of the network of a run cost; a matter of seconds, and for a process that ends afterwards.

    Args:
        config: of the run; its own cuts and replicas do not matter.
        device: see `device_speed`.
        stages: numbers of the stages that a plan may have, counted from 1; those of the run if not given.
        memory: bytes of one device that programs can use; what the name says if not given.

    Raises:
        UserError: it is not known how fast the device is, or how much memory it has.
        ConfigError: the network cannot be built, or cut as the run says.
        RuntimeError: an operation of the user's own network, or loss, has no fake form.
    """
    speed = known_device(config, device, memory)
    counted = count(config, stages or range(1, config.num_stages + 1), cuda=device != "cpu")
    return costs_of(config, speed, counted)


def known_device(config: Config, device: str, memory: int | None = None) -> DeviceSpeed:
    """The speed and the memory of a device for a run; arguments and errors as `estimated_costs`."""
    speed = device_speed(device, peers=config.link.rings, threads=config.threads)
    if memory is None and speed.memory is None:
        known = ", ".join(SHORT_NAMES)
        raise UserError(f"it is not known how much memory '{device}' has. Give one of: {known}; or measure: --measure")
    return replace(speed, memory=memory or speed.memory)


def costs_of(config: Config, speed: DeviceSpeed, counted: Counted) -> Costs:
    """The costs of what was counted on one device; on another only `speed` differs.

    Args:
        config: of the run.
        speed: of `known_device`.
        counted: on a GPU or on a CPU, as the device is.
    """
    assert speed.memory is not None
    costs = _CostsOfCalls(config, speed, counted)
    by_stage = {stage: costs.units(stage) for stage in counted.units}
    common = next(iter(by_stage.values()))
    return Costs(
        device=speed.name,
        estimated=True,
        batch=config.data.batch_size,
        units=common,
        ends={place: costs.end(*each) for place, each in counted.ends.items()},
        within=speed.within,
        across=speed.across,
        summing=speed.summing,
        feed=feed_seconds(config),
        memory=speed.memory,
        of_stages={stage: units for stage, units in by_stage.items() if units != common},
    )


def feed_seconds(config: Config) -> float:
    """Estimated time of the feed for one image, by all of its workers; one works where there is no other process.

    Reading from a slow disk, or over a network, takes longer.
    """
    data = config.data
    views = view_kinds(data, config.num_views)
    seconds = IMAGE + PIXEL * sum(view.size**2 for view in views) / 2
    if data.augment_backend == "pil":
        seconds *= PIL
    elif photometrics_on_device(data):
        seconds *= CROPPED
    if data.name == "packed":
        seconds *= PACKED
    return seconds / max(data.workers, 1)


class _CostsOfCalls:
    """Turns what was counted into times."""

    def __init__(self, config: Config, speed: DeviceSpeed, counted: Counted) -> None:
        self._config, self._speed, self._counted = config, speed, counted
        self._tf32 = config.precision.tf32

    def units(self, stage: int) -> tuple[UnitCost, ...]:
        """All units, with the settings of a stage."""
        counted = zip(self._counted.names, self._counted.units[stage], strict=True)
        return tuple(self._unit(name, *each) for name, each in counted)

    def _unit(self, name: str, whole: UnitCalls, other: UnitCalls) -> UnitCost:
        images = self._counted.batches[0]
        forward, forward_step = self._line(whole, other, lambda each: each.forward)
        backward, backward_step = self._line(whole, other, lambda each: each.backward)
        first, _ = self._line(whole, other, lambda each: each.first_backward)
        target, target_step = self._line(whole, other, lambda each: each.target)
        return UnitCost(
            unit=name,
            forward=forward,
            backward=backward + target,
            input_gradient=max(backward - first, 0.0),
            step=self._seconds(whole.step) + forward_step + backward_step + target_step,
            parameters=whole.parameters,
            kept=round(whole.kept / images),
            output=whole.output // images,
        )

    def end(self, whole: EndCalls, other: EndCalls) -> EndCost:
        """One end of a stage."""
        forward, forward_step = self._line(whole, other, lambda each: each.forward)
        backward, backward_step = self._line(whole, other, lambda each: each.backward)
        loss, loss_step = self._line(whole, other, lambda each: each.loss)
        return EndCost(
            forward=forward,
            backward=backward,
            step=self._seconds(whole.step) + forward_step + backward_step + loss_step,
            loss=loss,
            parameters=whole.parameters,
            kept=round(whole.kept / self._counted.batches[0]),
        )

    def _line(self, whole: _Counts, other: _Counts, of: Callable[[_Counts], KernelCalls]) -> tuple[float, float]:
        """Seconds for an image, and for a step of none; together, with all images, those of the whole batch."""
        images, others = self._counted.batches
        of_whole, of_other = self._seconds(of(whole)), self._seconds(of(other))
        each = (of_whole - of_other) / (images - others)
        each = min(max(each, 0.0), of_whole / images)
        return each, of_whole - images * each

    def _seconds(self, calls: KernelCalls) -> float:
        return self._speed.seconds(calls, self._tf32)
