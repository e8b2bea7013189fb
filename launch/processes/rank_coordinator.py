"""The coordinator of a run under torchrun or srun: a child of rank 0, and what that announces of it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from launch.prepare.placement import count_gpus, device_of, place
from launch.prepare.prepared_run import PreparedRun
from launch.processes.announcement import Announcement
from launch.processes.child import Child
from launch.processes.presence import settings_of
from launch.processes.start_check import Agreement
from launch.processes.supervise import make_private_dir
from pipeline.config import Config
from workers.control.start_messages import CoordinatorStart
from workers.links.wire import in_address
from workers.observing.terminal.verbosity import say
from workers.run.environment import process_environment
from workers.run.keys import given_key, remove_key, write_key
from workers.run.notice import notice_after
from workers.topology.processes import COORDINATOR, KEY_FILE, TrainingProcess, training_processes
from workers.topology.rendezvous import START_SECONDS
from workers.topology.torchrun import LOOK_SECONDS, RunGroup

COORDINATOR_SECONDS = START_SECONDS
"""The coordinator must have opened the data set within this; that it has ended is noticed at once."""


def start_coordinator(
    group: RunGroup, prepared: PreparedRun, stack: ExitStack, agreement: Agreement | None
) -> tuple[Child, Announcement, bytes]:
    """Start it; returns it, what is to be announced, and the key of the run.

    Args:
        group: the ranks.
        prepared: the run.
        stack: ends the coordinator, and removes the key.
        agreement: what several hosts have found out; None on one.

    Raises:
        TrainingError: it has ended, or has not opened the data set in time.
    """
    config, run = prepared.config, prepared.run
    private, host, store = "", "", ""
    if agreement is None:
        private = make_private_dir()
        stack.callback(shutil.rmtree, private, ignore_errors=True)
        key = (Path(private) / KEY_FILE).read_text()
    else:
        stack.callback(remove_key, run.key)
        given = given_key()
        key, host = write_key(run.key) if given is None else given.hex(), agreement.coordinator
        store = f"tcp://{in_address(os.environ['MASTER_ADDR'])}:{os.environ['MASTER_PORT']}"
    run_dir = str(run.path.absolute())
    start = CoordinatorStart(
        run_dir=run_dir,
        private_dir=private,
        key=key,
        host=host,
        store=store,
        apart=agreement is not None and bool(agreement.apart),
        hosts=[] if agreement is None else list(agreement.hosts),
        device=device_of_rank(group, config, training_processes(config)[0]),
        start_step=prepared.start_step,
        heartbeat_seconds=0,  # nobody listens under torchrun: a hung coordinator is noticed after `link.timeout`
        parent=training_processes(config)[0].name,
    )
    child = Child(
        "launch.processes.coordinator_main",
        start,
        process_environment(config.threads, group.local_world_size),
        run.log(COORDINATOR),
        held=prepared.lock,
    )
    stack.callback(child.close)
    with notice_after(lambda: say("waiting for the coordinator, which opens the data set")):
        control = child.first_message(COORDINATOR_SECONDS)["control"]
    announcement = Announcement(
        run_dir=run_dir,
        private_dir=private,
        store=store,
        control=control,
        digest=settings_of(config)[1],
        recompute={str(k): config.stage(k).memory.recompute for k in range(1, config.num_stages + 1)},
    )
    return child, announcement, bytes.fromhex(key)


def pass_on_failures(group: RunGroup, config: Config, coordinator: Child) -> Callable[[], None]:
    """From a thread: tell the coordinator when a rank has ended before it has connected, and has left why.

    Returns what ends that, to be called before the coordinator is closed.
    """
    processes, over = training_processes(config), threading.Event()

    def watch() -> None:
        with suppress(RuntimeError, ValueError):  # the store has ended, and with it the run
            while not over.wait(LOOK_SECONDS):
                if (failed := group.failed()) is not None:
                    who = processes[failed[0]].name
                    coordinator.send({"type": "gone", "who": who, "cause": failed[1], "kind": "bad_input"})
                    return

    threading.Thread(target=watch, name="failed-ranks", daemon=True).start()
    return over.set


def device_of_rank(group: RunGroup, config: Config, process: TrainingProcess) -> str:
    """On one host the device that `onward check` prints; on several, the GPU of the local rank."""
    if group.on_one_host:
        return device_of(process, place(config, count_gpus()))
    wanted = config.stage(process.stages[0]).device
    if wanted in ("auto", "cuda") and (gpus := count_gpus()):
        return f"cuda:{group.local_rank % gpus}"  # a task of srun may see no other GPU than its own
    return wanted.replace("auto", "cpu")
