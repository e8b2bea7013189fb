"""Makes the hosts, runs commands on them, and takes them down.

Everything hangs on one process per host, which reads a pipe of ours: when that closes, however this process ends, the
kernel ends every process of the host and removes its network, its mounts and its files in memory.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.laboratory.names import Names, address_of, dead_address_of, hosts_file, name_of
from tests.runs import ROOT, Process
from tests.waiting import wait_until

needs_laboratory = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(command) is None for command in ("ip", "unshare", "nsenter", "mount")),
    reason="hosts made of namespaces take root, and the commands ip, unshare, nsenter and mount",
)
NAMESPACES = ("--net", "--uts", "--ipc", "--mount", "--pid")
STAY = "echo ready; exec 3<&0; cat <&3 >/dev/null & wait $!"
"""Shell: until the pipe of the laboratory closes; reaps who is orphaned meanwhile."""
INIT = f"""
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /dev/shm
mount --bind "$1/etc/$2.hosts" /etc/hosts
mount --bind "$1/etc/none" /etc/resolv.conf
mount --bind "$1/etc/$2.boot_id" /proc/sys/kernel/random/boot_id
mount -t tmpfs tmpfs "$1/own"
mkdir "$1/own/home" "$1/own/tmp" "$1/own/clone" "$1/own/work"
mount -t overlay overlay -o "lowerdir=$3,upperdir=$1/own/clone,workdir=$1/own/work" "$3"
hostname "$2"
ip link set lo up
{STAY}
"""
"""Shell: what the first process of a host does; is given the folder, the name of the host and the repository."""
SWITCH = f"ip link add bridge type bridge; ip link set bridge up; {STAY}"
_numbers = itertools.count(1)


class Host:
    """One host; `Laboratory` makes it.

    Args:
        number: counted from 1.
        names: what it knows of names.
        folder: of the laboratory.
        pid: of its first process.
    """

    def __init__(self, number: int, names: Names, folder: Path, pid: int) -> None:
        self.number, self.folder, self.pid = number, folder, pid
        self.name, self.address = name_of(number), address_of(number, names)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
        """Start a command on this host, in its clone of the repository."""
        own = {"HOME": str(self.folder / "own/home"), "TMPDIR": str(self.folder / "own/tmp")}
        inside = self._entering("-n", "-u", "-i", "-m", "-p")
        # Not --wd, which keeps the folder as it was outside.
        enter_clone = ["sh", "-c", 'cd "$0" && exec "$@"', str(ROOT)]
        return Process([*inside, *enter_clone, *arguments], {**own, **(environment or {})})

    def run(self, *arguments: str) -> str:
        """What a command on this host prints; raises if it fails."""
        process = self.start(arguments)
        out, error = process.communicate()
        assert process.returncode == 0, (arguments, out, error)
        return out

    def python(self, code: str) -> str:
        """What a program in Python prints on this host."""
        return self.run(sys.executable, "-c", code)

    def sees(self, path: Path) -> Path:
        """Where the test finds what this host has under a path."""
        return Path(f"/proc/{self.pid}/root{path}")

    def change(self, file: str, before: str, after: str) -> None:
        """Change a file of this host's clone, where it holds `before` exactly once."""
        text = (ROOT / file).read_text()
        assert text.count(before) == 1, f"{file}: {before}"
        self.python(f"open({file!r}, 'w').write({text.replace(before, after)!r})")

    def link(self, up: bool) -> None:
        """Pull the cable of this host, or plug it in."""
        self.network("link", "set", "eth0", "up" if up else "down")

    def network(self, *arguments: str) -> None:
        """The command `ip` in the network of this host."""
        _run(*self._entering("-n"), "ip", *arguments)

    def _entering(self, *which: str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), *which, "--"]


class Laboratory:
    """The hosts, and what they share; made by `laboratory`."""

    def __init__(self, folder: Path, names: Names) -> None:
        self.folder, self.names = folder, names
        self.hosts: list[Host] = []
        self.shared = folder / "shared"
        """A folder that every host sees."""
        self.unshared = folder / "own/run"
        """A path that is another folder on every host."""
        self._processes: list[subprocess.Popen[bytes]] = []

    def __getitem__(self, number: int) -> Host:
        """A host by its number, from 1."""
        return self.hosts[number - 1]

    def up(self, count: int) -> None:
        """Make the hosts and the network between them."""
        for name in ("etc", "own", "shared"):
            (self.folder / name).mkdir()
        (self.folder / "etc/none").touch()
        switch = self._start(["unshare", "--net", "--fork", "--kill-child", "sh", "-c", SWITCH])
        for number in range(1, count + 1):
            self.hosts.append(self._host(number, range(1, count + 1), switch))

    def down(self) -> None:
        """End every process of every host; their networks and mounts go with them."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def _host(self, number: int, hosts: Sequence[int], switch: int) -> Host:
        name, etc = name_of(number), self.folder / "etc"
        (etc / f"{name}.hosts").write_text(hosts_file(number, hosts, self.names))
        (etc / f"{name}.boot_id").write_text(Path("/proc/sys/kernel/random/uuid").read_text())
        command = ["unshare", *NAMESPACES, "--fork", "--kill-child", "sh", "-c", INIT]
        host = Host(number, self.names, self.folder, self._start([*command, "sh", str(self.folder), name, str(ROOT)]))
        port = f"port{number}"
        host.network("link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", str(switch))
        _run("nsenter", "-t", str(switch), "-n", "ip", "link", "set", port, "master", "bridge", "up")
        host.network("-6", "address", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")
        if self.names != "v6":
            host.network("address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        host.network("link", "set", "eth0", "up")
        if self.names == "two":
            host.network("link", "add", "eth1", "type", "veth", "peer", "name", "nowhere")
            host.network("address", "add", f"{dead_address_of(number)}/24", "dev", "eth1")
            for end in ("eth1", "nowhere"):
                host.network("link", "set", end, "up")
            host.network("route", "add", "default", "via", "10.78.0.254", "dev", "eth1")
        return host

    def _start(self, command: Sequence[str]) -> int:
        """Start the process that a host or the switch hangs on; returns its id, outside."""
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", f"{command} failed"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return int(wait_until(lambda: children.read_text().split(), f"the child of {command}")[0])


@contextlib.contextmanager
def laboratory(count: int = 2, names: Names = "good") -> Iterator[Laboratory]:
    """`count` hosts, which are gone at the end, however it ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"lab{next(_numbers)}-", dir="/tmp"))  # short: Unix sockets have a limit
    made = Laboratory(folder, names)
    try:
        made.up(count)
        yield made
    finally:
        made.down()
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
