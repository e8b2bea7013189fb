"""Two hosts lose their network in the middle of a run: it ends with one cause, on both, and nobody waits for ever.

The hosts are two network namespaces with a cable between them; making those takes root.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recovery import STEPS, Trial, disturbed, python
from tests.runs import ENDLESS, TINY, Process, ended_afterwards, processes_mentioning, wait_for_steps
from tests.session_server import NAMESPACES
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces are made by root, with the command ip"
)
HANG_SECONDS, LINK_SECONDS = 6, 10
NETWORK = "10.213.77"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Hosts:
    """Two network namespaces and the cable between them."""

    def __init__(self) -> None:
        self.names = [f"ow{os.getpid()}{end}" for end in "ab"]

    def lay_cable(self) -> None:
        for name in self.names:
            ip("netns", "add", name)
        first, second = self.names
        ip("-n", first, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second)
        for number, name in enumerate(self.names, 1):
            ip("-n", name, "address", "add", f"{NETWORK}.{number}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")

    def cut(self) -> None:
        ip("-n", self.names[0], "link", "set", "cable", "down")

    def remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        made.lay_cable()
        yield made
    finally:
        made.remove()


@contextlib.contextmanager
def agents(trial: Trial, hosts: Hosts, *overrides: str) -> Iterator[list[Process]]:
    """A torchrun with one process of two stages on either host."""
    (trial.folder / "tiny.yaml").write_text(TINY)
    interface = {f"{library}_SOCKET_IFNAME": "cable" for library in ("GLOO", "TP")}
    environment = {**trial.environment, **interface, "OMP_NUM_THREADS": "1"}
    started = []
    for number, name in enumerate(hosts.names, 1):
        launcher = python(
            "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d",
            f"--rdzv-id={trial.private.name}", f"--rdzv-endpoint={NETWORK}.1:29400",
            f"--local-addr={NETWORK}.{number}", f"--rdzv-conf=is_host={str(number == 1).lower()}", "--max-restarts=0",
        )  # fmt: skip
        training = ["-m", "launch.train", str(trial.folder / "tiny.yaml"), f"run_dir={trial.run}", *STEPS, *overrides]
        there = {NAMESPACES: f"/run/netns/{name}"}
        started.append(Process([*launcher, *training], {**environment, **there}, forked=True))
    with ended_afterwards(started):
        yield started


def training(trial: Trial) -> list[str]:
    """Our processes; torchrun's own may go on looking for each other for a while."""
    return [line for line in processes_mentioning(str(trial.private)) if "torch.distributed.run" not in line]


@pytest.mark.processes
@pytest.mark.parametrize("link", ["p2p", pytest.param("rpc", marks=pytest.mark.slow)])
def test_the_network_is_cut(tmp_path: Path, hosts: Hosts, link: str) -> None:
    limits = (f"hang_timeout={HANG_SECONDS}", f"link.timeout={LINK_SECONDS}")
    with (
        disturbed(tmp_path) as trial,
        agents(trial, hosts, ENDLESS, "processes=2", f"link.kind={link}", *limits) as two,
    ):
        wait_for_steps(tmp_path, 5, two[0])
        assert len(training(trial)) >= 3
        hosts.cut()
        wait_until(lambda: not training(trial), lambda: f"the end of {training(trial)}")
        said = "".join(process.out + process.err for process in two)
        causes = re.findall(r"^error: .*$", said, re.M)
        assert len(causes) == 1, said
        assert re.fullmatch(
            r"error: (stages 3-4|stage [34]) failed at step \d+: no sign of life for \d+ s \(hang_timeout\): .*",
            causes[0],
        ), causes
