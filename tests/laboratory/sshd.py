"""OpenSSH between the hosts of the laboratory: a server on each, and a client that knows their keys alone."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.laboratory.hosts import Host, Laboratory
from tests.runs import Process
from tests.waiting import wait_until

needs_sshd = pytest.mark.skipif(
    not Path("/usr/sbin/sshd").exists() or shutil.which("ssh-keygen") is None,
    reason="hosts with ssh take Debian's openssh-server and openssh-client (make tools)",
)
SERVER = """
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/client_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv TMPDIR={tmp}
"""
CLIENT = """
Host *
  IdentityFile {folder}/client_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
"""


@contextlib.contextmanager
def ssh_between(lab: Laboratory, *servers: int) -> Iterator[dict[str, str]]:
    """Start sshd on these hosts; the environment in which `ssh` is a client that may log in to them."""
    folder = lab.shared / "ssh"
    folder.mkdir()
    for name in ("host_key", "client_key"):
        lab[1].run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    known = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text("".join(f"{host.name},{host.address} {known}" for host in lab.hosts))
    (folder / "server").write_text(SERVER.format(folder=folder, tmp=lab.folder / "own/tmp"))
    (folder / "client").write_text(CLIENT.format(folder=folder))
    client = folder / "bin/ssh"
    client.parent.mkdir()
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/client "$@"\n')
    client.chmod(0o755)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    started = [_serve(lab[number], folder) for number in servers]
    try:
        yield {"PATH": f"{client.parent}:/usr/bin:/bin:/usr/sbin:/sbin"}
    finally:
        for server in started:
            server.kill()


def _serve(host: Host, folder: Path) -> Process:
    server = host.start(["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "server")])
    wait_until(lambda: "Server listening" in server.err or server.poll() is not None, lambda: server.err)
    assert server.poll() is None, server.err
    return server
