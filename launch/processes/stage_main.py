"""One training process of `onward train`: started with one JSON object on its standard input, ends with its parent."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from launch.errors import EXIT_FAILED
from launch.prepare.run_dir import read_config
from launch.processes.child import listen_to_parent, read_start
from workers.control.start_messages import StageStart
from workers.run.files import RunDir, exit_at_once
from workers.run.logs import log_to_stderr
from workers.topology.processes import training_processes


def main() -> int:
    """Train what this process is for; returns the exit code."""
    start = read_start(StageStart)
    run = RunDir(Path(start.run_dir))
    listen_to_parent(lambda message: None, lambda: _orphaned(run))
    log_to_stderr()
    import torch

    from workers.stage.process import run_training_process
    from workers.topology.rendezvous import Rendezvous

    config = read_config(run.path)
    process = training_processes(config)[start.rank]
    rendezvous = Rendezvous.on_one_host(start.private_dir)
    outcome = run_training_process(config, run, rendezvous, process, torch.device(start.device))
    return EXIT_FAILED if outcome == "failed" else 0


def _orphaned(run: RunDir) -> None:
    exit_at_once(run, 1)


if __name__ == "__main__":
    # Links and RPC agents have threads of their own; after a failure nothing may wait for them.
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
