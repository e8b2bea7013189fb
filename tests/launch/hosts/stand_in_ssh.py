"""A stand-in for ssh: runs what it is given on this machine, or fails as ssh does where a host is not there."""

from __future__ import annotations

import os
from pathlib import Path

ERRORS = {
    "off": "ssh: connect to host off port 22: Connection refused",
    "unknown": "ssh: Could not resolve hostname unknown: Name or service not known",
    "stranger": "nobody@stranger: Permission denied (publickey,password).",
    "changed": "Host key verification failed.",
}
"""What ssh says of hosts of these names, before it ends with exit code 255."""
SCRIPT = """#!/bin/sh
echo "$*" >> "$(dirname "$0")/calls"
while [ "$1" != -- ]; do shift; done
case "$2" in
{cases}
esac
echo "Welcome to $2. Mind the gap."
exec sh -c "$3"
"""


def stand_in_ssh(folder: Path) -> dict[str, str]:
    """Write it into a folder; the environment in which it is found. `calls` beside it has every command line."""
    cases = "\n".join(f"{host}) echo '{error}' >&2; exit 255;;" for host, error in ERRORS.items())
    script = folder / "ssh"
    script.write_text(SCRIPT.format(cases=cases))
    script.chmod(0o700)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
