"""Real runs for tests: the command line in a process of its own, on a network that trains in milliseconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TINY = """
seed: 1
train: {epochs: 4, max_steps: 6}
data: {batch_size: 64, image_size: 28, mean: [0.286, 0.286, 0.286], std: [0.353, 0.353, 0.353]}
model: {backbone: resnet18, width: 8, stem: strided, zero_init_residual: false}
head: {width: 32, projector: [32, 32]}
optimizer: {warmup_epochs: 1}
evaluation: {linear_probe: false}
"""
LIMIT = 240
"""Seconds; a run of six tiny steps takes about ten on two idle cores."""


def command(folder: Path, *overrides: str, config: Path | None = None) -> list[str]:
    """`onward train`, on the tiny network unless another configuration is given; writes to `folder/run`."""
    if config is None:
        config = folder / "tiny.yaml"
        config.write_text(TINY)
    return [sys.executable, "-m", "launch.cli", "train", str(config), f"run_dir={folder / 'run'}", *overrides]


def start(
    folder: Path, *overrides: str, environment: dict[str, str] | None = None, config: Path | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(folder, *overrides, config=config),
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(
    folder: Path, *overrides: str, environment: dict[str, str] | None = None, config: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run to the end; kills everything after `LIMIT` seconds."""
    process = start(folder, *overrides, environment=environment, config=config)
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def report(folder: Path) -> dict[str, Any]:
    """What a finished run wrote about itself."""
    value: dict[str, Any] = json.loads((folder / "run" / "report.json").read_text())
    return value


def wait_for_steps(folder: Path, steps: int, process: subprocess.Popen[str]) -> None:
    """Until `steps` lines are in `metrics.jsonl`."""
    deadline = time.monotonic() + LIMIT
    path = folder / "run" / "metrics.jsonl"
    while not path.exists() or len(path.read_text().splitlines()) < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no steps"
        time.sleep(0.05)


def processes_mentioning(text: str) -> list[str]:
    """Command lines of live processes that mention `text` or were started with it in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                data = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if text.encode() in data:
                found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found
