"""A real Slurm for tests: a controller and two nodes on this machine, ended with every process of their jobs.

Each daemon is the first process of a PID namespace of its own. So a node dies as a machine does, with all that runs on
it, and nothing of a cluster can outlive it: the kernel ends a namespace with its first process.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.runs import LIMIT, ROOT
from tests.waiting import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "unshare")
INSTALL = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge (Slurm 22.05 or later)"
NODES = ("n1", "n2")
JOB_SECONDS = 900.0
"""Until a job counts as hung; a start takes a minute where the tests of many are run at once."""
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
CONFIGURATION = """
ClusterName=onward-test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
KillWait=30
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 Boards=1 SocketsPerBoard=1 "
    "CoresPerSocket=8 ThreadsPerCore=1 RealMemory=4000 State=UNKNOWN\n"
)
PARTITION = "PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP\n"


@dataclass
class Cluster:
    """One Slurm that is running.

    Args:
        folder: of its configuration, logs and sockets.
        daemons: by name, the first process of each namespace.
    """

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A command of Slurm to its end."""
        place, environment = cwd or self.folder, self._environment()
        return subprocess.run(
            arguments, cwd=place, env=environment, capture_output=True, text=True, timeout=JOB_SECONDS, check=False
        )

    def command(self, *arguments: str, cwd: Path | None = None) -> str:
        """What it prints; raises `AssertionError` with its complaint if it fails."""
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout} {done.stderr}"
        return done.stdout

    def job(self, number: int | str) -> dict[str, str]:
        """What the controller knows of a job: `JobState`, `Restarts`, `ExitCode` and so on."""
        return dict(re.findall(r"(\w+)=(\S*)", self.command("scontrol", "--oneliner", "show", "job", str(number))))

    def wait_for_end(self, number: int | str) -> str:
        """The state that a job ends in."""

        def end() -> str:
            state = self.job(number)["JobState"]
            return state if state in ENDED else ""

        return wait_until(end, lambda: f"the end of {self.job(number)}", JOB_SECONDS, pause=0.2)

    def start(self, name: str, *command: str) -> None:
        """Start a daemon as the first process of a PID namespace."""
        inside = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", *command]
        with (self.folder / f"{name}.err").open("w") as errors:
            self.daemons[name] = subprocess.Popen(
                inside, cwd=self.folder, env=self._environment(), stdout=errors, stderr=errors, stdin=subprocess.DEVNULL
            )

    def start_node(self, name: str) -> None:
        """Start the daemon of a node."""
        self.start(name, shutil.which("slurmd") or "slurmd", "-D", "-c", "-N", name)

    def kill(self, name: str) -> None:
        """End a daemon with everything that it has started, at once."""
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait(LIMIT)

    def wait_until_idle(self) -> None:
        """Until both nodes have registered and nothing runs on them."""

        def idle() -> bool:
            with suppress(AssertionError):  # the controller does not answer yet
                return self.command("sinfo", "--noheader", "--format=%T").split() == ["idle"]
            return False

        wait_until(idle, self._logs, LIMIT)

    def stop(self) -> None:
        """End everything."""
        for name in list(self.daemons):
            self.kill(name)

    def _logs(self) -> str:
        paths = [*self.folder.glob("*.err"), *self.folder.glob("*.log")]
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in paths)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        ours = {"SLURM_CONF": str(self.folder / "slurm.conf"), "ONWARD_PYTHON": sys.executable}
        return {**kept, **ours, "PYTHONPATH": str(ROOT)}


@contextmanager
def slurm_cluster() -> Iterator[Cluster]:
    """A cluster whose two nodes are idle; the test fails where Slurm is not installed."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.fail(f"{', '.join(missing)} not installed: {INSTALL}")
    folder = Path(tempfile.mkdtemp(prefix="ow-slurm-", dir="/tmp"))  # short: the path of a Unix socket has a limit
    cluster = Cluster(folder)
    try:
        _configure(folder)
        cluster.start("munged", *_munged(folder))
        wait_until((folder / "munge.socket").exists, "munged", LIMIT)
        cluster.start("slurmctld", shutil.which("slurmctld") or "slurmctld", "-D", "-c")
        for name in NODES:
            cluster.start_node(name)
        cluster.wait_until_idle()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path) -> None:
    folder.chmod(0o755)
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    controller, *ports = _free_ports(1 + len(NODES))
    nodes = [
        NODE.format(name=name, host=socket.gethostname(), port=port) for name, port in zip(NODES, ports, strict=True)
    ]
    text = CONFIGURATION.format(folder=folder, port=controller) + "".join(nodes) + PARTITION
    (folder / "slurm.conf").write_text(text)


def _munged(folder: Path) -> list[str]:
    places = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={folder}/munge.{name}" for option, name in places.items()]
    return [shutil.which("munged") or "munged", "--foreground", "--force", *options]


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
