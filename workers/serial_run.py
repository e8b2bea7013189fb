"""A whole run in one process, without links: the same feed, stages, results and files as the pipeline."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType

import torch

from pipeline.config import Config
from pipeline.data.to_device import sent_to
from pipeline.measures.online import Measure, online_measures
from pipeline.replicas import SOLO
from pipeline.serial import build_stages, step_function
from pipeline.stage.stage import Stage
from workers.control.failures import (
    FailureReport,
    Interrupted,
    RunFailed,
    failure_report,
    raise_interrupted,
    stop_message,
)
from workers.control.step_report import StageTimes
from workers.coordinator.finish import finish_run
from workers.coordinator.observers import Observation
from workers.coordinator.recorder import Recorder
from workers.determinism.check import check_steps
from workers.determinism.refusal import in_words
from workers.feed import Feed, FeedBatch
from workers.feed.ahead import FeedOnDevice
from workers.feed.first_stage import device_augmentation
from workers.observing.memory import ProcessMemory
from workers.observing.terminal.console import Console
from workers.observing.trace import FEED, Tracer, trace_of_serial
from workers.run.compute import set_up_compute
from workers.run.faults import Faults
from workers.run.files import RunDir
from workers.run.no_kernel import note_operations
from workers.run.signals import WAKE, stop_signals
from workers.snapshots.committer import SnapshotCommitter
from workers.snapshots.restore import restore
from workers.snapshots.weights import save_stage
from workers.snapshots.writer import SnapshotPart, SnapshotWriter
from workers.stage.device_clock import DeviceClock
from workers.stage.flops import StepFlops, peak_flops
from workers.stage.plain_steps import PlainSteps
from workers.stage.throttling import watch_throttling
from workers.topology.processes import stage_name
from workers.topology.rendezvous import NoisePolicy, link_spec


def run_serial(
    config: Config,
    run: RunDir,
    devices: Sequence[str],
    terminal: Console,
    start_step: int = 0,
    failed: Callable[[BaseException], object] = lambda error: None,
    stop: StopRequest | None = None,
) -> None:
    """Train every stage in turn, step by step from `start_step`, on the first stage's device.

    Args:
        config, run, devices, terminal, start_step: of the run.
        failed: see `Observation`.
        stop: by another thread; if not given, this is the main one, and signals stop the run.

    Raises:
        RunFailed: a stage failed, or the run was asked to stop.
        OnwardError: bad data, a port that is in use, a feed that failed, a tracker that cannot be started.
    """
    set_up_compute(config)
    device = torch.device(devices[0])
    for number in stop_signals(config) if stop is None else ():
        signal.signal(number, raise_interrupted)
    check_steps(config, run, range(1, config.num_stages + 1), device, terminal.warn)
    stop = _Signals(config) if stop is None else stop
    with Observation(config, run, terminal, start_step, failed) as observation:
        committer = SnapshotCommitter(config.snapshots, run, observation.note, start_step, observation.committed)
        trace = trace_of_serial(config.trace, run, config.num_stages)
        with closing(trace), _feeding(config, start_step, trace, device) as (feed, batches):
            observation.begin(feed.total_steps, feed.steps_per_epoch)
            if config.determinism.level == "warn":
                note_operations(observation.note)
            stages = _stages(config, feed, device)
            restore(run, start_step, stages)
            for stage in stages:
                trace.watch(stage)
            recorder = observation.recorder(feed.total_steps)
            faults = Faults(config.faults, run, range(1, config.num_stages + 1), 1)
            with recorder, SnapshotWriter(run, _when_written(committer, recorder), faults) as writer:
                _Training(
                    config=config,
                    feed=feed,
                    batches=batches,
                    stages=stages,
                    device=device,
                    recorder=recorder,
                    observation=observation,
                    committer=committer,
                    writer=writer,
                    faults=faults,
                    stop=stop,
                    trace=trace,
                ).run()
            observation.tick()
        if stop.stopping:
            raise RunFailed(_stopped(run, committer))
        for stage in stages:
            save_stage(run, stage)
        finish_run(config, run, recorder, device, terminal)


@contextmanager
def _feeding(
    config: Config, start_step: int, trace: Tracer, device: torch.device
) -> Iterator[tuple[Feed, FeedOnDevice]]:
    """The feed, and its batches on their way to the device."""
    size = link_spec(config, 1).nbytes
    with Feed(config, start_step, trace=trace) as feed, FeedOnDevice(feed, size, device) as batches:
        yield feed, batches


def _stopped(run: RunDir, committer: SnapshotCommitter) -> FailureReport:
    return FailureReport(stage_name(1), None, "interrupted", stop_message(run.path, committer.committed))


def _stages(config: Config, feed: Feed, device: torch.device) -> list[Stage]:
    stages = build_stages(config, feed.steps_per_epoch, device)
    for stage in stages:
        measures = online_measures(config, stage.index, feed.num_classes, feed.steps_per_epoch, stage.compute, SOLO)
        stage.online = measures
    return stages


def _when_written(committer: SnapshotCommitter, recorder: Recorder) -> Callable[[SnapshotPart], None]:
    """Callback for every part of a snapshot, in the thread that writes it."""

    def on_written(part: SnapshotPart) -> None:
        if part.file is not None:
            recorder.snapshot_written(part.stage, part.seconds)
        committer.add_part(part)

    return on_written


@dataclass(kw_only=True)
class _Training:
    """The loop over all batches."""

    config: Config
    feed: Feed
    batches: FeedOnDevice
    stages: list[Stage]
    device: torch.device
    recorder: Recorder
    observation: Observation
    committer: SnapshotCommitter
    writer: SnapshotWriter
    faults: Faults
    stop: StopRequest
    trace: Tracer

    def __post_init__(self) -> None:
        self._noise = NoisePolicy(self.config, self.feed.steps_per_epoch)
        self._one_step = step_function(self.config, self.stages, self.device)
        self._augmented = device_augmentation(self.config)
        self._times = [StageTimes() for _ in self.stages]
        self._memory = ProcessMemory(self.device)
        self._clock, self._flops = DeviceClock.of(self.device), StepFlops()
        self._done_before = set[tuple[int, int | None]]()
        self._peaks = [peak_flops(stage.compute) for stage in self.stages]
        self._plain = PlainSteps(self.config, self.feed.steps_per_epoch)
        self._throttle = watch_throttling(self.device)

    def run(self) -> None:
        """Train to the last batch, or until the run is asked to stop. Raises `RunFailed`."""
        requested = self._clock.start().issued
        for batch, arrive in self.batches:
            self._clock.lap(self._times[0], "wait_input")
            self.trace.at(batch.step)
            self.trace.took(FEED, "wait for images", requested)
            self.recorder.feed = self.feed.measures()
            learner = self.stages[0].phases.learner(batch.step)
            reached = learner or len(self.stages)
            self.recorder.batch_sent(batch.step, batch.epoch, batch.views.shape[1], reached)
            self._learn(batch, arrive, learner)
            self.stop.stopping = self.stop.requested and not batch.last
            if self.committer.begin_if_due(batch.step, reached, self.stop.stopping):
                for stage in self.stages[:learner]:
                    with self.trace.span(stage_name(stage.index), "snapshot"):
                        self.writer.take(stage, batch.step + 1)
            self.observation.tick()
            if self.stop.stopping:
                return
            requested = self._clock.lap(None).issued  # neither a snapshot nor an observer is part of a stage's step

    def _learn(self, batch: FeedBatch, arrive: Callable[[], torch.Tensor], learner: int | None) -> None:
        self._clock.lap(None)
        labels = None if batch.labels is None else sent_to(torch.from_numpy(batch.labels), self.device)
        views = arrive()
        self._clock.lap(self._times[0], "copying")
        views = self._augmented(views, batch)
        results = self._one_step(self.stages, views, batch.step, self._noise.levels(batch.step), labels=labels)
        for stage, times, peak in zip(self.stages[:learner], self._times, self._peaks, strict=False):
            try:
                self.faults.before_update(stage.index, batch.step)
                with self._flops.counted(stage, times, learner, views.shape):
                    result = next(results)
                online = self._measure_online(stage, batch.step, labels)
            except (Exception, Interrupted) as error:
                described = in_words(error, self.config, stage.index, batch.step, self.device)
                failure = failure_report(stage_name(stage.index), batch.step, described, str(self.device))
                raise RunFailed(failure) from error
            count = partial(self._plain_count, stage.index, views.shape, batch.step)
            self._flops.add_compiled(stage, times, count, learner, views.shape)
            # The first step of a compiled stage is the compiler's.
            compiles = stage.compute.config.compile and (stage.index, learner) not in self._done_before
            self._done_before.add((stage.index, learner))
            self._clock.lap(None if compiles else times)
            memory = self._memory.measure()
            throttled = self._throttle.reasons if self._throttle and stage is self.stages[0] else None
            report = times.report(stage.index, batch.step, result, 0, 0, online, memory, peak, throttled)
            self.recorder.stage_report(report)
            self._clock.lap(None)

    def _plain_count(self, index: int, shape: torch.Size, step: int) -> int:
        return self._plain.of_all(shape, step)[index - 1]

    def _measure_online(self, stage: Stage, step: int, labels: torch.Tensor | None) -> Mapping[Measure, float] | None:
        if stage.online is None:
            return None
        with self.trace.span(stage_name(stage.index), "probe"):
            return stage.online.measure(step, labels)


class StopRequest:
    """Whether the user has asked to stop, which ends the run after the step that is computed."""

    def __init__(self) -> None:
        self.requested = self.stopping = False


class _Signals(StopRequest):
    """The first signal sets `requested`, the second raises `Interrupted`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._signals = stop_signals(config)
        for number in self._signals:
            signal.signal(number, self._on_signal)
        signal.signal(WAKE, self._on_wake)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        for other in self._signals:
            signal.signal(other, raise_interrupted)

    def _on_wake(self, number: int, frame: FrameType | None) -> None:
        """`onward train` was asked to stop; it counts the signals itself."""
        self.requested = True
