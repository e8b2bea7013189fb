"""The whole run in one process: the same feed, stages, numbers and files as the pipeline, no links."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from rich.console import Console

from pipeline.config import Config
from pipeline.serial import serial_step
from pipeline.stage import Stage
from workers.compute import set_up_compute
from workers.failures import Interrupted, RunFailed, sign_of
from workers.feed import Feed
from workers.finish import finish_run
from workers.meeting import noise_levels, stage_name
from workers.metrics import RunMetrics
from workers.progress import Progress
from workers.recorder import Recorder
from workers.reports import StageTimes
from workers.run_files import RunDir
from workers.weights import save_stage


def run_serial(config: Config, run: RunDir, devices: Sequence[str], console: Console) -> None:
    """Train every stage in turn, step by step, on the first stage's device.

    Raises:
        RunFailed: a stage raised.
        OnwardError: bad data, a port that cannot be served, a feed that died.
    """
    set_up_compute(config.threads)
    device = torch.device(devices[0])
    metrics = RunMetrics()
    if config.metrics.enabled:
        console.print(f"metrics at {metrics.serve(config.metrics)}", markup=False, highlight=False)
    with Feed(config) as feed:
        stages = [Stage(config, i, feed.steps_per_epoch, device) for i in range(1, config.num_stages + 1)]
        progress = Progress(console, feed.total_steps, feed.steps_per_epoch, config.train.epochs)
        with Recorder(run.metrics, config.num_stages, metrics, progress) as recorder:
            _train(config, feed, stages, device, recorder)
    for stage in stages:
        save_stage(run, stage)
    finish_run(config, run, recorder, device, console)


def _train(config: Config, feed: Feed, stages: list[Stage], device: torch.device, recorder: Recorder) -> None:
    levels = noise_levels(config)
    times = [StageTimes() for _ in stages]
    for batch in feed:
        recorder.feed_wait = feed.wait_seconds
        recorder.batch_sent(batch.step, batch.epoch, batch.views.shape[1])
        started = time.monotonic()
        results = serial_step(stages, batch.views.to(device), batch.step, levels)
        for stage, spent in zip(stages, times, strict=True):
            try:
                result = next(results)
            except (Exception, Interrupted) as error:
                raise RunFailed(sign_of(stage_name(stage.index), batch.step, error)) from error
            spent.busy += time.monotonic() - started
            recorder.stage_report(spent.report(stage.index, batch.step, result, queue_depth=0, link_bytes=0))
            started = time.monotonic()
