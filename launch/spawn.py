"""Starts the processes of a run and reports how they ended; the only part of `launch` that starts any.

`run_training` runs in the command line's process and needs no torch. For a pipelined run it starts
an agent (this module as a script), which is torchrun's own launcher plus a record of exit codes; the
agent starts one process a stage, and the process of stage 1 starts the coordinator. Whoever loses its
parent ends: every child watches a pipe that its parent holds open.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from launch.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED
from pipeline.config import Config
from pipeline.errors import TrainingError
from workers.environment import process_environment
from workers.failures import Sign
from workers.run_files import RunDir, write_json

STOP_SECONDS = 40.0
"""From asking an agent to stop until it is killed; torchrun gives its workers 30."""
COORDINATOR_SECONDS = 60.0
"""A coordinator must have started, or ended, within this."""
EXITS = "exits.json"
START_STEP = "ONWARD_START_STEP"
"""The first step to train, where a stopped run goes on."""
PREPARED = "ONWARD_RUN_DIR"
"""Set when the run directory has been made and the user is served by the command line."""


def run_training(config: Config, run_dir: Path, start_step: int = 0) -> int:
    """Train in the prepared `run_dir` from `start_step`; returns the exit code, after saying why if it is not 0."""
    run = RunDir(run_dir)
    serial = config.in_one_process
    module = "launch.train" if serial else "launch.spawn"
    environment = {**process_environment(config.threads), PREPARED: str(run_dir), START_STEP: str(start_step)}
    log = run.log("serial" if serial else "torchrun")
    how = "in one process" if serial else f"in {config.num_stages} processes and a coordinator, link {config.link.kind}"
    mode = {"sequential": " one after the other", "end_to_end": " with one loss"}.get(config.mode, "")
    print(f"training {config.num_stages} stages{mode} {how}; everything goes to {run_dir}", flush=True)
    with log.open("ab") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", module, str(run.config), str(config.num_stages)],
            env=environment,
            stdin=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        code, interrupted = _wait(child)
    _await_release(run)
    return _tell(run, code, interrupted)


def _wait(child: subprocess.Popen[bytes]) -> tuple[int, bool]:
    """Wait for the child; a signal to us asks it to stop, a second one kills it."""
    asked: list[float] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(time.monotonic())
        child.terminate() if len(asked) == 1 else child.kill()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while child.poll() is None:
            if asked and time.monotonic() - asked[0] > STOP_SECONDS:
                child.kill()
            time.sleep(0.05)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return child.returncode, bool(asked)


def _await_release(run: RunDir) -> None:
    """Until the coordinator has let go of the run: it may outlive the stages by a moment."""
    deadline = time.monotonic() + 10
    with run.lock.open("a") as lock:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.05)


def _tell(run: RunDir, code: int, interrupted: bool) -> int:
    """Say in one line on stderr what ended the run; the exit code."""
    failure = _read_json(run.failure)
    if interrupted and (failure or code):
        step = failure["step"] if failure else None
        print("interrupted" if step is None else f"interrupted at step {step}", file=sys.stderr)
        return EXIT_INTERRUPTED
    if failure:
        failure = _with_exit_code(run, failure) if failure["kind"] == "died" else failure
        print(f"error: {failure['message']}", file=sys.stderr)
        return int(failure["exit_code"])
    if code:
        print(f"error: the run ended without a word (exit code {code}); see {run.logs}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _with_exit_code(run: RunDir, failure: dict[str, Any]) -> dict[str, Any]:
    """Add what the agent saw of a process that ended without a word."""
    for stage, code in (_read_json(run.logs / EXITS) or {}).items():
        if failure["who"] == stage and code:
            cause = f"its process ended with exit code {code}"
            if code < 0:
                cause = f"its process was killed by signal {-code} ({signal.Signals(-code).name})"
            message = str(Sign(stage, failure["step"], "died", cause).error())
            failure = {**failure, "cause": cause, "message": message}
            write_json(run.failure, failure)
    return failure


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value


class Child:
    """A process that ends when its parent does, because it watches a pipe; started with one JSON object."""

    def __init__(self, module: str, start: dict[str, Any], environment: dict[str, str], errors: Path) -> None:
        reader, writer = os.pipe()
        with errors.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(writer)],
                env=environment,
                stdin=subprocess.PIPE,
                stderr=log,
                pass_fds=[writer],
                start_new_session=True,
            )
        os.close(writer)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(start).encode() + b"\n")  # secrets travel here, never as arguments
        self.process.stdin.flush()
        self._reader = reader

    def first_word(self, timeout: float = COORDINATOR_SECONDS) -> Any:
        """The JSON value that the child announces when it is ready.

        Raises:
            TrainingError: it ended, or said nothing in time.
        """
        data = b""
        deadline = time.monotonic() + timeout
        while not data.endswith(b"\n"):
            ready, _, _ = select.select([self._reader], [], [], max(deadline - time.monotonic(), 0))
            piece = os.read(self._reader, 65536) if ready else b""
            if not piece:
                raise TrainingError("the coordinator did not start; see logs/coordinator.log")
            data += piece
        return json.loads(data)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; it is killed if it is still there after `timeout` seconds."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def watch_parent(then: Callable[[], None]) -> None:
    """Call `then` from a thread when the process that started us has gone (our standard input ends)."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        then()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def agent_main(config_file: str, num_stages: int) -> int:
    """torchrun's launcher on this host: one process a stage; writes their exit codes beside the logs."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    watch_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    # torchrun's own store keeps stale addresses from one attempt to the next unless told to make a new one.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_stages,
        run_id=f"onward-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    try:
        elastic_launch(settings, sys.executable)("-m", "launch.train", config_file)
    except ChildFailedError as error:
        exits = {f"stage {rank + 1}": failure.exitcode for rank, failure in error.failures.items()}
        write_json(Path(config_file).parent / "logs" / EXITS, exits)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(agent_main(sys.argv[1], int(sys.argv[2])))
