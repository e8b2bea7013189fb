"""Every exported metric: the registry, the documentation and the dashboards are made from this list.

Names follow Prometheus' advice: prefix `onward_`, base units, labels `stage` and `replica` on all values of a stage
(prometheus.io/docs/practices/naming). A metric that is not in this list cannot be made.

    python -m workers.observing.catalogue > deploy/metrics.md
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

from workers.control.feed_report import PARTS
from workers.control.step_report import ThrottleReason
from workers.observing.goodput import LOST
from workers.observing.observer import ALARMS

STAGE = ("stage", "replica")
"""Stage, counted from 1; replica is always 0, because the first replica reports for all."""
BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Histogram buckets for the duration of a snapshot, in seconds."""
MAX_TERMS = 16
"""Terms of a loss that are exported of a stage, its total among them: a loss of the user's own may name as many as it
likes, and Prometheus keeps a series for each."""
MOST_VALUES = {
    "alarm": len(ALARMS), "cause": len(LOST), "direction": 2, "kind": 3, "part": len(PARTS), "probe": 2,
    "reason": len(get_args(ThrottleReason)), "term": MAX_TERMS,
}  # fmt: skip
"""How many values a label may have in one run, beside `stage`; the labels of `onward_run_info` have one."""
LIKE_QUICKSTART = {"kind": 1, "term": 3}
"""Fewer of them, in a run like `quickstart`: on a CPU, with the default objective."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: as it is exposed, a counter's with `_total`.
        kind: as Prometheus calls it.
        help: what it is, in one sentence.
        labels: in the order in which they are set.
        unit: of its values; nothing for a plain number.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""


def _stage(
    name: str, kind: Literal["counter", "gauge", "histogram"], help: str, unit: str = "", *labels: str
) -> Metric:
    return Metric(name, kind, help, (*STAGE, *labels), unit)


_RUN = (
    Metric(
        "onward_run_info",
        "gauge",
        "Always 1; what the run is stands in its labels",
        ("run", "version", "mode", "link", "objective", "backbone"),
    ),
    Metric("onward_run_steps", "gauge", "Steps that the run is planned to have", unit="steps"),
    Metric("onward_samples_total", "counter", "Images of the steps that every stage has finished", unit="images"),
    Metric("onward_epoch", "gauge", "Epoch of the last step that every stage has finished, counted from 0"),
    Metric(
        "onward_images_per_second",
        "gauge",
        "Images a second in the 20 seconds before the last step ended",
        unit="images/s",
    ),
    Metric(
        "onward_bound_images_per_second", "gauge", "If the slowest process did nothing but compute", unit="images/s"
    ),
    Metric("onward_predicted_images_per_second", "gauge", "That the throughput model predicts", unit="images/s"),
    Metric(
        "onward_eta_seconds", "gauge", "Time until the end of the last step, at that rate; NaN at first", unit="seconds"
    ),
    Metric("onward_alarm", "gauge", "1 while this alarm is raised, at whichever stage", ("alarm",)),
    Metric("onward_alarms_total", "counter", "Times that this alarm was raised, at all stages together", ("alarm",)),
)

GOODPUT = (
    Metric("onward_goodput_ratio", "gauge", "Share of the run's wall time in which new steps were made", unit="ratio"),
    Metric("onward_goodput_seconds_total", "counter", "Time in which new steps were made", unit="seconds"),
    Metric(
        "onward_run_seconds_total", "counter", "Wall time of the run, without that between commands", unit="seconds"
    ),
    Metric("onward_lost_seconds_total", "counter", "Wall time without new steps, by cause", ("cause",), "seconds"),
)

_TIMES = (
    _stage("onward_step", "gauge", "Last step that a stage has finished, counted from 0"),
    _stage("onward_stage_busy_seconds_total", "counter", "Time a stage spent computing", "seconds"),
    _stage(
        "onward_stage_wait_seconds_total",
        "counter",
        "Time a stage spent waiting for its neighbour: for input, or for room at its output",
        "seconds",
        "direction",
    ),
    _stage(
        "onward_stage_copy_seconds_total",
        "counter",
        "Time a stage spent copying batches, from and to its links and between host and GPU",
        "seconds",
    ),
    _stage(
        "onward_stage_flops_total",
        "counter",
        "Floating-point operations of a stage, also of what it computes again",
        "operations",
    ),
    _stage(
        "onward_device_peak_flops",
        "gauge",
        "Operations a second of the device of a stage in its precision, as its maker says",
        "operations/s",
    ),
    _stage(
        "onward_device_throttled",
        "gauge",
        "1 while this slows the GPU of a stage down, for half a minute or more; of a process with several stages, the "
        "first one's",
        "",
        "reason",
    ),
    _stage("onward_stage_last_report_timestamp_seconds", "gauge", "When a stage reported last, since 1970", "seconds"),
    _stage("onward_link_bytes_total", "counter", "Bytes that a stage has sent to the next one", "bytes"),
    _stage("onward_link_queue_depth", "gauge", "Batches waiting at the input of a stage, as it ends a step", "batches"),
    _stage("onward_link_capacity", "gauge", "Batches that may wait at the input of a stage (link.depth)", "batches"),
    _stage(
        "onward_process_memory_bytes",
        "gauge",
        "Memory of the process that trains a stage: resident (cpu), held by the allocator (cuda), most that tensors "
        "took at once (cuda_peak)",
        "bytes",
        "kind",
    ),
    _stage("onward_allocator_retries_total", "counter", "Times the allocator gave back cached GPU memory to find room"),
    _stage(
        "onward_snapshot_seconds",
        "histogram",
        "Time from the copy of a stage's state to the file that is written of it",
        "seconds",
    ),
    _stage("onward_restarts_total", "counter", "Times a stage was brought back"),
)

_LEARNING = (
    _stage(
        "onward_objective_loss",
        "gauge",
        "Loss of a stage (total), its terms before their weights, and what its objective says beside it",
        "",
        "term",
    ),
    _stage("onward_learning_rate", "gauge", "Learning rate of a stage"),
    _stage(
        "onward_gradient_norm",
        "gauge",
        "Euclidean norm of all gradients of a stage together, averaged over its replicas and not clipped yet",
    ),
    _stage("onward_update_norm", "gauge", "Euclidean norm of what a step changed in the weights of a stage"),
    _stage(
        "onward_skipped_steps_total", "counter", "Steps skipped because the loss or a gradient was not finite", "steps"
    ),
)

_ONLINE = (
    _stage(
        "onward_probe_accuracy_ratio",
        "gauge",
        "Training images that an online probe of a stage classifies correctly, over the last steps",
        "ratio",
        "probe",
    ),
    _stage("onward_representation_rank", "gauge", "RankMe of a stage's features: their effective rank"),
    _stage("onward_lidar", "gauge", "LiDAR of a stage's features: effective rank of what separates images"),
    _stage("onward_collapse_level", "gauge", "Spread of the directions of a stage's features; 0: collapsed"),
    _stage("onward_alpha_req", "gauge", "Exponent at which the spectrum of a stage's features decays"),
    _stage("onward_alpha_req_r2", "gauge", "Share of the spectrum's variance that this power law explains"),
    _stage(
        "onward_online_skipped_steps_total",
        "counter",
        "Steps that online measures left out because features were not finite",
        "steps",
    ),
)

_FEED = (
    Metric("onward_feed_wait_seconds_total", "counter", "Time the pipeline waited for images", unit="seconds"),
    Metric("onward_feed_images_total", "counter", "Images that the feed has made and handed over", unit="images"),
    Metric(
        "onward_feed_seconds_total", "counter", "Time of all feed workers together, by part", ("part",), unit="seconds"
    ),
    Metric("onward_feed_restarts_total", "counter", "Feed workers that died and were replaced"),
    Metric(
        "onward_feed_skipped_total", "counter", "Images that could not be decoded, others in their place", unit="images"
    ),
    Metric("onward_feed_memory_bytes", "gauge", "Memory that batches are made in", unit="bytes"),
)

GROUPS = {
    "The run": _RUN,
    "Goodput": GOODPUT,
    "Stages and links": _TIMES,
    "Learning": _LEARNING,
    "Features, where `evaluation.online` measures them": _ONLINE,
    "The feed": _FEED,
}
"""As they are documented, by headline."""
CATALOGUE = tuple(metric for group in GROUPS.values() for metric in group)

NOT_IN_QUICKSTART = {
    "onward_device_peak_flops", "onward_device_throttled", "onward_snapshot_seconds",
    *(metric.name for metric in _ONLINE if metric.kind == "gauge"),
}  # fmt: skip
"""Metrics of GPUs, snapshots and online measures."""


def series(stages: int, most: bool) -> int:
    """How many time series a pipelined run exports, a process for each stage.

    Args:
        stages: of the run.
        most: whatever can be measured is; otherwise of a run like `quickstart`.
    """
    values, count = MOST_VALUES | ({} if most else LIKE_QUICKSTART), 0
    for metric in CATALOGUE if most else [metric for metric in CATALOGUE if metric.name not in NOT_IN_QUICKSTART]:
        owners = stages if "stage" in metric.labels else 1
        owners -= metric.name == "onward_link_bytes_total"  # nothing is sent beyond the last stage
        samples = len(BUCKETS) + 3 if metric.kind == "histogram" else 1  # also +Inf, the sum and the count
        count += owners * samples * prod(values.get(label, 1) for label in metric.labels)
    return count


_BEGINNING = """# Metrics

Written by `python -m workers.observing.catalogue > deploy/metrics.md`; a test compares the two.

A run serves these at `http://metrics.host:metrics.port/metrics`; the address is printed at the start, and stands in
`coordinator.json`. `stage` counts from 1. `replica` is always 0: the first replica speaks for its stage. `alarm` is one
of `collapse`, `nonfinite`, `starved`, `bottleneck`, `silent`, `throttled` and `mismatch`. What a run does not measure
is not exported: no features without `evaluation.online`, no `cuda` memory and no peak without a GPU, no throttling
without the package `nvidia-ml-py`, no norms with `metrics.norms_every=0`, no links in a run of one process, no loss of
a stage that has none, and in mode `sequential` nothing of a stage before its turn; after it, its last loss and norms
stay. A value that is not finite is not shown either: the one before stays. [Bound and
prediction](../docs/concepts/processes.md#how-far-from-the-limit) are NaN in the first seconds.

A counter goes on when a stage is restarted; when the whole run is started again its counters begin at 0, as Prometheus
expects of a new process. Those of [goodput](../docs/concepts/processes.md#goodput) go on with it; they are up to the
last step or event, and `cause` is `start`, `restart` or `repeat`. In mode `end_to_end`, and with
`precision.shared_scaler=reference`, all stages compute together, and the time of that is stage 1's. With
`data.feed=stages` the numbers of the feed are those of the first replica of stage 1, and of its rows.
"""


def reference() -> str:
    """The catalogue as a page of Markdown."""
    parts = [_BEGINNING, _cardinality()]
    for headline, metrics in GROUPS.items():
        rows = [_row(metric) for metric in metrics]
        parts.append(
            "\n".join([f"## {headline}", "", "| metric | kind | labels | unit | what it is |", _RULE, *rows, ""])
        )
    return "\n".join(parts)


def _cardinality() -> str:
    rows = (("like `quickstart`, on CPUs", False), ("with everything: GPUs, online measures, snapshots", True))
    table = [f"| {name} | {' | '.join(f'{series(count, most):,}' for count in SIZES)} |" for name, most in rows]
    head = f"| time series of a run | {' | '.join(f'{count} stages' for count in SIZES)} |"
    return "\n".join(["## How many series", "", head, "|---|" + "---|" * len(SIZES), *table, "", _BOUNDS, ""])


SIZES = (4, 16, 64)
"""Stages for which the page says how many series there are."""
_BOUNDS = f"""Replicas add none. A label never holds a host, a path, a step or a message; those of `onward_run_info`
have one value each. `term` has the first {MAX_TERMS} names that the loss of a stage gives, cut after 80 characters;
`metrics.jsonl` has all. Prometheus adds the labels of the target (`job`, `instance`, `run`, `folder`, `host`), one
value of each. A run that goes on at another port is another `instance`; `metrics.port` keeps it."""
_HEAD = "| metric | kind | labels | unit | what it is |"
_RULE = "|---|---|---|---|---|"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.unit} | {metric.help} |"


if __name__ == "__main__":
    print(reference(), end="")
