"""The end of a run: join the backbone, measure every block, write the report, print the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pipeline.config import Config
from pipeline.errors import UserError
from workers.coordinator.recorder import Recorder
from workers.evaluating.checkpoints import load_network
from workers.evaluating.feature_source import FeatureSource
from workers.evaluating.labelled_images import LabelledImages, Progress
from workers.evaluating.probe_table import ready_stages, scores_of
from workers.evaluating.progress import ProgressLine
from workers.observing.terminal.console import Terminal
from workers.observing.terminal.summary import print_report, print_summary
from workers.run.files import TO_BE_MEASURED, RunDir, final_digest, read_report, write_json
from workers.snapshots.weights import save_backbone


def finish_run(config: Config, run: RunDir, recorder: Recorder, device: torch.device, terminal: Terminal) -> None:
    """Everything after the last step; every stage's file must be there."""
    save_backbone(run, config.num_stages)
    report: dict[str, Any] = {
        "runtime": "serial" if config.in_one_process else "pipelined",
        "mode": config.mode,
        "link": config.link.kind,
        "images": recorder.images,
        "images_per_second": recorder.images_per_second,
        "seconds": recorder.progress.seconds,
        "final_digest": final_digest(run),
        "stages": recorder.shares(),
        "feed": recorder.feed_report(),
    }
    write_json(run.report, report | ({TO_BE_MEASURED: True} if config.evaluation.linear_probe else {}))
    finish_report(config, run, report, device, terminal)
    print_summary(terminal, run, report, recorder.progress.events, recorder.notes())


def finish_report(
    config: Config, run: RunDir, report: dict[str, Any], device: torch.device, terminal: Terminal
) -> None:
    """Add to the report of a run that has been trained what is measured at its end, and write it.

    A run that was ended meanwhile is started with this again: until it is done the report says that it is not.
    """
    if not config.evaluation.linear_probe:
        return
    try:
        report |= _measured(config, run, device, terminal)
    except UserError as error:
        terminal.warn(f"no linear probe: {error}")
    write_json(run.report, report)


def measure_the_rest(config: Config, run: RunDir, device: torch.device, terminal: Terminal) -> None:
    """For a run that was ended while it was measured: its weights are there, and its report."""
    report = {name: value for name, value in (read_report(run) or {}).items() if name != TO_BE_MEASURED}
    finish_report(config, run, report, device, terminal)
    print_report(terminal, run, report)


def _measured(config: Config, run: RunDir, device: torch.device, terminal: Terminal) -> dict[str, Any]:
    """What `measure` finds, and a sign of life meanwhile: it takes long where the data set is large."""
    if terminal.quiet:
        return measure(config, run, device, note=terminal.warn)
    with ProgressLine(terminal.console) as teller:
        return measure(config, run, device, teller.show, terminal.warn)


def measure(
    config: Config,
    run: RunDir,
    device: torch.device,
    tell: Progress = lambda *how_far: None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Score the trained network and the same network untrained.

    Args:
        config, run: what has been trained.
        device: to compute on.
        tell: is told how far it is.
        note: called with a sentence about images that are left out.

    Raises:
        UserError: no test split, or the run's weights cannot be read.
    """

    def scores(network: str) -> list[dict[str, Any]]:
        source = FeatureSource(config, stages, device, labelled=labelled)
        return scores_of(source, progress=lambda text, done, total: tell(f"{network} network: {text}", done, total))

    labelled, stages = LabelledImages(note), ready_stages(config, device)
    untrained = scores("untrained")
    load_network(run, stages, None, lambda text: None)
    return {"untrained": untrained, "trained": scores("trained"), **labelled.report()}
