"""Another user of the same machine, as whom root can play."""

from __future__ import annotations

import os
import shutil

import pytest

NOBODY = 65534
"""The user and the group of that name."""
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")
"""Of tests that give files to another user."""
needs_setpriv = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root, with setpriv, can start as another user"
)
"""Of tests that start processes of another user."""


def as_nobody(*command: str) -> list[str]:
    """A command line, to be run as another user."""
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
