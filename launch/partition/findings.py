"""What `onward plan` has found, as records: of each stage, of a setting, and of a plan beside the run as it is.

All times are in seconds and all sizes in bytes. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.config.memory import Recompute
from workers.throughput.records import Limit


@dataclass(frozen=True, kw_only=True)
class StageFindings:
    """One stage.

    Args:
        stage: counted from 1.
        units: of the network that it trains, in order.
        devices: of its replicas, as torch names them, on several hosts with the host's number, `2: cuda:0`.
        recompute: see `memory.recompute`.
        chunk: see `head.chunk`.
        needs: memory of the device of its first replica: for all that is on it, or of a processor for this process.
        has: what there is.
        seconds: computing of one replica for a step.
        end: the part of that which is head, loss and their backward pass.
        busy, wait_input, wait_output, copying: shares of the time of its process.
        carried: what enters it in a step, all replicas together.
    """

    stage: int
    units: tuple[str, ...]
    devices: tuple[str, ...]
    recompute: Recompute
    chunk: int | None
    needs: int
    has: int
    seconds: float
    end: float
    busy: float
    wait_input: float
    wait_output: float
    copying: float
    carried: float


@dataclass(frozen=True, kw_only=True)
class SettingFindings:
    """One configuration on devices that are all alike.

    Args:
        config: of it, as JSON has it.
        devices: that it uses.
        link: kind of its links.
        stages: in order.
        images_per_second: once the pipeline is full.
        bound: images a second that the computing of the slowest stage alone would allow.
        fill: until the last stage has done its first step.
        limit: what bounds it.
        limiting: the name of that stage, of the stage behind that link, or "feed".
        feed: images a second that the feed makes; None where that is not known.
        full: what is needed of each device that does not hold it, in words.
    """

    config: dict[str, Any]
    devices: int
    link: str
    stages: tuple[StageFindings, ...]
    images_per_second: float
    bound: float
    fill: float
    limit: Limit
    limiting: str
    feed: float | None
    full: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether all devices hold it."""
        return not self.full


@dataclass(frozen=True, kw_only=True)
class FedPlan:
    """A plan for a feed that is fast enough.

    Args:
        devices: that it uses.
        images_per_second: that it makes.
    """

    devices: int
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class PlanFindings:
    """A plan.

    Args:
        device: what the times are of.
        estimated: from operations and bytes; otherwise they were measured.
        plan: the best setting.
        now: the run as it is, on as many devices as it has processes.
        more: images a second of the best plan with one device more; None where that cannot be used.
        free: images a second of the best plan with other cuts; None unless the cuts were kept.
        roomy: images a second of the best plan if memory were no matter; None where it is none.
        fed: the best plan if images were always there; None unless the feed is the limit.
        seconds: that the answer took.
    """

    device: str
    estimated: bool
    plan: SettingFindings
    now: SettingFindings
    more: float | None
    free: float | None
    roomy: float | None
    fed: FedPlan | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class WhatIfFindings:
    """Two settings beside each other.

    Args:
        device, estimated: as in `PlanFindings`.
        given, changed: the run as it is, and with the changes.
        seconds: that the answer took.
    """

    device: str
    estimated: bool
    given: SettingFindings
    changed: SettingFindings
    seconds: float
