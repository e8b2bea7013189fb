"""Which commit a folder is checked out at, as git says; nothing where git is missing, fails or takes too long."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

GIT_SECONDS = 3.0
"""How long one question to git may take; a repository on a slow disk is no reason to wait longer."""
NO_HELPERS = ("-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false")
"""So that git neither starts a program that a repository names nor writes to it."""

SETTINGS = "GIT_CONFIG"
"""Beginning of the variables of git that do not name another repository; all others are removed."""


@dataclass(frozen=True)
class GitCommit:
    """The state of a repository.

    Args:
        repository: its folder.
        commit: hexadecimal name of the commit.
        changed: whether a file that git follows differs from it; None if git did not say in time.
        holds: what of the run lies in it.
    """

    repository: str
    commit: str
    changed: bool | None
    holds: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary."""
        return {**asdict(self), "holds": list(self.holds)}


def git_commits(folders: dict[str, Path], seconds: float = GIT_SECONDS) -> list[GitCommit]:
    """The repositories in which folders lie, each once; a folder that is in none is left out.

    Args:
        folders: by what they hold.
        seconds: how long git may take for one answer.
    """
    git = find_git()
    found: dict[tuple[str, str], list[str]] = {}
    for what, folder in folders.items() if git else ():
        lines = _answer([str(git), *NO_HELPERS, "-C", str(folder), "rev-parse", "--show-toplevel", "HEAD"], seconds)
        if lines is None:
            continue
        place, _, commit = lines.strip().rpartition("\n")
        if place and commit.isalnum():
            found.setdefault((place, commit), []).append(what)
    return [
        GitCommit(place, commit, _changed(str(git), place, seconds), tuple(holds))
        for (place, commit), holds in found.items()
    ]


def find_git() -> str | None:
    """The program; None where there is none."""
    return shutil.which("git")


def _changed(git: str, place: str, seconds: float) -> bool | None:
    answer = _answer(
        [git, *NO_HELPERS, "-C", place, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=none"],
        seconds,
    )
    return None if answer is None else bool(answer.strip())


def _answer(command: list[str], seconds: float) -> str | None:
    """What git prints; None if it fails, or does not end in time."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(SETTINGS)
    }
    settings = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            command,
            env={**kept, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError):
        return None
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started
        with suppress(subprocess.TimeoutExpired):  # one that waits for a dead disk cannot be ended
            process.wait(seconds)
        return None
    return out.decode("utf-8", errors="replace") if process.returncode == 0 else None
