"""`metrics`, `alarms`, `trace`, `trackers`: monitoring of a run; none of it changes the training."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from pipeline.config.base import NAME_PATTERN, Finite, PositiveFloat, PositiveInt, Probability, Section


class MetricsConfig(Section):
    """The coordinator's HTTP server, the file of the steps, and the norms that the stages measure."""

    enabled: bool = True
    """Whether the coordinator serves anything over HTTP."""
    host: str = "127.0.0.1"
    """Address to listen on; only this machine can connect if not given. There is no password, see
    `deploy/security.md`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """0 takes a free port; the address is printed and written to `coordinator.json`."""
    page: bool = True
    """Serve the live page at `/`; Prometheus metrics are at `/metrics` in any case."""
    every: PositiveInt = 1
    """Steps of a line of `metrics.jsonl`; each has their sums, last values and largest losses. The page, Prometheus,
    the trackers and the alarms get every step in any case."""
    norms_every: Annotated[int, Field(ge=0)] = 10
    """Steps from one measurement of the norms of gradient and update to the next; 0 for never."""


class AlarmsConfig(Section):
    """Thresholds of the alarms. Those for values that are not finite and for repeated steps are always on."""

    enabled: bool = True
    """False switches all alarms off but `nonfinite` and `mismatch`."""
    collapse_below: Probability = 0.1
    """Collapse level of a stage's features, 0 to 1 (`evaluation.online`), below which they count as collapsed."""
    starved_above: Probability = 0.5
    """Share of the time that the run is idle, waiting for images, above which the data loader is too slow."""
    bottleneck_above: Annotated[Finite, Field(ge=1.0)] = 2.0
    """Busy time of a stage over the mean of the others that learn, above which it is the bottleneck."""
    silent_seconds: PositiveFloat = 60.0
    """Seconds without a step report from a stage, after which it counts as silent."""
    window_steps: PositiveInt = 20
    """Steps over which shares of time are averaged."""


class TraceConfig(Section):
    """A timeline of all processes, for Perfetto or chrome://tracing; `trace: true` is short for `enabled`."""

    enabled: bool = False
    """Whether processes record trace events."""
    max_events: PositiveInt = 200_000
    """Largest number of events per process; later ones are only counted."""
    from_step: Annotated[int, Field(ge=0)] = 0
    """The first step that is traced, counted from 0."""


class TrackerConfig(Section):
    """An experiment tracker that receives the metrics; the text `tensorboard` is short for that kind without
    options."""

    kind: Annotated[str, Field(pattern=rf"^tensorboard$|{NAME_PATTERN}")]
    """`tensorboard`, or your own class, `PACKAGE.MODULE:NAME`."""
    options: dict[str, Any] = Field(default={})
    """Keyword arguments of the tracker."""


def _as_trace(value: Any) -> Any:
    return {"enabled": value} if isinstance(value, bool) else value


def _as_tracker(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


TraceOrBool = Annotated[TraceConfig, BeforeValidator(_as_trace)]
TrackerOrName = Annotated[TrackerConfig, BeforeValidator(_as_tracker)]
