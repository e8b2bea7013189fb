"""The end of a run: join the backbone, measure every block, write the report, print the table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.ordinary_files import open_to_read
from workers.evaluating.checkpoints import load_network
from workers.evaluating.labelled import LabelledImages, Tell
from workers.evaluating.probe_table import ready_stages, scores_of
from workers.evaluating.source import FeatureSource
from workers.evaluating.telling import Teller
from workers.observing.terminal.summary import print_summary
from workers.observing.terminal.voice import Terminal
from workers.recorder import Recorder
from workers.run_files import RunDir, write_json
from workers.weights import save_backbone


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
    write_json(run.report, report)
    if config.evaluation.linear_probe:
        try:
            report |= _measured(config, run, device, terminal)
        except UserError as error:
            terminal.warn(f"no linear probe: {error}")
        write_json(run.report, report)
    print_summary(terminal, run, report, recorder.progress.events, recorder.notes())


def _measured(config: Config, run: RunDir, device: torch.device, terminal: Terminal) -> dict[str, Any]:
    """What `measure` finds, and a sign of life meanwhile: it takes long where the data set is large."""
    if terminal.quiet:
        return measure(config, run, device, note=terminal.warn)
    with Teller(terminal.console) as teller:
        return measure(config, run, device, teller.tell, terminal.warn)


def measure(
    config: Config,
    run: RunDir,
    device: torch.device,
    tell: Tell = lambda *how_far: None,
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
        return scores_of(source, tell=lambda text, done, total: tell(f"{network} network: {text}", done, total))

    labelled, stages = LabelledImages(note), ready_stages(config, device)
    untrained = scores("untrained")
    load_network(run, stages, None, lambda text: None)
    return {"untrained": untrained, "trained": scores("trained"), **labelled.report()}


def final_digest(run: RunDir) -> str:
    """One SHA-256 over the names and bytes of the weights in `final/`, probes left out; equal for equal runs."""
    digest = hashlib.sha256()
    for path in sorted({*run.final.glob("*.safetensors")} - {*run.final.glob("probe_*.safetensors")}):
        with open_to_read(path, run.path) as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
