"""The whole run in one process: the same feed, stages, numbers and files as the pipeline, no links."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType

import torch
from rich.console import Console

from pipeline.config import Config
from pipeline.data.photometrics import Photometrics, photometrics_on_device
from pipeline.evaluation.online import online_measures
from pipeline.precision import LossScaler
from pipeline.replicas import SOLO
from pipeline.serial import build_stages, end_to_end_step, serial_step, shared_scaler_step
from pipeline.stage import Stage, StageReport
from workers.compute import set_up_compute
from workers.failures import Interrupted, RunFailed, Sign, raise_interrupted, sign_of
from workers.faults import Faults
from workers.feed import Feed, FeedBatch
from workers.finish import finish_run
from workers.meeting import NoisePolicy
from workers.metrics import RunMetrics
from workers.progress import Progress
from workers.recorder import Recorder
from workers.reports import StageTimes
from workers.run_files import RunDir
from workers.snapshots import SnapshotKeeper, SnapshotWriter, restore
from workers.topology import stage_name
from workers.weights import save_stage


def run_serial(config: Config, run: RunDir, devices: Sequence[str], console: Console, start_step: int = 0) -> None:
    """Train every stage in turn, step by step from `start_step`, on the first stage's device.

    Raises:
        RunFailed: a stage raised.
        OnwardError: bad data, a port that cannot be served, a feed that died.
    """
    set_up_compute(config)
    device = torch.device(devices[0])
    metrics = RunMetrics()
    if config.metrics.enabled:
        console.print(f"metrics at {metrics.serve(config.metrics)}", markup=False, highlight=False)
    stop = _Stop()
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    keeper = SnapshotKeeper(config.snapshots, run, say, start_step)
    faults = Faults(config.faults, run, range(1, config.num_stages + 1), 1)
    writer = SnapshotWriter(run, keeper.taken, faults)
    with writer, Feed(config, start_step) as feed:
        stages = build_stages(config, feed.steps_per_epoch, device)
        for stage in stages:
            measures = online_measures(config, stage.index, feed.num_classes, feed.steps_per_epoch, stage.compute, SOLO)
            stage.online = measures
        restore(run, start_step, stages)
        progress = Progress(console, feed.total_steps, feed.steps_per_epoch)
        with Recorder(run.metrics, metrics, progress) as recorder:
            _train(config, feed, stages, device, recorder, (keeper, writer), faults, stop)
    if stop.left:
        last = keeper.committed
        onward = (
            f"the same command goes on from the snapshot after {last} steps" if last else "there is no snapshot yet"
        )
        raise RunFailed(Sign(stage_name(1), None, "interrupted", f"interrupted; {onward}"))
    for stage in stages:
        save_stage(run, stage)
    finish_run(config, run, recorder, device, console)


def _train(
    config: Config,
    feed: Feed,
    stages: list[Stage],
    device: torch.device,
    recorder: Recorder,
    snapshots: tuple[SnapshotKeeper, SnapshotWriter],
    faults: Faults,
    stop: _Stop,
) -> None:
    keeper, writer = snapshots
    noise = NoisePolicy(config, feed.steps_per_epoch)
    one_step, finished = _way_to_step(config, stages, device), _finisher(config)
    times = [StageTimes() for _ in stages]
    for batch in feed:
        recorder.feed = feed.measures()
        learner = stages[0].phases.learner(batch.step)
        recorder.batch_sent(batch.step, batch.epoch, batch.views.shape[1], learner or len(stages))
        started = time.monotonic()
        labels = None if batch.labels is None else torch.from_numpy(batch.labels).to(device)
        views = finished(batch.views.to(device), batch)
        results = one_step(stages, views, batch.step, noise.levels(batch.step), labels=labels)
        for stage, spent in zip(stages[:learner], times, strict=False):
            try:
                faults.before_update(stage.index, batch.step)
                result = next(results)
                online = stage.online.measure(batch.step, labels) if stage.online is not None else None
            except (Exception, Interrupted) as error:
                raise RunFailed(sign_of(stage_name(stage.index), batch.step, error)) from error
            spent.busy += time.monotonic() - started
            recorder.stage_report(spent.report(stage.index, batch.step, result, 0, 0, online))
            started = time.monotonic()
        stop.left = stop.asked and not batch.last
        if keeper.due(batch.step, learner or len(stages), stop.left):
            for stage in stages[:learner]:
                writer.take(stage, batch.step + 1)
        if stop.left:
            return


def _finisher(config: Config) -> Callable[[torch.Tensor, FeedBatch], torch.Tensor]:
    """What is left to do to the views of a batch on the device (`data.augment_on: device`)."""
    if not photometrics_on_device(config.data):
        return lambda views, batch: views
    photometrics = Photometrics(config.data, config.num_views, config.seed)
    return lambda views, batch: photometrics(views, batch.epoch, batch.samples)


class _Stop:
    """Whether the user has asked to stop: the first SIGTERM or SIGINT sets a mark, the second raises `Interrupted`."""

    def __init__(self) -> None:
        self.asked = self.left = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        for other in (signal.SIGTERM, signal.SIGINT):
            signal.signal(other, raise_interrupted)


def _way_to_step(config: Config, stages: Sequence[Stage], device: torch.device) -> Callable[..., Iterator[StageReport]]:
    if config.mode == "end_to_end":
        return end_to_end_step
    codec = config.link.codec
    if config.precision.shared_scaler == "reference":
        shared = LossScaler(device, [stage.optimizer for stage in stages])
        assert stages[0].scaler is not None
        shared.scaler.load_state_dict(stages[0].scaler.scaler.state_dict())  # where a snapshot had left it
        return partial(shared_scaler_step, scaler=shared, codec=codec)
    return partial(serial_step, codec=codec)
