"""`onward evaluate RUN`: measure every block of a finished run again and write its report."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from rich.console import Console

from launch.placement import count_gpus, place
from launch.run_dir import read_config
from pipeline.errors import UserError
from workers.finish import measure, print_report
from workers.run_files import RunDir, write_json


def evaluate_run(run_dir: Path) -> int:
    """Fit the linear probes of the trained and of the untrained network, update `report.json`, print the table.

    Raises:
        UserError: the run has not ended, its weights are damaged, or its data set has no test split.
    """
    run = RunDir(run_dir)
    config = read_config(run_dir)
    try:
        report = json.loads(run.report.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"'{run.report}' cannot be read ({error}): this run has not been trained to its end") from None
    report |= measure(config, run, torch.device(place(config, count_gpus())[0].device))
    write_json(run.report, report)
    print_report(Console(), run, report)
    return 0
