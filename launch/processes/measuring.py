"""Measures, in a new process, the blocks of a run that was ended after its training and before it was measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from launch.errors import EXIT_INTERRUPTED, report_error
from launch.prepare.placement import count_gpus, place
from launch.prepare.prepared_run import PreparedRun
from launch.prepare.run_dir import read_config
from launch.processes.child import ended
from pipeline.errors import TrainingError
from workers.observing.terminal.console import Terminal
from workers.run.environment import PREPARED, interpreter, process_environment, without_launcher
from workers.run.files import RunDir


def finish(prepared: PreparedRun) -> int:
    """Measure a run that has been trained to its end, if that is left to do; returns the exit code.

    Raises:
        TrainingError: the process was killed.
    """
    run = prepared.run
    if not prepared.unmeasured:
        return 0
    run.failure.unlink(missing_ok=True)
    environment = {**without_launcher(process_environment(prepared.config.threads)), PREPARED: str(run.path)}
    command = interpreter("launch.processes.measuring", str(run.path))
    code = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
    if code < 0:
        raise TrainingError(f"the run in '{run.path}' has been trained and could not be measured: {ended(code)}")
    return code


def main() -> int:
    """Measure the run that is named on the command line; returns the exit code."""
    run = RunDir(Path(sys.argv[1]))
    try:
        import torch

        from workers.coordinator.finish import measure_the_rest
        from workers.run.compute import set_up_compute

        config = read_config(run.path)
        set_up_compute(config)
        device = torch.device(place(config, count_gpus())[0].device)
        measure_the_rest(config, run, device, Terminal.of_process())
    except KeyboardInterrupt:  # the process that started it prints that
        return EXIT_INTERRUPTED
    except Exception as error:
        return report_error(error)
    return 0


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
