"""Another user of the machine, for tests of what they can do: where root runs the tests, and `setpriv` is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
needs_stranger = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can act as another user, with setpriv"
)


def stranger(*command: str) -> list[str]:
    """The same command, given by a user who has nothing here, and who may not run the Python of this one."""
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]


def as_stranger(*command: str) -> subprocess.CompletedProcess[str]:
    """Run it, and wait for its end."""
    return subprocess.run(stranger(*command), capture_output=True, text=True, timeout=60, check=False, cwd="/")


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A folder that everybody may look into, as on a shared disk; those of pytest are this user's alone."""
    folder = Path(tempfile.mkdtemp(prefix="shared", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
