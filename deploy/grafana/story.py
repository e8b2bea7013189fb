"""What the dashboard shows, from top to bottom: whoever reads down from the state of a run comes to the cause of it."""

from __future__ import annotations

from panels import Panel, Query

OF_RUN = '{run="$run", instance=~"$instance"}'
OF_STAGE = '{run="$run", instance=~"$instance", stage=~"$stage"}'
SHARE = (0.0, 1.0)
FROM_ZERO = (0.0, None)
GOOD_TO_BAD = ((None, "green"), (1.0, "red"))
LOGARITHMIC = {"scaleDistribution": {"type": "log", "log": 10}}
BOTH_SIGNS = {"scaleDistribution": {"type": "symlog", "log": 10, "linearThreshold": 0.01}}
"""Logarithmic too, with room for 0 and what is below it."""


def run(metric: str, legend: str = "{{run}}") -> Query:
    """A metric of the whole run; what goes on after a restart is the same line."""
    return Query(f"max by (run) ({metric}{OF_RUN})", legend)


def by(label: str, metric: str) -> Query:
    """A metric of the run that has one more label."""
    return Query(f"max by ({label}) ({metric}{OF_RUN})", f"{{{{{label}}}}}")


def stage(metric: str, matchers: str = "", label: str = "", legend: str = "stage {{stage}}") -> Query:
    """A metric of every stage.

    Args:
        metric: a gauge, or the name of a recording rule.
        matchers: of further labels, such as `direction="input"`.
        label: a further label that lines are told apart by.
        legend: of a line.
    """
    chosen = OF_STAGE.replace("}", f", {matchers}}}") if matchers else OF_STAGE
    return Query(f"max by ({', '.join(filter(None, ('stage', label)))}) ({metric}{chosen})", legend)


def state() -> list[Panel]:
    """One line of numbers: is all well, and when is it done?"""
    what = "{{objective}}, {{backbone}}, {{mode}}, link {{link}}, version {{version}}"
    return [
        Panel(
            "Run",
            "What is trained, and how.",
            [Query(f"onward_run_info{OF_RUN}", what)],
            6,
            kind="stat",
            options={"textMode": "name"},
        ),
        Panel(
            "Done",
            "Steps that all stages have finished, of those planned.",
            [run("run:onward_progress:ratio")],
            3,
            "percentunit",
            "stat",
            SHARE,
        ),
        Panel("Time left", "At the rate of the last steps.", [run("onward_eta_seconds")], 3, "dthms", "stat"),
        Panel(
            "Images/s",
            "Over the last minute; 0 where nothing gets on.",
            [run("run:onward_samples:rate1m")],
            3,
            kind="stat",
        ),
        Panel(
            "Oldest report",
            "Time since the quietest stage that still has steps to do has reported one; red where the alert "
            "StageSilent begins.",
            [run("stage:onward_report_age:seconds")],
            3,
            "s",
            "stat",
            levels=((None, "green"), (30.0, "orange"), (60.0, "red")),
        ),
        Panel(
            "Alarms",
            "That the run itself has raised now; see below which.",
            [Query(f"sum(onward_alarm{OF_RUN})", "raised")],
            2,
            kind="stat",
            levels=GOOD_TO_BAD,
        ),
        Panel(
            "Restarts",
            "Times that a stage was brought back.",
            [Query(f"sum(onward_restarts_total{OF_RUN})", "restarts")],
            2,
            kind="stat",
            levels=((None, "green"), (1.0, "orange")),
        ),
        Panel(
            "Skipped",
            "Steps of all stages that were skipped because something was not finite.",
            [Query(f"sum(onward_skipped_steps_total{OF_RUN})", "skipped")],
            2,
            kind="stat",
            levels=((None, "green"), (1.0, "orange")),
        ),
    ]


def throughput() -> list[Panel]:
    """How fast it is, and how far."""
    return [
        Panel(
            "Throughput",
            "Images a second that have gone through all stages, as the run itself says it at every step too, and that "
            "the feed has made, which may be ahead by the batches that wait.",
            [
                run("run:onward_samples:rate1m", "through all stages, 1 min"),
                run("onward_images_per_second", "at the last step, 20 s"),
                run("run:onward_feed_images:rate1m", "made by the feed, 1 min"),
            ],
            9,
            bounds=FROM_ZERO,
        ),
        Panel("Time left, over time", "A straight way down is a steady run.", [run("onward_eta_seconds")], 5, "dthms"),
        Panel("Step", "Last step of every stage, counted from 0, and how many are planned.",
              [stage("onward_step"), run("onward_run_steps", "planned")], 5),
        Panel("Epoch", "Of the last step of all stages, counted from 0.", [run("onward_epoch", "epoch")], 5),
    ]  # fmt: skip


def stages() -> list[Panel]:
    """What the stages do with their time, and which of them holds the others up."""
    wait = "stage:onward_wait:share1m"
    return [
        Panel("Busy", "Share of the time that a stage computes. The pipeline is as fast as the busiest one.",
              [stage("stage:onward_busy:share1m")], 6, unit="percentunit", bounds=SHARE),
        Panel("Waiting for input", "Share of the time that a stage waits for the one before it, stage 1 for images.",
              [stage(wait, 'direction="input"')], 6, unit="percentunit", bounds=SHARE),
        Panel("Waiting for room", "Share of the time that a stage waits until the one after it takes a batch.",
              [stage(wait, 'direction="output"')], 6, unit="percentunit", bounds=SHARE),
        Panel("Copying", "Share of the time that a stage copies batches from and to its links, and from and to a GPU.",
              [stage("stage:onward_copy:share1m")], 6, unit="percentunit", bounds=SHARE),
        Panel("Work over the others",
              "Time a stage computes or copies over the mean of the others; above 2 it is the bottleneck.",
              [stage("stage:onward_work:over_others")], bounds=FROM_ZERO),
        Panel("Behind", "Steps that a stage is behind the furthest; full queues before it make it larger.",
              [stage("stage:onward_behind:steps")], bounds=FROM_ZERO),
        Panel("Since the last report", "A line that climbs is a stage that hangs.",
              [stage("stage:onward_report_age:seconds")], unit="s", bounds=FROM_ZERO),
        Panel("Operations", "Floating-point operations a second, also of what is computed again.",
              [stage("stage:onward_flops:rate1m")], 6, unit="flops", bounds=FROM_ZERO),
        Panel("Utilisation (MFU)", "Share of what the device of a stage could do in that time, as its maker says.",
              [stage("stage:onward_mfu:ratio1m")], 6, unit="percentunit", bounds=SHARE),
        Panel("Allocator retries", "Times that PyTorch gave back cached GPU memory to find room: it is nearly full.",
              [stage("onward_allocator_retries_total")], 6, bounds=FROM_ZERO),
        Panel("GPU slowed down", "1 while its power cap, heat, its board or a power brake does; needs nvidia-ml-py.",
              [stage("onward_device_throttled", label="reason", legend="stage {{stage}} {{reason}}")], 6, bounds=SHARE),
    ]  # fmt: skip


def links() -> list[Panel]:
    """What travels from stage to stage."""
    return [
        Panel("Queue", "Batches that wait at the input of a stage, as it ends a step.",
              [stage("onward_link_queue_depth")], bounds=FROM_ZERO),
        Panel("Queue, of its places", "Full before a slow stage, empty behind it: that is back-pressure, and normal.",
              [stage("stage:onward_link_fill:ratio")], unit="percentunit", bounds=SHARE),
        Panel("Sent to the next stage", "Bytes a second; the last stage sends none.",
              [stage("stage:onward_link_bytes:rate1m")], unit="Bps", bounds=FROM_ZERO),
    ]  # fmt: skip


def losses() -> list[Panel]:
    """What each block minimises."""
    return [
        Panel("Loss", "What each stage minimises; blocks of other widths have other scales.",
              [stage("onward_objective_loss", 'term="total"')], 12),
        Panel("Terms of the loss", "Its parts before their weights, or what the objective says beside it, such as an "
              "accuracy.", [stage("onward_objective_loss", 'term!="total"', "term", "stage {{stage}} {{term}}")], 12,
              custom=BOTH_SIGNS),
        Panel("Learning rate", "As the schedule has it.", [stage("onward_learning_rate")], 12, bounds=FROM_ZERO),
        Panel("Skipped steps", "Steps not taken because something was not finite, and those that online measures left "
              "out, since the run began.",
              [stage("onward_skipped_steps_total"),
               stage("onward_online_skipped_steps_total", legend="stage {{stage}}, online measures")], 12,
              bounds=FROM_ZERO),
    ]  # fmt: skip


def features() -> list[Panel]:
    """How good the features are; needs `evaluation.online`."""
    return [
        Panel("Probe accuracy", "Training images that a probe of each stage classifies correctly (evaluation.online).",
              [stage("onward_probe_accuracy_ratio", label="probe", legend="stage {{stage}} {{probe}}")],
              unit="percentunit"),
        Panel("Rank", "RankMe: over how many dimensions the features of a stage spread.",
              [stage("onward_representation_rank")], bounds=FROM_ZERO),
        Panel("LiDAR", "Over how many dimensions spreads what tells images apart.",
              [stage("onward_lidar")], bounds=FROM_ZERO),
        Panel("Collapse level", "Spread of the directions of the features; at 0 all images look the same to a stage.",
              [stage("onward_collapse_level")], bounds=FROM_ZERO),
        Panel("Decay of the spectrum", "alpha of alpha-ReQ, the exponent; around 1 is said to be best.",
              [stage("onward_alpha_req")]),
        Panel("Fit of this decay", "Share of the variance that the power law explains; what is far below 1 makes alpha "
              "mean little.", [stage("onward_alpha_req_r2")], unit="percentunit"),
    ]  # fmt: skip


def norms() -> list[Panel]:
    """Whether steps are of a sane size."""
    return [
        Panel("Norm of the gradient", "All gradients of a stage together, every metrics.norms_every steps.",
              [stage("onward_gradient_norm")], 12, custom=LOGARITHMIC),
        Panel("Norm of the update", "What a step changed in the weights.",
              [stage("onward_update_norm")], 12, custom=LOGARITHMIC),
    ]  # fmt: skip


def resources() -> list[Panel]:
    """Snapshots and memory."""
    snapshots = f"sum by (le, stage) (onward_snapshot_seconds_bucket{OF_STAGE})"
    total, count = (f"sum by (stage) (onward_snapshot_seconds_{part}{OF_STAGE})" for part in ("sum", "count"))
    return [
        Panel("Time of a snapshot", "From the copy of the state to the file, since the run began; training goes on "
              "meanwhile.",
              [Query(f"{total} / {count}", "stage {{stage}}, mean"),
               Query(f"histogram_quantile(0.95, {snapshots})", "stage {{stage}}, 95th percentile")],
              unit="s", bounds=FROM_ZERO),
        Panel("Snapshots", "Written since the run began.", [Query(count, "stage {{stage}}")], bounds=FROM_ZERO),
        Panel("Memory", "Of the process of each stage; neighbours that share one have the same line.",
              [stage("onward_process_memory_bytes", label="kind", legend="stage {{stage}} {{kind}}")],
              unit="bytes", bounds=FROM_ZERO),
    ]  # fmt: skip


def feed() -> list[Panel]:
    """Where the images come from."""
    return [
        Panel("Waiting for images", "Share of the time that the run waits for the feed.",
              [run("run:onward_feed_wait:share1m")], 6, "percentunit", bounds=SHARE),
        Panel("Work of the feed", "Workers that are busy, by what they do.",
              [by("part", "run:onward_feed_seconds:rate1m")], 6, bounds=FROM_ZERO,
              custom={"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 30}),
        Panel("Losses of the feed", "Workers replaced and images that others stand in for, since the run began.",
              [run("onward_feed_restarts_total", "workers replaced"),
               run("onward_feed_skipped_total", "images skipped")], 6, bounds=FROM_ZERO),
        Panel("Memory of the feed", "That batches are made in.", [run("onward_feed_memory_bytes")], 6, "bytes",
              bounds=FROM_ZERO),
    ]  # fmt: skip


def alarms() -> list[Panel]:
    """What went wrong, and when."""
    return [
        Panel(
            "Alarms, over time",
            "Red while the run itself raises one; events.jsonl in its folder has the sentences.",
            [by("alarm", "onward_alarm")],
            12,
            kind="state-timeline",
            levels=GOOD_TO_BAD,
        ),
        Panel(
            "Alarms raised",
            "Times, since the run began.",
            [by("alarm", "onward_alarms_total")],
            6,
            bounds=FROM_ZERO,
        ),
        Panel(
            "Stages brought back",
            "Times, since the run began.",
            [stage("onward_restarts_total")],
            6,
            bounds=FROM_ZERO,
        ),
    ]


ROWS = (
    ("State", state()),
    ("Speed and progress", throughput()),
    ("Stages: what they do with their time", stages()),
    ("Links: what waits and what travels", links()),
    ("Losses", losses()),
    ("Features: how good they are (evaluation.online)", features()),
    ("Norms", norms()),
    ("Snapshots and memory", resources()),
    ("Feed", feed()),
    ("Alarms and restarts", alarms()),
)
"""Headlines and what stands below them."""
