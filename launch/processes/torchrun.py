"""What torchrun starts on every rank: `torchrun --nproc-per-node=PROCESSES -m launch.train CONFIG [key=value ...]`.

srun may start the ranks, too (`slurm.py`).

There is one process per stage, or one per replica of a stage, in the order of the stages; each uses the GPU of its
local rank. Rank 0 prepares the run (configuration, run directory, key), starts the coordinator as its child and
announces to the other ranks where to meet. Without torchrun this module trains the whole network serially in one
process.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from launch.errors import EXIT_BAD_INPUT, EXIT_FAILED, print_error, report_error
from launch.failure import FailureRecorder, in_words, read_failure, record_failure
from launch.prepare.placement import count_gpus, device_of, place
from launch.prepare.prepared_run import PreparedRun
from launch.prepare.ranks import check_torchrun
from launch.processes.announcement import Announcement, UntrustedAnnouncementError, verify
from launch.processes.child import Child, ended
from launch.processes.measuring import finish
from launch.processes.rank_run import own_config, rank_run
from launch.processes.slurm import take_ranks_of_srun
from launch.processes.supervise import make_private_dir
from pipeline.config import Config
from pipeline.errors import OnwardError
from pipeline.ordinary_files import open_to_write
from workers.control.failures import FailureReport, Interrupted, raise_interrupted
from workers.control.start_messages import CoordinatorStart
from workers.links.wire import in_address
from workers.observing.terminal.safe_stream import open_standard_streams, survive_lost_output
from workers.observing.terminal.verbosity import detail, say, take_flags
from workers.observing.trace_file import merge_trace
from workers.run.environment import (
    ALLOCATOR,
    PREPARED,
    clean_environment,
    disable_core_dumps,
    first_number,
    interpreter,
    process_environment,
)
from workers.run.files import RunDir
from workers.run.keys import remove_key, write_key
from workers.run.logs import log_to_stderr
from workers.run.private import remove_fresh_cache
from workers.run.signals import PARENT_GONE, WARNINGS, signal_on_parent_death, stop_signals
from workers.topology.processes import COORDINATOR, KEY_FILE, TrainingProcess, training_processes
from workers.topology.rendezvous import START_SECONDS, Rendezvous
from workers.topology.torchrun import RunGroup, join_group, under_torchrun

COORDINATOR_SECONDS = 240.0
"""The coordinator must have opened the data set within this; importing torch from a shared disk takes minutes."""
LEAVE_SECONDS = 15.0
"""How long a stage that failed waits until the coordinator has recorded why."""


def main(arguments: list[str] | None = None) -> int:
    """Run this rank; returns its exit code."""
    clean_environment()
    disable_core_dumps()
    survive_lost_output()
    try:
        arguments = take_flags(sys.argv[1:] if arguments is None else arguments)
        take_ranks_of_srun()
        if not under_torchrun():
            with rank_run(arguments) as prepared:
                code = finish(prepared) if prepared.finished else _serial(prepared)
            if PREPARED not in os.environ and not prepared.finished:  # the command line does this itself
                _merge_traces(prepared.run)
            return code
        check_torchrun()
        signal_on_parent_death()
        for number in WARNINGS:  # as a scheduler sends them to all ranks, before they have begun
            signal.signal(number, raise_interrupted)
        group = join_group(START_SECONDS)
        return _lead(group, arguments) if group.rank == 0 else _follow(group, arguments)
    except Interrupted:
        return report_error(KeyboardInterrupt())
    except (Exception, KeyboardInterrupt) as error:
        return report_error(error)


def _serial(prepared: PreparedRun) -> int:
    from workers.observing.terminal.console import Console
    from workers.serial_run import run_serial

    config, run, start_step = prepared.config, prepared.run, prepared.start_step
    devices = [placement.device for placement in prepared.placements]
    failure_recorder = FailureRecorder(run, "the serial run")
    try:
        run_serial(config, run, devices, Console.of_process(), start_step, failure_recorder.failed)
    except BaseException as error:
        return failure_recorder.failed(error)
    return 0


def _merge_traces(run: RunDir) -> None:
    """Merge the traces of the processes, if there are any."""
    for note in merge_trace(run):
        say(note, important=True)


def _lead(group: RunGroup, arguments: list[str]) -> int:
    """Rank 0: prepare, start the coordinator, train its stages, wait for the coordinator."""
    terminal = os.dup(2)
    # torchrun ends all ranks when one has failed: what is made from here on must be removed again.
    for number in (signal.SIGTERM, signal.SIGINT, PARENT_GONE, *WARNINGS):
        signal.signal(number, raise_interrupted)
    with ExitStack() as stack:
        try:
            prepared = stack.enter_context(rank_run(arguments, group))
            if not prepared.finished:
                coordinator, announcement, key = _start_coordinator(group, prepared, stack)
        except OnwardError:
            group.publish_last("run", {"run_dir": "", "finished": False})
            raise
        if prepared.finished:
            group.publish_last("run", {"run_dir": "", "finished": True})
            return finish(prepared)
        run = prepared.run
        group.publish("run", announcement.signed(key))
        finished = _train(group, prepared.config, run, announcement.rendezvous(key))
        try:
            code = coordinator.wait(None if finished else LEAVE_SECONDS)
        except Interrupted:
            code = coordinator.wait(LEAVE_SECONDS)
        _merge_traces(run)
        if code < 0 and not run.failure.exists():
            record_failure(run, FailureReport(COORDINATOR, None, "died", ended(code)))
        failure = read_failure(run)
        if failure:
            os.write(terminal, (in_words(failure["kind"], failure["message"]) + "\n").encode())
        return code if finished or code else EXIT_FAILED


def _follow(group: RunGroup, arguments: list[str]) -> int:
    """Any other rank: train the stages of its own configuration, in the run that rank 0 announces."""
    warned = False

    def verified(message: dict[str, Any]) -> _Joined | None:
        nonlocal warned
        if not message.get("run_dir"):
            return None, bool(message.get("finished"))
        config, _ = own_config(arguments)
        try:
            run, announcement, key = verify(message, config)
        except UntrustedAnnouncementError as reason:
            if not warned:
                problem = f"ignored an announcement in torchrun's store that is not of rank 0 ({reason})"
                print_error(f"rank {group.rank}: {problem}")
            warned = True
            return None
        return (config.model_copy(update={"run_dir": str(run.path)}), run, announcement.rendezvous(key)), True

    joined, finished = group.look_up_valid("run", START_SECONDS, verified)
    if joined is None:
        return 0 if finished else EXIT_BAD_INPUT  # rank 0 has printed why
    return 0 if _train(group, *joined) else EXIT_FAILED


_Joined = tuple[tuple[Config, RunDir, Rendezvous] | None, bool]
"""The run that a rank has joined, or None and whether it had been trained."""


def _start_coordinator(group: RunGroup, prepared: PreparedRun, stack: ExitStack) -> tuple[Child, Announcement, bytes]:
    config, run = prepared.config, prepared.run
    private, host, store = "", "", ""
    if group.on_one_host:
        private = make_private_dir()
        stack.callback(shutil.rmtree, private, ignore_errors=True)
        key = (Path(private) / KEY_FILE).read_text()
    else:
        stack.callback(remove_key, run.key)
        key, host = write_key(run.key), os.environ["MASTER_ADDR"]
        store = f"tcp://{in_address(host)}:{os.environ['MASTER_PORT']}"
    run_dir = str(run.path.absolute())
    start = CoordinatorStart(
        run_dir=run_dir,
        private_dir=private,
        key=key,
        host=host,
        store=store,
        device=_device(group, config, training_processes(config)[0]),
        start_step=prepared.start_step,
        heartbeat_seconds=0,  # nobody listens under torchrun: a hung coordinator is noticed after `link.timeout`
        parent=training_processes(config)[0].name,
    )
    child = Child(
        "launch.processes.coordinator_main",
        start,
        process_environment(config.threads),
        run.log(COORDINATOR),
        held=prepared.lock,
    )
    stack.callback(child.close)
    control = child.first_message(COORDINATOR_SECONDS)["control"]
    return child, Announcement(run_dir=run_dir, private_dir=private, store=store, control=control), bytes.fromhex(key)


def _train(group: RunGroup, config: Config, run: RunDir, rendezvous: Rendezvous) -> bool:
    process = training_processes(config)[group.rank]
    description = f"process {os.getpid()} of {platform.node()} on {_device(group, config, process)}"
    detail(f"{process.name}: {description}, log {run.log(process.log_name).absolute()}")
    _log_to(run.log(process.log_name))
    import torch

    from workers.stage.process import run_training_process

    finished = run_training_process(config, run, rendezvous, process, torch.device(_device(group, config, process)))
    if group.rank == 0:
        for number in stop_signals(config):
            signal.signal(number, raise_interrupted)
    return finished


def _device(group: RunGroup, config: Config, process: TrainingProcess) -> str:
    """On one host the device that `onward check` prints; on several, the GPU of the local rank."""
    if group.on_one_host:
        return device_of(process, place(config, count_gpus()))
    wanted = config.stage(process.stages[0]).device
    if wanted in ("auto", "cuda") and (gpus := count_gpus()):
        return f"cuda:{group.local_rank % gpus}"  # a task of srun may see no other GPU than its own
    return wanted.replace("auto", "cpu")


def _log_to(path: Path) -> None:
    """Redirect everything that this process prints to its own log: only the coordinator prints to the terminal."""
    with open_to_write(path, path.parent.parent) as log:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    log_to_stderr()


def _with_allocator() -> None:
    """Start this process anew with the allocator's settings, which are read only at the start; torchrun sets none."""
    if not ALLOCATOR.keys() <= os.environ.keys():
        threads = first_number(os.environ.get("OMP_NUM_THREADS", ""), otherwise=1)
        os.execve(sys.executable, interpreter("launch.train", *sys.argv[1:]), process_environment(threads))


def rank() -> NoReturn:
    """Run this rank as the whole of its process, and end it."""
    open_standard_streams()
    _with_allocator()
    # Links and RPC agents have threads of their own; after a failure the process must not wait for them.
    exit_code = main()
    remove_fresh_cache()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
