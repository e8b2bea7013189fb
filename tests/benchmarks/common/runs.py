"""What the benchmarks that train have in common: one `onward train`, and what it left behind."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[3]


def machine() -> str:
    """The line that every table begins with."""
    name = platform.processor() or platform.machine()
    return f"{date.today()}  {name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"


def train(run: Path, config: Path, *overrides: str, check: bool = True) -> dict[str, Any]:
    """Train in `run`; returns its report, empty if it failed and `check` is false."""
    command = [sys.executable, "-m", "launch.cli", "train", str(config), f"run_dir={run}", *overrides]
    quiet = None if check else subprocess.DEVNULL
    subprocess.run(command, check=check, stdout=subprocess.DEVNULL, stderr=quiet, timeout=3600, cwd=ROOT)
    report = run / "report.json"
    return json.loads(report.read_text()) if report.exists() else {}


def steps(run: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
