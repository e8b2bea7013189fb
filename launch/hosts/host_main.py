"""What runs on every host of `onward train --hosts`: starts its ranks, passes on what they print, and ends them.

The launcher starts it over ssh and talks to its standard input. When that closes, because the launcher was ended or the
connection is lost, the ranks are asked to stop, and killed if they do not. It imports no torch: it answers at once.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from launch.errors import EXIT_BAD_INPUT, EXIT_FAILED, print_error
from launch.hosts.messages import MARKER, HostFacts, Listen, Listening, Reach, StartRanks, StopRanks, Ways
from launch.prepare.placement import count_gpus
from launch.prepare.ports import free_port
from pipeline.config.network import NetworkConfig
from pipeline.errors import ConfigError
from workers.control.start_messages import StartMessage
from workers.run.environment import BY_HOSTS, interpreter, without_launcher
from workers.run.json_lines import LineReader
from workers.run.keys import KEY_VARIABLE, write_key
from workers.run.private import make_private, temporary_places
from workers.topology.network import ProbeListener, candidates, reach_each, reason
from workers.topology.processes import KEY_FILE

POLL_SECONDS = 0.05
FAILED_SECONDS = 20.0
"""After one rank has failed, the others of this host notice it and end; those left after this time are ended."""
END_SECONDS = 15.0
"""Between that and killing them."""
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
"""Where the user has not said: PyTorch warns of every host whose address has no name, on the terminal of all."""


def main() -> int:
    """Answer the launcher, then run the ranks; returns the exit code."""
    with ExitStack() as stack:
        reader = LineReader(0)
        _answer(HostFacts(name=platform.node(), onward=importlib.metadata.version("onward"), gpus=count_gpus()))
        while not reader.closed:
            for message in reader.read(None):
                kind = message.pop("type", None)
                if kind == "Listen":
                    _answer(_listen(Listen.from_message(message), stack))
                elif kind == "Reach":
                    _answer(_reach(Reach.from_message(message)))
                elif kind == "StartRanks":
                    return _run(StartRanks.from_message(message), reader, stack)
    return EXIT_FAILED  # the launcher has gone


def _answer(message: StartMessage) -> None:
    sys.stdout.write(f"{MARKER}{json.dumps(message.to_message())}\n")
    sys.stdout.flush()


def _listen(wanted: Listen, stack: ExitStack) -> Listening:
    network = NetworkConfig(interface=wanted.interface or None)
    try:
        addresses = candidates(network, _reached_by_ssh())
    except ConfigError as error:
        return Listening(problem=str(error))
    probes = stack.enter_context(ProbeListener(addresses[:1] if wanted.interface else []))
    return Listening(addresses=addresses, port=probes.port, token=probes.token, free_port=free_port())


def _reached_by_ssh() -> str | None:
    """The address of this host that the launcher's ssh has reached, if another host may reach it, too."""
    _, _, address, *_ = [*os.environ.get("SSH_CONNECTION", "").split(), "", "", ""]
    return None if address in ("", "127.0.0.1", "::1") else address.partition("%")[0]


def _reach(wanted: Reach) -> Ways:
    tried = reach_each((address, wanted.port, wanted.token) for address in wanted.addresses)
    reached = [address for (address, _, _), own in tried.items() if not isinstance(own, OSError)]
    failed = [(target, error) for target, error in tried.items() if isinstance(error, OSError)]
    return Ways(reached=reached, unreached=[reason(error, *target[:2]) for target, error in failed])


def _run(start: StartRanks, reader: LineReader, stack: ExitStack) -> int:
    problems: list[str] = []
    folder = make_private("onward-", temporary_places(), problems)
    if not folder:
        print_error(f"error: {platform.node()} has no folder for the key of the run: {'; '.join(problems)}. Set TMPDIR")
        return EXIT_BAD_INPUT
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    write_key(Path(folder) / KEY_FILE, start.key)
    given = {KEY_VARIABLE: str(Path(folder) / KEY_FILE), BY_HOSTS: "1"}
    ranks = LocalRanks(start, {**QUIET, **without_launcher(dict(os.environ)), **given})
    stack.callback(ranks.kill)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda n, frame: ranks.stop(start.leave_seconds))
    while ranks.running():
        for message in reader.read(POLL_SECONDS):
            if message.pop("type", None) == "StopRanks":
                ranks.stop(StopRanks.from_message(message).seconds)
        if reader.closed:
            ranks.stop(start.leave_seconds)
            time.sleep(POLL_SECONDS)
    return ranks.exit_code()


class LocalRanks:
    """The ranks of this host; `launch.train` in a process group of its own, each.

    Args:
        start: what they are told.
        environment: of all of them, without torchrun's variables.
    """

    def __init__(self, start: StartRanks, environment: dict[str, str]) -> None:
        self._processes = [
            subprocess.Popen(
                interpreter("launch.train", *start.arguments),
                env=environment | variables(start, local_rank),
                stdin=subprocess.DEVNULL,
                stdout=None if start.first_rank == 0 else subprocess.DEVNULL,  # the launcher prints one host's output
                start_new_session=True,
            )
            for local_rank in range(start.count)
        ]
        self._asked = False
        self._kill_at = self._end_at = float("inf")

    def running(self) -> bool:
        """Whether any is left; ends those that outlive a failure, or were asked to stop and did not."""
        codes = [process.poll() for process in self._processes]
        now = time.monotonic()
        if any(codes):
            self._end_at = min(self._end_at, now + FAILED_SECONDS)
        if now > self._end_at:
            self.stop(END_SECONDS)
        if now > self._kill_at:
            self.kill()
        return None in codes

    def stop(self, seconds: float) -> None:
        """Ask them to stop, once, and kill them after `seconds`."""
        self._kill_at = min(self._kill_at, time.monotonic() + seconds)
        if not self._asked:
            self._asked = True
            for process in self._processes:
                process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill those that are left, with the processes that they have started."""
        for process in self._processes:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def exit_code(self) -> int:
        """That of the first rank that failed, in the order of the ranks; 0 if none did."""
        return next((_shell_code(process.returncode) for process in self._processes if process.returncode), 0)


def variables(start: StartRanks, local_rank: int) -> dict[str, str]:
    """Torchrun's variables for one of the ranks."""
    return {
        "RANK": str(start.first_rank + local_rank),
        "WORLD_SIZE": str(start.world_size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(start.count),
        "MASTER_ADDR": start.address,
        "MASTER_PORT": str(start.port),
    }


def _shell_code(code: int) -> int:
    """As a shell has it; ssh passes nothing else on."""
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
