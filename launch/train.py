"""What torchrun starts on every rank: `torchrun --nproc-per-node=STAGES -m launch.train CONFIG [key=value ...]`.

Rank k trains stage k + 1 on the GPU of its local rank. Rank 0 prepares the run (configuration, run
directory, key), starts the coordinator as its child and tells the other ranks where to meet. Without
torchrun this module runs the whole network serially in one process.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.exit_codes import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED
from launch.placement import count_gpus, place
from launch.preflight import preflight
from launch.resume import open_run
from launch.run_dir import read_config
from launch.spawn import PREPARED, START_STEP, Child
from pipeline.config import Config
from pipeline.config_loading import load_config
from pipeline.errors import OnwardError, UserError
from workers.environment import ALLOCATOR, process_environment
from workers.failures import Interrupted, RunFailed, Sign, raise_interrupted, sign_of
from workers.groups import RunGroup, join_group, under_torchrun
from workers.meeting import COORDINATOR, START_SECONDS, Meeting, stage_name
from workers.run_files import RunDir, write_json

EXIT_CODES = {"bad_input": EXIT_BAD_INPUT, "interrupted": EXIT_INTERRUPTED}
EXPLAIN_SECONDS = 3.0
"""The coordinator needs one to find the cause among the signs of a failure."""
LEAVE_SECONDS = 8.0
"""How long a stage that failed waits for the coordinator to have written down why."""


@dataclass(frozen=True)
class Prepared:
    """What rank 0 tells the others."""

    run_dir: str
    private_dir: str
    key: str
    rpc_init: str
    control: Any
    start_step: int
    steps_per_epoch: int

    def meeting(self, num_stages: int) -> Meeting:
        """Where the processes of the run meet."""
        # On one host the key is read from a file that only this user can open; the store is open to the network.
        key = self.key or (Path(self.private_dir) / "key").read_text()
        control = self.control if isinstance(self.control, str) else (self.control[0], self.control[1])
        return Meeting(self.private_dir, bytes.fromhex(key), num_stages, self.rpc_init, control)


def main(arguments: list[str] | None = None) -> int:
    """Run this rank; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if not under_torchrun():
            return _serial(*_prepared_run(arguments))
        group = join_group(START_SECONDS)
        return _lead(group, arguments) if group.rank == 0 else _follow(group)
    except NothingToDo:
        return 0
    except OnwardError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT if isinstance(error, UserError) else EXIT_FAILED


class NothingToDo(Exception):
    """The run has been trained to its end."""


def _prepared_run(arguments: list[str], num_processes: int | None = None) -> tuple[Config, RunDir, int]:
    """The run that the command line has prepared, and its first step; otherwise check and prepare it here.

    Args:
        num_processes: how many torchrun started; None without torchrun.

    Raises:
        NothingToDo: it has been trained.
    """
    if PREPARED in os.environ:
        run = Path(os.environ[PREPARED])
        return read_config(run), RunDir(run), int(os.environ.get(START_STEP, "0"))
    if not arguments or arguments[0].startswith("-"):
        raise UserError("usage: torchrun --nproc-per-node=STAGES -m launch.train CONFIG [key=value ...]")
    config = load_config(arguments[0], arguments[1:])
    if num_processes not in (None, config.num_stages):
        raise UserError(
            f"the network is cut into {config.num_stages} stages and torchrun started {num_processes} processes. "
            f"Give --nproc-per-node={config.num_stages} (one process a stage), or other model.cuts"
        )
    preflight(config)
    opened = open_run(config, Path(arguments[0]).stem)
    for note in opened.notes:
        print(note, flush=True)
    if opened.finished:
        raise NothingToDo
    return read_config(opened.path), RunDir(opened.path), opened.steps


def _serial(config: Config, run: RunDir, start_step: int) -> int:
    if not config.in_one_process:
        raise UserError(
            f"a pipelined run needs one process a stage. Start it with 'onward train', with 'torchrun "
            f"--nproc-per-node={config.num_stages} -m launch.train', or give runtime=serial"
        )
    from rich.console import Console

    from workers.serial_run import run_serial

    devices = [placement.device for placement in place(config, count_gpus())]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, raise_interrupted)
    try:
        run_serial(config, run, devices, Console(), start_step)
    except RunFailed as failure:
        return record_failure(run, failure.sign)
    except (OnwardError, Interrupted) as error:
        return record_failure(run, sign_of("the serial run", None, error))
    return 0


def _lead(group: RunGroup, arguments: list[str]) -> int:
    """Rank 0: prepare, start the coordinator, train stage 1, wait for the coordinator."""
    with ExitStack() as stack:
        try:
            config, run, start_step = _prepared_run(arguments, group.world_size)
            coordinator, prepared = _start_coordinator(group, config, run, start_step, stack)
        except (OnwardError, NothingToDo) as reason:
            group.publish("run", {"run_dir": "", "finished": isinstance(reason, NothingToDo)})
            raise
        group.publish("run", prepared.__dict__)
        finished = _train_stage(group, config, run, prepared)
        code = _coordinators_end(coordinator, finished)
        if code < 0 and not run.failure.exists():
            cause = f"its process was killed by signal {-code}"
            record_failure(run, Sign(COORDINATOR, None, "died", cause))
        return code if finished else EXIT_FAILED


def _coordinators_end(coordinator: Child, finished: bool) -> int:
    """Its exit code. When torchrun asks us to stop, the coordinator may be about to write down why: let it."""
    try:
        return coordinator.wait(None if finished else LEAVE_SECONDS)
    except Interrupted:
        try:
            return coordinator.process.wait(EXPLAIN_SECONDS)
        except subprocess.TimeoutExpired:  # it knows of no failure: the user asked, and it must stop too
            coordinator.process.terminate()
            return coordinator.wait(LEAVE_SECONDS)


def _follow(group: RunGroup) -> int:
    """Any other rank: train its stage where rank 0 says."""
    word = group.look_up("run", START_SECONDS)
    if not word["run_dir"]:
        return 0 if word["finished"] else EXIT_BAD_INPUT  # rank 0 has said why
    run = RunDir(Path(word["run_dir"]))
    return 0 if _train_stage(group, read_config(run.path), run, Prepared(**word)) else EXIT_FAILED


def _start_coordinator(
    group: RunGroup, config: Config, run: RunDir, start_step: int, stack: ExitStack
) -> tuple[Child, Prepared]:
    private = tempfile.mkdtemp(prefix="onward-")  # mode 0700
    stack.callback(shutil.rmtree, private, ignore_errors=True)
    key = secrets.token_hex(32)
    key_file = Path(private) / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(key)
    rpc_init = f"file://{private}/rpc" if group.on_one_host else "env://"
    start = {
        "run_dir": str(run.path),
        "key": key,
        "private_dir": private,
        "num_stages": config.num_stages,
        "rpc_init": rpc_init,
        "control_host": None if group.on_one_host else os.environ["MASTER_ADDR"],
        "device": str(_device(group, config)),
        "start_step": start_step,
    }
    environment = process_environment(config.threads)
    child = Child("launch.coordinate", start, environment, run.log(COORDINATOR))
    stack.callback(child.wait, 0.0)
    word = child.first_word()  # the coordinator has opened the data set: it knows how long an epoch is
    shared_key = "" if group.on_one_host else key
    return child, Prepared(str(run.path.absolute()), private, shared_key, rpc_init, start_step=start_step, **word)


def _train_stage(group: RunGroup, config: Config, run: RunDir, prepared: Prepared) -> bool:
    index = group.rank + 1
    _log_to(run.log(stage_name(index).replace(" ", "_")))
    import torch

    from workers.stage_process import run_stage_process

    device = torch.device(_device(group, config))
    meeting = prepared.meeting(config.num_stages)
    return run_stage_process(config, run, meeting, index, device, prepared.steps_per_epoch, prepared.start_step)


def _device(group: RunGroup, config: Config) -> str:
    """On one host as `onward check` prints it; on several, the GPU of the local rank."""
    if group.on_one_host:
        return place(config, count_gpus())[group.rank].device
    asked = config.stage(group.rank + 1).device
    return f"cuda:{group.local_rank}" if asked in ("auto", "cuda") and count_gpus() else asked.replace("auto", "cpu")


def _log_to(path: Path) -> None:
    """From here on everything this process prints goes to its own log; the terminal is the coordinator's."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)


def record_failure(run: RunDir, sign: Sign) -> int:
    """Write down the cause of a failed run, and say it unless the command line will; returns the exit code."""
    code = EXIT_CODES.get(sign.kind, EXIT_FAILED)
    message = str(sign.error())
    write_json(
        run.failure,
        {"who": sign.who, "step": sign.step, "kind": sign.kind, "cause": sign.cause}
        | {"message": message, "exit_code": code},
    )
    if PREPARED not in os.environ:
        print(f"error: {message}", file=sys.stderr)
    return code


def _with_allocator() -> None:
    """Start over with the allocator's settings, which count only from a process's start; torchrun sets none."""
    if not ALLOCATOR.keys() <= os.environ.keys():
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        os.execve(sys.executable, [sys.executable, "-m", "launch.train", *sys.argv[1:]], process_environment(threads))


if __name__ == "__main__":
    _with_allocator()
    # Links and RPC agents have threads of their own; after a failure nothing may wait for them.
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
