"""The measurements that a stage sends to the coordinator after every step, as a JSON object."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from pipeline.measures.online import Measure
from pipeline.stage.digests import DigestName
from pipeline.stage.report import StageReport, finite_or_none
from workers.control.feed_report import FeedMeasures
from workers.control.shares import Share
from workers.control.validation import Count, Finite, Index, MalformedMessage, Seconds, read_message

Operations = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
"""Floating-point operations; a number that grows beyond all whole ones that JSON readers hold."""
ThrottleReason = Literal["power_cap", "hw_slowdown", "sw_thermal", "hw_thermal", "power_brake"]
"""What makes a GPU run slower than it could: its power cap, a slowdown that its board asks for, heat that the driver
or the hardware has noticed, and a power brake from outside."""
DigestText = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class MemoryInUse(NamedTuple):
    """Memory of a process, in bytes; None for what it has not or what cannot be known.

    Args:
        memory_bytes: resident.
        cuda_bytes: that PyTorch's allocator holds on the GPU.
        cuda_peak_bytes: the most that tensors took of it at once, so far.
        alloc_retries: how often the allocator had to give back what it had cached to find room, so far.
    """

    memory_bytes: int | None = None
    cuda_bytes: int | None = None
    cuda_peak_bytes: int | None = None
    alloc_retries: int = 0


@dataclass(frozen=True)
class StepReport:
    """One step of one stage; all times are totals since the first batch, in seconds.

    Args:
        stage: counted from 1.
        step: counted from 0.
        loss, terms, learning_rate: see `StageReport`; None stands for a number that is not finite, which JSON lacks.
        skipped: steps skipped so far because a loss or gradient was not finite.
        frozen: the stage keeps its weights.
        busy: time in forward, loss, backward and optimizer, and in the codec of a link.
        wait_input: time spent waiting for the previous stage, or for images.
        wait_output: time spent waiting for room in the link to the next stage.
        copying: time spent copying batches from and to the links, and between host and GPU.
        queue_depth: batches waiting at the input.
        link_bytes: bytes sent to the next stage so far.
        feed: statistics of the feed of the first stage, where it has its own.
        online: online evaluation at this step, see `OnlineMeasures.measure`; None for a number that is not finite.
        gradient_norm, update_norm: see `StepNorms`; None at a step that did not measure them.
        memory_bytes, cuda_bytes, cuda_peak_bytes, alloc_retries: see `ProcessMemory`; stages that share a process all
            report the whole process.
        flops: floating-point operations so far, also of what is computed again; 0 where they are not counted.
        peak_flops: that its device can do in a second, in its precision; None where that is not known.
        digests: of this step, see `pipeline.stage.digests`; empty at a step that is not recorded.
        throttled: what slows its GPU down; None where that is not known, and for all but the first stage of a process.
    """

    stage: Index
    step: Count
    _: KW_ONLY
    loss: Finite | None
    terms: dict[str, Finite | None]
    learning_rate: Finite
    skipped: Count
    frozen: bool = False
    busy: Seconds
    wait_input: Seconds
    wait_output: Seconds
    copying: Seconds = 0.0
    queue_depth: Count
    link_bytes: Count
    feed: FeedMeasures | None = None
    online: dict[Measure, Finite | None] = field(default_factory=dict)
    gradient_norm: Finite | None = None
    update_norm: Finite | None = None
    memory_bytes: Count | None = None
    cuda_bytes: Count | None = None
    cuda_peak_bytes: Count | None = None
    alloc_retries: Count = 0
    flops: Operations = 0.0
    peak_flops: Finite | None = None
    throttled: list[ThrottleReason] | None = None
    digests: dict[DigestName, DigestText] = field(default_factory=dict)

    def to_message(self) -> dict[str, Any]:
        """As it is sent over the control channel."""
        # `asdict` copies every value deeply, which takes longer than all else about a report.
        return {"type": "report", **vars(self), "feed": None if self.feed is None else asdict(self.feed)}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> StepReport:
        """The inverse of `to_message`; raises `MalformedMessage`."""
        return read_message(cls, message)

    @classmethod
    def from_process(cls, message: dict[str, Any], stages: Collection[int]) -> StepReport:
        """As `from_message`, for a process that trains `stages`; raises `MalformedMessage` for any other stage."""
        report = cls.from_message(message)
        if report.stage not in stages:
            raise MalformedMessage(f"a report of stage {report.stage}, which it does not train")
        return report


@dataclass(kw_only=True)
class StageTimes:
    """Time of a stage by activity, in seconds, its floating-point operations, and steps that it has skipped."""

    busy: float = 0.0
    wait_input: float = 0.0
    wait_output: float = 0.0
    copying: float = 0.0
    flops: float = 0.0
    skipped: int = 0

    def add(self, share: Share, seconds: float) -> None:
        """Add `seconds` that were spent on `share`."""
        setattr(self, share, getattr(self, share) + seconds)

    def report(
        self,
        stage: int,
        step: int,
        result: StageReport,
        queue_depth: int,
        link_bytes: int,
        online: Mapping[Measure, float] | None = None,
        memory: MemoryInUse | None = None,
        peak_flops: float | None = None,
        throttled: list[ThrottleReason] | None = None,
    ) -> StepReport:
        """The report of one step; `memory` as returned by `ProcessMemory.measure`."""
        self.skipped += result.skipped
        terms = {name: finite_or_none(value) for name, value in result.terms.items()}
        return StepReport(
            stage, step, frozen=result.frozen, loss=finite_or_none(result.loss), terms=terms,
            learning_rate=result.learning_rate, **vars(self), queue_depth=queue_depth, link_bytes=link_bytes,
            online={name: finite_or_none(value) for name, value in (online or {}).items()},
            gradient_norm=result.gradient_norm, update_norm=result.update_norm,
            peak_flops=peak_flops, throttled=throttled, digests=result.digests, **(memory._asdict() if memory else {}),
        )  # fmt: skip
