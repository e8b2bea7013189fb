"""The end of a run: join the backbone, measure every block, write the report, print the table."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.evaluation.blocks import BlockScore
from workers.evaluating.checkpoints import load_network
from workers.evaluating.probe_table import ready_stages, scores_of
from workers.evaluating.source import FeatureSource
from workers.recorder import Recorder
from workers.run_files import RunDir, write_json
from workers.weights import save_backbone


def finish_run(config: Config, run: RunDir, recorder: Recorder, device: torch.device, console: Console) -> None:
    """Everything after the last step; every stage's file must be there."""
    save_backbone(run, config.num_stages)
    report: dict[str, Any] = {
        "runtime": "serial" if config.in_one_process else "pipelined",
        "mode": config.mode,
        "link": config.link.kind,
        "images": recorder.images,
        "images_per_second": recorder.images_per_second,
        "final_digest": final_digest(run),
        "stages": recorder.shares(),
        "feed": recorder.feed_report(),
    }
    write_json(run.report, report)
    if config.evaluation.linear_probe:
        try:
            report |= measure(config, run, device)
        except UserError as error:
            console.print(f"no linear probe: {error}", markup=False, highlight=False, soft_wrap=True)
        write_json(run.report, report)
    print_report(console, run, report)
    for note in recorder.notes():
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def measure(config: Config, run: RunDir, device: torch.device) -> dict[str, Any]:
    """Score the trained network and the same network untrained.

    Raises:
        UserError: no test split, or the run's weights cannot be read.
    """
    stages = ready_stages(config, device)
    untrained = scores_of(FeatureSource(config, stages, device))
    load_network(run, stages, None, lambda text: None)
    return {"untrained": untrained, "trained": scores_of(FeatureSource(config, stages, device))}


def final_digest(run: RunDir) -> str:
    """One SHA-256 over the names and bytes of the weights in `final/`, probes left out; equal for equal runs."""
    digest = hashlib.sha256()
    for path in sorted({*run.final.glob("*.safetensors")} - {*run.final.glob("probe_*.safetensors")}):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def print_report(console: Console, run: RunDir, report: dict[str, Any]) -> None:
    """The summary that a run ends with."""
    console.print(_table(report))
    console.print("busy: computing; starved: waiting for input; blocked: waiting for room")
    for shares in report["stages"]:
        if shares["skipped"]:
            console.print(f"stage {shares['stage']} skipped {shares['skipped']} steps: loss or gradient not finite")
    rate = f"{report['images_per_second']:.0f} images/s" if report["images_per_second"] else "one step"
    place = _from_here(run.path)
    console.print(f"{report['images']} images, {rate}  ·  everything is in {place}", markup=False, soft_wrap=True)


def _from_here(path: Path) -> Path:
    """As a user who stands here would write it."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def _table(report: dict[str, Any]) -> Table:
    probed = "trained" in report
    title = "linear probe, % (untrained → trained); share of time" if probed else "share of time"
    table = Table(title=title, title_justify="left")
    accuracies = ("trunk", "expansion") if probed else ()
    for name in ("block", *accuracies, "busy", "starved", "blocked"):
        table.add_column(name, justify="right", no_wrap=True)
    for row, shares in enumerate(report["stages"]):
        scores = []
        if probed:
            before, after = (BlockScore(**report[name][row]) for name in ("untrained", "trained"))
            scores = [_gain(before.trunk, after.trunk), _gain(before.expansion, after.expansion)]
        times = [f"{100 * shares[name]:.1f} %" for name in ("busy", "wait_input", "wait_output")]
        table.add_row(str(shares["stage"]), *scores, *times)
    return table


def _gain(before: float | None, after: float | None) -> str:
    if before is None or after is None:  # end to end, only the last block has a head
        return "-"
    return f"{100 * before:.1f} → {100 * after:.1f} {100 * (after - before):+.1f}"
