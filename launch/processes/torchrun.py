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
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from launch.errors import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, print_error
from launch.failure import FailureRecorder, in_words, read_failure, record_failure
from launch.prepare.link_kind import with_link, with_shared_run_dir
from launch.prepare.prepared_run import PreparedRun
from launch.prepare.ranks import check_torchrun
from launch.processes.announcement import UntrustedAnnouncementError, verify
from launch.processes.apart import KEY, keep_failure, open_folder, verify_apart
from launch.processes.child import ended
from launch.processes.error_file import write_error_file
from launch.processes.measuring import finish
from launch.processes.missing_ranks import sentence_of, why_it_ended
from launch.processes.out_of_memory import add_account
from launch.processes.rank_coordinator import device_of_rank, pass_on_failures, start_coordinator
from launch.processes.rank_output import first_of_host, report, say_once
from launch.processes.rank_run import own_config, rank_run
from launch.processes.slurm import take_ranks_of_srun
from launch.processes.start_check import Agreement, StartRefused, agree
from launch.processes.waiting_agent import end_waiting_agent
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.ordinary_files import open_to_write
from workers.control.failures import FailureReport, Interrupted, raise_interrupted
from workers.observing.terminal.safe_stream import open_standard_streams, survive_lost_output
from workers.observing.terminal.verbosity import detail, say, take_flags
from workers.observing.trace_file import merge_trace
from workers.run.environment import PREPARED, clean_environment, disable_core_dumps
from workers.run.files import RunDir
from workers.run.keys import given_key
from workers.run.logs import log_to_stderr
from workers.run.notice import notice_after
from workers.run.private import remove_fresh_cache
from workers.run.signals import PARENT_GONE, WARNINGS, signal_on_parent_death, stop_signals
from workers.topology.joining import join_group, under_torchrun
from workers.topology.processes import COORDINATOR, training_processes
from workers.topology.rendezvous import START_SECONDS, Rendezvous
from workers.topology.torchrun import RankFailed, RunGroup

if TYPE_CHECKING:
    from workers.stage.process import Outcome

LEAVE_SECONDS = 15.0
"""How long a stage that failed waits until the coordinator has recorded why."""


def main(arguments: list[str] | None = None) -> int:
    """Run this rank; returns its exit code."""
    clean_environment()
    disable_core_dumps()
    survive_lost_output()
    try:
        arguments, problem = _without_flags(sys.argv[1:] if arguments is None else arguments)
        take_ranks_of_srun()
        if not under_torchrun():
            if problem is not None:
                raise problem
            with rank_run(arguments) as prepared:
                code = finish(prepared) if prepared.finished else _serial(prepared)
            if PREPARED not in os.environ and not prepared.finished:  # the command line does this itself
                _merge_traces(prepared.run)
            return code
        signal_on_parent_death()
        for number in WARNINGS:  # as a scheduler sends them to all ranks, before they have begun
            signal.signal(number, raise_interrupted)
        group = _join()
        if group.on_one_host and problem is not None:
            raise problem
        agreement = None if group.on_one_host else agree(group, arguments, say_once, problem)
        if group.rank == 0:
            return _lead(group, arguments, agreement)
        try:
            return _follow(group, arguments, agreement)
        except RankFailed as error:
            raise StartRefused(str(error)) from None
        except BaseException as error:
            group.fail(why_it_ended(group, error))
            raise
    except Interrupted:
        return report(KeyboardInterrupt())
    except (Exception, KeyboardInterrupt) as error:
        return report(error)


def _without_flags(arguments: list[str]) -> tuple[list[str], UserError | None]:
    """The arguments without flags, and what is wrong with those, or with how torchrun was started."""
    try:
        arguments = take_flags(arguments)
        check_torchrun()
    except UserError as error:
        return arguments, error
    return arguments, None


def _join() -> RunGroup:
    try:
        return join_group(START_SECONDS, say_once, wait_for_all=False)
    except UserError as error:
        raise StartRefused(str(error)) from None


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


def _lead(group: RunGroup, arguments: list[str], agreement: Agreement | None = None) -> int:
    """Rank 0: prepare, start the coordinator, train its stages, wait for the coordinator."""
    terminal = os.dup(2)
    # torchrun ends all ranks when one has failed: what is made from here on must be removed again.
    for number in (signal.SIGTERM, signal.SIGINT, PARENT_GONE, *WARNINGS):
        signal.signal(number, raise_interrupted)
    with ExitStack() as stack:
        try:
            shared = agreement is None or not agreement.apart
            hosts = () if agreement is None else agreement.hosts
            prepared = stack.enter_context(rank_run(arguments, group, shared, hosts))
            if not prepared.finished:
                coordinator, announcement, key = start_coordinator(group, prepared, stack, agreement)
        except BaseException as error:  # whatever it is, the others wait for this rank
            group.publish_last("run", {"run_dir": "", "finished": False, "problem": sentence_of(error)})
            raise
        if prepared.finished:
            group.publish_last("run", {"run_dir": "", "finished": True})
            return finish(prepared)
        run = prepared.run
        in_the_store = {} if shared or given_key() else {KEY: key.hex()}
        group.publish("run", announcement.signed(key) | in_the_store)
        stack.callback(pass_on_failures(group, prepared.config, coordinator))
        own_address = agreement.own if agreement is not None else ""
        finished = False
        with suppress(RankFailed):  # the coordinator has been told
            finished = _train(group, prepared.config, run, announcement.rendezvous(key, own_address)) != "failed"
        try:
            code = coordinator.wait(None if finished else LEAVE_SECONDS)
        except Interrupted:
            code = coordinator.wait(LEAVE_SECONDS)
        _merge_traces(run)
        if code < 0 and not run.failure.exists():
            record_failure(run, FailureReport(COORDINATOR, None, "died", ended(code)))
        add_account(run, LEAVE_SECONDS)
        failure = read_failure(run)
        if failure:
            os.write(terminal, (in_words(failure["kind"], failure["message"]) + "\n").encode())
            write_error_file(in_words(failure["kind"], failure["message"]))
        return code if finished or code else EXIT_FAILED


def _follow(group: RunGroup, arguments: list[str], agreement: Agreement | None = None) -> int:
    """Any other rank: train the stages of its own configuration, in the run that rank 0 announces."""
    warned, problem, own_address = False, "", agreement.own if agreement is not None else ""
    apart = agreement is not None and group.rank in agreement.apart

    def verified(message: dict[str, Any]) -> _Joined | None:
        nonlocal warned, problem
        if not message.get("run_dir"):
            problem = str(message.get("problem", ""))
            return None, bool(message.get("finished"))
        config = with_link(own_config(arguments)[0], agreement is None)
        if agreement is not None:
            config = with_shared_run_dir(config, not agreement.apart)
        try:
            run, announcement, key, config = (verify_apart if apart else verify)(message, config)
        except UntrustedAnnouncementError as reason:
            if not warned:
                ignored = f"ignored an announcement in torchrun's store that is not of rank 0 ({reason})"
                print_error(f"rank {group.rank}: {ignored}")
            warned = True
            return None
        rendezvous = announcement.rendezvous(key, own_address, apart)
        if agreement is not None and apart:
            open_folder(run, agreement.first_host, announcement.run_dir)
        return (config.model_copy(update={"run_dir": str(run.path)}), run, rendezvous), True

    first = "rank 0" if agreement is None else agreement.first_host
    with notice_after(
        lambda: say_once(f"{platform.node()} waits for {first} to look at the data and to prepare the run")
    ):
        joined, finished = group.look_up_valid("run", START_SECONDS, verified)
    if joined is None:
        if problem:
            write_error_file(f"error: {first}: {problem}")
        if problem and agreement is not None and platform.node() != first and first_of_host():
            print_error(f"error: {first}: {problem}")  # elsewhere, rank 0 has printed it
        return 0 if finished else EXIT_BAD_INPUT
    own: list[FailureReport] = []

    def failed(failure: FailureReport) -> None:
        own.append(failure)
        if apart:
            keep_failure(joined[1], failure)

    if (outcome := _train(group, *joined, failed=failed)) != "failed":
        return 0 if outcome == "done" else _left(group, joined[0].snapshots.leave_seconds)
    if any(end_waiting_agent(failure.cause) for failure in own):
        return EXIT_FAILED
    if (failure := read_failure(joined[1])) is None:
        return EXIT_FAILED
    write_error_file(in_words(failure["kind"], failure["message"]))
    return int(failure["exit_code"]) or EXIT_FAILED


def _left(group: RunGroup, limit: float) -> int:
    """The exit code of a rank that was asked to stop: 0 would say to who starts ranks one by one that it is done.

    Where one rank ends otherwise, torchrun and some schedulers end the rest. So rank 0, which has not ended yet, is
    waited for; under torchrun it alone says how the run ended.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return 0
    group.wait_for_rank_0(limit)
    return EXIT_INTERRUPTED


_Joined = tuple[tuple[Config, RunDir, Rendezvous] | None, bool]
"""The run that a rank has joined, or None and whether it had been trained."""


def _train(
    group: RunGroup,
    config: Config,
    run: RunDir,
    rendezvous: Rendezvous,
    failed: Callable[[FailureReport], object] = lambda failure: None,
) -> Outcome:
    process = training_processes(config)[group.rank]
    description = f"process {os.getpid()} of {platform.node()} on {device_of_rank(group, config, process)}"
    detail(f"{process.name}: {description}, log {run.log(process.log_name).absolute()}")
    _log_to(run.log(process.log_name))
    import torch

    from workers.stage.process import run_training_process

    device = torch.device(device_of_rank(group, config, process))
    outcome = run_training_process(config, run, rendezvous, process, device, failed, group.failure_watch())
    if group.rank == 0:
        for number in stop_signals(config):
            signal.signal(number, raise_interrupted)
    return outcome


def _log_to(path: Path) -> None:
    """Redirect everything that this process prints to its own log: only the coordinator prints to the terminal."""
    with open_to_write(path, path.parent.parent) as log:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    log_to_stderr()


def rank() -> NoReturn:
    """Run this rank as the whole of its process, and end it."""
    open_standard_streams()
    # Links and RPC agents have threads of their own; after a failure the process must not wait for them.
    exit_code = main()
    remove_fresh_cache()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
