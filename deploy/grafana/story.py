"""What the dashboard of a run shows, from top to bottom: whoever reads down from its state comes to the cause of it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, dashboard
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.common import BigValueTextMode, ScaleDistribution, StackingMode
from grafana_foundation_sdk.models.dashboard import Threshold, VariableOption, VariableRefresh, VariableSort
from panels import DATASOURCE, GOOD_TO_BAD, GOOD_TO_ODD, GREEN, Row, levels, lines, number, query, states

OF_RUN = '{run="$run", instance=~"$instance"}'
OF_STAGE = '{run="$run", instance=~"$instance", stage=~"$stage"}'


def run(metric: str, legend: str = "{{run}}") -> Dataquery:
    """A metric of the whole run; what goes on after a restart is the same line."""
    return query(f"max by (run) ({metric}{OF_RUN})", legend)


def by(label: str, metric: str) -> Dataquery:
    """A metric of the run that has one more label."""
    return query(f"max by ({label}) ({metric}{OF_RUN})", f"{{{{{label}}}}}")


def total(label: str, metric: str) -> Dataquery:
    """The sum of a metric over one of its labels, of which each value counts once, however many processes tell it."""
    return query(f"sum(max by ({label}) ({metric}{OF_RUN}))", "in all")


def stage(metric: str, matchers: str = "", label: str = "", legend: str = "stage {{stage}}") -> Dataquery:
    """A metric of every stage.

    Args:
        metric: a gauge, or the name of a recording rule.
        matchers: of further labels, such as `direction="input"`.
        label: a further label that lines are told apart by.
        legend: of a line.
    """
    chosen = OF_STAGE.replace("}", f", {matchers}}}") if matchers else OF_STAGE
    return query(f"max by ({', '.join(filter(None, ('stage', label)))}) ({metric}{chosen})", legend)


def state() -> Row:
    """One line of numbers: is all well, and when is it done?"""
    what = "{{objective}}, {{backbone}}, {{mode}}, link {{link}}, version {{version}}"
    info = query(f"max by (objective, backbone, mode, link, version) (onward_run_info{OF_RUN})", what)
    return "State", [
        number("Run", "What is trained, and how.", info, 5).text_mode(BigValueTextMode.NAME),
        number("Done", "Steps that all stages have finished, of those planned.",
               run("run:onward_progress:ratio"), 3).unit("percentunit"),
        number("Time left", "At the rate of the last steps.", run("onward_eta_seconds"), 3).unit("dthms"),
        number("Images/s", "Over the last minute; 0 where nothing gets on.", run("run:onward_samples:rate1m"), 3),
        number("Goodput", "Share of the time since the run first began in which it made new steps.",
               run("onward_goodput_ratio"), 2).unit("percentunit"),
        number("Oldest report", "Time since the quietest stage that still has steps to do has reported one; red where "
               "the alert StageSilent begins.", run("stage:onward_report_age:seconds"), 2)
        .unit("s").thresholds(levels([GREEN, Threshold(30, "orange"), Threshold(60, "red")])),
        number("Alarms", "That the run itself has raised now; see below which.",
               total("alarm", "onward_alarm"), 2).thresholds(levels(GOOD_TO_BAD)),
        number("Restarts", "Times that a stage was brought back, since this process of the run began.",
               total("stage", "onward_restarts_total"), 2).thresholds(levels(GOOD_TO_ODD)),
        number("Skipped", "Steps of all stages that were skipped because something was not finite, since this process "
               "of the run began.", total("stage", "onward_skipped_steps_total"), 2).thresholds(levels(GOOD_TO_ODD)),
    ]  # fmt: skip


def throughput() -> Row:
    """How fast it is, and how far."""
    return "Speed and progress", [
        lines("Throughput", "Images a second that have gone through all stages, as the run itself says it at every "
              "step too, and that the feed has made, which may be ahead by the batches that wait.",
              run("run:onward_samples:rate1m", "through all stages, 1 min"),
              run("onward_images_per_second", "at the last step, 20 s"),
              run("onward_bound_images_per_second", "bound: if the slowest process only computed, 20 s"),
              run("onward_predicted_images_per_second", "predicted by the throughput model, 20 s"),
              run("run:onward_feed_images:rate1m", "made by the feed, 1 min"), width=12).min(0),
        lines("Goodput, over time", "Share of the time in which new steps were made.",
              run("onward_goodput_ratio", "since the run first began"),
              run("run:onward_goodput:share10m", "10 min"), width=6).unit("percentunit").min(0).max(1),
        lines("Time lost", "In which no new steps were made, since the run first began, by what it went to.",
              by("cause", "onward_lost_seconds_total"), width=6).unit("s").min(0),
        lines("Reached of the bound", "Images a second, of those that there would be if the slowest process only "
              "computed. The end of a run says what the rest went to.", run("run:onward_bound:share"), width=6)
        .unit("percentunit").min(0).max(1),
        lines("Time left, over time", "A straight way down is a steady run.", run("onward_eta_seconds"), width=6)
        .unit("dthms"),
        lines("Step", "Last step of every stage, counted from 0, and how many are planned.",
              stage("onward_step"), run("onward_run_steps", "planned"), width=6),
        lines("Epoch", "Of the last step of all stages, counted from 0.", run("onward_epoch", "epoch"), width=6),
    ]  # fmt: skip


def stages() -> Row:
    """What the stages do with their time, and which of them holds the others up."""
    wait = "stage:onward_wait:share1m"
    return "Stages: what they do with their time", [
        lines("Busy", "Share of the time that a stage computes. The pipeline is as fast as the busiest one.",
              stage("stage:onward_busy:share1m"), width=6).unit("percentunit").min(0).max(1),
        lines("Waiting for input", "Share of the time that a stage waits for the one before it, stage 1 for images.",
              stage(wait, 'direction="input"'), width=6).unit("percentunit").min(0).max(1),
        lines("Waiting for room", "Share of the time that a stage waits until the one after it takes a batch.",
              stage(wait, 'direction="output"'), width=6).unit("percentunit").min(0).max(1),
        lines("Copying", "Share of the time that a stage copies batches from and to its links, and from and to a GPU.",
              stage("stage:onward_copy:share1m"), width=6).unit("percentunit").min(0).max(1),
        lines("Bubble", "Share of the time that stages wait for input or for room, mean over all of them.",
              run("run:onward_bubble:share1m"), width=6).unit("percentunit").min(0).max(1),
        lines("Work over the others",
              "Time a stage computes or copies over the mean of the others that learn; above 2 it is the bottleneck.",
              stage("stage:onward_work:over_others"), width=6).min(0),
        lines("Behind", "Steps that a stage is behind the furthest; full queues before it make it larger.",
              stage("stage:onward_behind:steps"), width=6).min(0),
        lines("Since the last report", "A line that climbs is a stage that hangs.",
              stage("stage:onward_report_age:seconds"), width=6).unit("s").min(0),
        lines("Operations", "Floating-point operations a second, also of what is computed again.",
              stage("stage:onward_flops:rate1m"), width=6).unit("flops").min(0),
        lines("Utilisation (MFU)", "Share of what the device of a stage could do in that time, as its maker says.",
              stage("stage:onward_mfu:ratio1m"), width=6).unit("percentunit").min(0).max(1),
        lines("Allocator retries", "Times that PyTorch gave back cached GPU memory to find room: it is nearly full.",
              stage("onward_allocator_retries_total"), width=6).min(0),
        lines("GPU slowed down", "1 while its power cap, heat, its board or a power brake does; needs nvidia-ml-py.",
              stage("onward_device_throttled", label="reason", legend="stage {{stage}} {{reason}}"), width=6)
        .min(0).max(1),
    ]  # fmt: skip


def links() -> Row:
    """What travels from stage to stage."""
    return "Links: what waits and what travels", [
        lines("Queue", "Batches that wait at the input of a stage, as it ends a step.",
              stage("onward_link_queue_depth")).min(0),
        lines("Queue, of its places", "Full before a slow stage, empty behind it: that is back-pressure, and normal.",
              stage("stage:onward_link_fill:ratio")).unit("percentunit").min(0).max(1),
        lines("Sent to the next stage", "Bytes a second; the last stage sends none.",
              stage("stage:onward_link_bytes:rate1m"), run("run:onward_link_bytes:rate1m", "all links"))
        .unit("Bps").min(0),
    ]  # fmt: skip


def losses() -> Row:
    """What each block minimises."""
    # Logarithmic, with room for 0 and what is below it.
    both_signs = common.ScaleDistributionConfig().type(ScaleDistribution.SYMLOG).log(10).linear_threshold(0.01)
    return "Losses", [
        lines("Loss", "What each stage minimises; blocks of other widths have other scales.",
              stage("onward_objective_loss", 'term="total"'), width=12),
        lines("Terms of the loss", "Its parts before their weights, or what the objective says beside it, such as an "
              "accuracy.", stage("onward_objective_loss", 'term!="total"', "term", "stage {{stage}} {{term}}"),
              width=12).scale_distribution(both_signs),
        lines("Learning rate", "As the schedule has it.", stage("onward_learning_rate"), width=12).min(0),
        lines("Skipped steps", "Steps not taken because something was not finite, since this process of the run began, "
              "and those that online measures left out.",
              stage("onward_skipped_steps_total"),
              stage("onward_online_skipped_steps_total", legend="stage {{stage}}, online measures"), width=12).min(0),
    ]  # fmt: skip


def features() -> Row:
    """How good the features are; needs `evaluation.online`."""
    return "Features: how good they are (evaluation.online)", [
        lines("Probe accuracy", "Training images that a probe of each stage classifies correctly (evaluation.online).",
              stage("onward_probe_accuracy_ratio", label="probe", legend="stage {{stage}} {{probe}}"))
        .unit("percentunit"),
        lines("Rank", "RankMe: over how many dimensions the features of a stage spread.",
              stage("onward_representation_rank")).min(0),
        lines("LiDAR", "Over how many dimensions spreads what tells images apart.",
              stage("onward_lidar")).min(0),
        lines("Collapse level", "Spread of the directions of the features; at 0 all images look the same to a stage.",
              stage("onward_collapse_level")).min(0),
        lines("Decay of the spectrum", "alpha of alpha-ReQ, the exponent; around 1 is said to be best.",
              stage("onward_alpha_req")),
        lines("Fit of this decay", "Share of the variance that the power law explains; what is far below 1 makes alpha "
              "mean little.", stage("onward_alpha_req_r2")).unit("percentunit"),
    ]  # fmt: skip


def norms() -> Row:
    """Whether steps are of a sane size."""
    logarithmic = common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10)
    return "Norms", [
        lines("Norm of the gradient", "All gradients of a stage together, every metrics.norms_every steps.",
              stage("onward_gradient_norm"), width=12).scale_distribution(logarithmic),
        lines("Norm of the update", "What a step changed in the weights.",
              stage("onward_update_norm"), width=12).scale_distribution(logarithmic),
    ]  # fmt: skip


def resources() -> Row:
    """Snapshots and memory."""
    snapshots = f"sum by (le, stage) (onward_snapshot_seconds_bucket{OF_STAGE})"
    seconds, count = (f"sum by (stage) (onward_snapshot_seconds_{part}{OF_STAGE})" for part in ("sum", "count"))
    return "Snapshots and memory", [
        lines("Time of a snapshot", "From the copy of the state to the file, since this process of the run began; "
              "training goes on meanwhile.",
              query(f"{seconds} / {count}", "stage {{stage}}, mean"),
              query(f"histogram_quantile(0.95, {snapshots})", "stage {{stage}}, 95th percentile")).unit("s").min(0),
        lines("Snapshots", "Written since this process of the run began.", query(count, "stage {{stage}}")).min(0),
        lines("Memory", "Of the process of each stage; neighbours that share one have the same line.",
              stage("onward_process_memory_bytes", label="kind", legend="stage {{stage}} {{kind}}"))
        .unit("bytes").min(0),
    ]  # fmt: skip


def feed() -> Row:
    """Where the images come from."""
    stacked = common.StackingConfig().mode(StackingMode.NORMAL).group("A")
    return "Feed", [
        lines("Waiting for images", "Share of the time that the run waits for the feed.",
              run("run:onward_feed_wait:share1m"), width=6).unit("percentunit").min(0).max(1),
        lines("Work of the feed", "Workers that are busy, by what they do.",
              by("part", "run:onward_feed_seconds:rate1m"), width=6).min(0)
        .stacking(stacked).fill_opacity(30),
        lines("Losses of the feed", "Workers replaced and images that others stand in for, since this process of the "
              "run began.",
              run("onward_feed_restarts_total", "workers replaced"),
              run("onward_feed_skipped_total", "images skipped"), width=6).min(0),
        lines("Memory of the feed", "That batches are made in.", run("onward_feed_memory_bytes"), width=6)
        .unit("bytes").min(0),
    ]  # fmt: skip


def alarms() -> Row:
    """What went wrong, and when."""
    return "Alarms and restarts", [
        states("Alarms, over time", "Red while the run itself raises one; events.jsonl in its folder has the "
               "sentences.", by("alarm", "onward_alarm"), 12),
        lines("Alarms raised", "Times, since this process of the run began.", by("alarm", "onward_alarms_total"),
              width=6).min(0),
        lines("Stages brought back", "Times, since this process of the run began.", stage("onward_restarts_total"),
              width=6).min(0),
    ]  # fmt: skip


def choices() -> list[dashboard.QueryVariable]:
    """Which run, which of its processes, which stages."""

    def choice(name: str, label: str, values: str) -> dashboard.QueryVariable:
        made = dashboard.QueryVariable(name).label(label).query({"query": values, "refId": name})
        return made.datasource(DATASOURCE).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)

    # Names of runs end with their date: the newest stands first.
    one = choice("run", "Run", "label_values(onward_run_steps, run)").sort(VariableSort.ALPHABETICAL_DESC)
    parts = [
        choice("instance", "Process", 'label_values(onward_run_steps{run="$run"}, instance)'),
        choice("stage", "Stage", f"label_values(onward_step{OF_RUN}, stage)"),
    ]
    # Among all of them are those that have begun since the choices were read.
    every = VariableOption(text="All", value="$__all")
    several = [part.multi(True).include_all(True).all_value(".*").current(every) for part in parts]
    return [one, *(part.sort(VariableSort.NUMERICAL_ASC) for part in several)]


def rows() -> list[Row]:
    """Headlines and what stands below them."""
    return [state(), throughput(), stages(), links(), losses(), features(), norms(), resources(), feed(), alarms()]
