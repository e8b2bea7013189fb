"""After a stage has run out of memory: adds to the record of the failure what the account says, and what needs less.

A new process computes it: fake tensors do not go together with a process that has trained, or was forked from one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from launch.failure import read_failure
from launch.plan.fitting import why_memory_ran_out
from launch.prepare.placement import count_gpus, place
from launch.prepare.run_dir import read_config
from workers.run.environment import PREPARED, interpreter, process_environment, without_launcher
from workers.run.files import RunDir, write_json
from workers.run.out_of_memory import RAN_OUT

SECONDS = 300.0
"""For the account and the search for what needs less; the failure is told without them after that."""


def add_account(run: RunDir, seconds: float = SECONDS) -> None:
    """Complete the record of a run whose stage has run out of memory; any other is left as it is."""
    failure = read_failure(run)
    stage = re.match(r"stages? (\d+)", str(failure.get("who"))) if failure else None
    if failure is None or stage is None or not str(failure.get("cause")).startswith(RAN_OUT):
        return
    environment = without_launcher(process_environment(1))
    environment.pop(PREPARED, None)
    command = interpreter("launch.processes.out_of_memory", str(run.path), stage[1])
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=True,
        ).stdout
        write_json(run.failure, {**failure, "message": f"{failure['message']}. {' '.join(told.split())}"})


def main() -> None:
    """Print what is to be added for the run and the stage that are named on the command line."""
    config = read_config(Path(sys.argv[1]))
    print(why_memory_ran_out(config, place(config, count_gpus()), int(sys.argv[2])), flush=True)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
