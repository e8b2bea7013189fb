"""The end of a run: merges the backbone, evaluates every block, writes the report and prints the table."""

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
from workers.observing.terminal.console import Console
from workers.observing.terminal.drawing import ProgressLine
from workers.observing.terminal.summary import print_report, print_summary
from workers.run.files import TO_BE_MEASURED, RunDir, final_digest, read_report, write_json
from workers.snapshots.initial import begin
from workers.snapshots.weights import save_backbone


def finish_run(config: Config, run: RunDir, recorder: Recorder, device: torch.device, terminal: Console) -> None:
    """Everything after the last step; the weights of all stages must have been written."""
    save_backbone(run, config.num_stages)
    report: dict[str, Any] = {
        "runtime": "serial" if config.in_one_process else "pipelined",
        "mode": config.mode,
        "determinism": config.determinism.level,
        "link": "none" if config.in_one_process else config.link.kind,
        **recorder.report(),
        "final_digest": final_digest(run),
    }
    write_json(run.report, report | ({TO_BE_MEASURED: True} if config.evaluation.linear_probe else {}))
    finish_report(config, run, report, device, terminal)
    print_summary(terminal, run, report, recorder.progress.events, recorder.notes())


def finish_report(config: Config, run: RunDir, report: dict[str, Any], device: torch.device, terminal: Console) -> None:
    """Evaluate the blocks of a trained run, and add the results to its report.

    Until then the report is marked as incomplete (`TO_BE_MEASURED`), so that an interrupted run resumes here.
    """
    if not config.evaluation.linear_probe:
        return
    try:
        report |= _measure_with_progress(config, run, device, terminal)
    except UserError as error:
        terminal.warn(f"no linear probe: {error}")
    write_json(run.report, report)


def measure_the_rest(config: Config, run: RunDir, device: torch.device, terminal: Console) -> None:
    """Complete the report of a run that was trained and then ended during its evaluation."""
    report = {name: value for name, value in (read_report(run) or {}).items() if name != TO_BE_MEASURED}
    finish_report(config, run, report, device, terminal)
    print_report(terminal, run, report)


def _measure_with_progress(config: Config, run: RunDir, device: torch.device, terminal: Console) -> dict[str, Any]:
    """The results of `measure`; shows its progress, because large data sets take long."""
    with ProgressLine(terminal) as progress:
        return measure(config, run, device, progress.show, terminal.warn)


def measure(
    config: Config,
    run: RunDir,
    device: torch.device,
    tell: Progress = lambda *how_far: None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Fit linear probes on every block of the trained network and of the same network untrained.

    Args:
        config, run: of the trained run.
        device: to compute on.
        tell: called with the progress.
        note: called with a sentence about images that are skipped.

    Raises:
        UserError: there is no test split, or the weights cannot be read.
    """

    def scores(network: str) -> list[dict[str, Any]]:
        source = FeatureSource(config, stages, device, labelled=labelled)
        return scores_of(source, progress=lambda text, done, total: tell(f"{network} network: {text}", done, total))

    labelled, stages = LabelledImages(note), ready_stages(config, device)
    begin(run, stages)
    untrained = scores("untrained")
    load_network(run, stages, None, lambda text: None)
    return {"untrained": untrained, "trained": scores("trained"), **labelled.report()}
