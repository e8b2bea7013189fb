"""The coordinator's process: started by rank 0 with one JSON object on its standard input, ends with it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from threading import Timer
from typing import Any

import torch
from rich.console import Console

from launch.run_dir import read_config
from launch.spawn import watch_parent
from launch.train import record_failure
from workers.coordinator import Coordinator
from workers.failures import Interrupted, RunFailed, Sign, raise_interrupted, sign_of
from workers.meeting import COORDINATOR, Meeting, stage_name
from workers.run_files import RunDir

ORPHAN_SECONDS = 5.0
"""How long an orphaned coordinator may take to find and write down the cause."""


def main(announce_fd: int) -> int:
    """Coordinate one run; returns the exit code."""
    start: dict[str, Any] = json.loads(_first_line())
    run = RunDir(Path(start["run_dir"]))
    config = read_config(run.path)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, raise_interrupted)
    host = start["control_host"]
    meeting = Meeting(
        start["private_dir"],
        bytes.fromhex(start["key"]),
        start["num_stages"],
        start["rpc_init"],
        (host, 0) if host else str(Path(start["private_dir"]) / "control"),
    )

    def announce(address: Any, steps_per_epoch: int) -> None:
        word = {"control": address, "steps_per_epoch": steps_per_epoch}
        os.write(announce_fd, json.dumps(word).encode() + b"\n")

    logging.info("%s: process %d", COORDINATOR, os.getpid())
    coordinator = Coordinator(
        config, run, meeting, torch.device(start["device"]), Console(), announce, start["start_step"]
    )
    watch_parent(lambda: _orphaned(coordinator, run))
    with run.lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            coordinator.run()
        except RunFailed as failure:
            return record_failure(run, failure.sign)
        except (Exception, Interrupted) as error:
            logging.exception("the coordinator failed")
            return record_failure(run, sign_of(COORDINATOR, None, error))
        finally:
            shutil.rmtree(meeting.private_dir, ignore_errors=True)  # rank 0 does so too, unless it was killed
    return 0


def _first_line() -> bytes:
    """Byte by byte: what follows on standard input belongs to the watch for the parent's end."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            raise SystemExit("the coordinator is started by rank 0 of a run, not by hand")
        line += piece
    return line


def _orphaned(coordinator: Coordinator, run: RunDir) -> None:
    cause = "its process ended without a word"
    coordinator.report_loss_of(stage_name(1), cause)

    def give_up() -> None:
        if not run.failure.exists():
            record_failure(run, Sign(stage_name(1), None, "died", cause))
        shutil.rmtree(coordinator.meeting.private_dir, ignore_errors=True)
        os._exit(1)

    timer = Timer(ORPHAN_SECONDS, give_up)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    exit_code = main(int(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
