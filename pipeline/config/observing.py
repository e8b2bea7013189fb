"""`metrics`, `alarms`, `trace`, `trackers`: what is seen of a run while it trains; none of it changes the training."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from pipeline.config.base import NAME_PATTERN, Finite, PositiveFloat, PositiveInt, Probability, Section


class MetricsConfig(Section):
    """What the coordinator serves over HTTP, and the norms that the stages measure for it."""

    enabled: bool = True
    """Whether the coordinator serves anything over HTTP."""
    host: str = "127.0.0.1"
    """Address that it listens on: this machine alone if not given. There is no password, see `deploy/security.md`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """0 takes a free port; the address is printed and kept in `coordinator.json`."""
    page: bool = True
    """The live page at `/`; Prometheus finds its metrics at `/metrics` with and without it."""
    norms_every: Annotated[int, Field(ge=0)] = 10
    """Steps from one measurement of the norms of gradient and update to the next; 0 for never."""


class AlarmsConfig(Section):
    """When the coordinator says that something is wrong. A loss that is not finite is always told."""

    enabled: bool = True
    """False leaves only the alarm for what is not finite."""
    collapse_below: Probability = 0.1
    """Collapse level of a stage's features, 0 to 1 (`evaluation.online`), below which its features have collapsed."""
    starved_above: Probability = 0.5
    """Share of the time that the run waits for images, above which the feed is too slow."""
    bottleneck_above: Annotated[Finite, Field(ge=1.0)] = 2.0
    """Time a stage is busy over the mean of the others, above which it is the bottleneck."""
    silent_seconds: PositiveFloat = 60.0
    """Seconds without a report of a stage, after which it is silent."""
    window_steps: PositiveInt = 20
    """Steps over which shares of time are taken."""


class TraceConfig(Section):
    """A timeline of what every process did, for Perfetto or chrome://tracing; `trace: true` is short for `enabled`."""

    enabled: bool = False
    """Whether every process notes what it does."""
    max_events: PositiveInt = 200_000
    """Of one process; what comes later is counted and not kept."""
    from_step: Annotated[int, Field(ge=0)] = 0
    """The first step that is traced."""


class TrackerConfig(Section):
    """Where the measurements of a run also go; the text `tensorboard` is short for that kind without options."""

    kind: Annotated[str, Field(pattern=rf"^tensorboard$|{NAME_PATTERN}")]
    """`tensorboard`, or a class of yours, `PACKAGE.MODULE:NAME`."""
    options: dict[str, Any] = Field(default={})
    """What the tracker is made with."""


def _as_trace(value: Any) -> Any:
    return {"enabled": value} if isinstance(value, bool) else value


def _as_tracker(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


TraceOrBool = Annotated[TraceConfig, BeforeValidator(_as_trace)]
TrackerOrName = Annotated[TrackerConfig, BeforeValidator(_as_tracker)]
