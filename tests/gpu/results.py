"""What was measured: one JSON file, in which rows are kept by machine, version of torch, commit and name."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.gpu.setting import Setting
from tests.runs import ROOT

Rows = Mapping[str, dict[str, Any]]
"""What was measured, by name."""
CODE = ("pipeline", "workers", "launch", "tests/gpu", "tests/benchmarks")
"""Whose files decide what is measured, where there is no commit, or it has been changed."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: its key in the file.
        part: of four.
        what: is done, which is said before.
        measure: measures it; raises if it cannot.
        show: what it was, in a few words.
        group: of rows whose `digests` must all be the same.
    """

    name: str
    part: int
    what: str
    measure: Callable[[Setting], dict[str, Any]]
    show: Callable[[dict[str, Any], Rows, Setting], str]
    group: str | None = None


class UnreadableFile(Exception):
    """The file of the results is not one."""


class Results:
    """The rows of one machine, torch and commit in a file that may hold others; written after every row.

    Args:
        path: of the file, which need not be there.
        identity: what the rows are filed under, beside their names.

    Raises:
        UnreadableFile: something else is in the file.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity
        self._all: dict[str, dict[str, dict[str, Any]]] = {}
        if path.exists():
            try:
                content = json.loads(path.read_text())
                self._all = {key: dict(rows) for key, rows in content["measured"].items()}
            except (ValueError, TypeError, KeyError, AttributeError, OSError):
                raise UnreadableFile(
                    f"{path} is not a file of results; remove it, or name another with --out"
                ) from None

    @property
    def rows(self) -> Rows:
        """Those that there are, failed ones too."""
        return self._all.get(self.identity, {})

    def has(self, name: str) -> bool:
        """Whether that row is there and has not failed."""
        return name in self.rows and "error" not in self.rows[name]

    def put(self, name: str, row: dict[str, Any]) -> None:
        """Write it to the file, which is whole at any time."""
        self._all.setdefault(self.identity, {})[name] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f"{self.path.name}.new")
        new.write_text(json.dumps({"measured": self._all}, indent=1) + "\n")
        os.replace(new, self.path)


def identity(setting: Setting) -> str:
    """The machine, torch, the commit, and whether shapes are tiny."""
    parts = [setting.machine, f"torch {version('torch')}", commit(), *(["small"] if setting.small else [])]
    return " | ".join(parts)


def commit(root: Path = ROOT) -> str:
    """The commit; where there is none, or files of `CODE` differ from it, also a digest of them."""
    try:
        head, changed = (
            subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=20, check=True).stdout
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--", *CODE))
        )
    except (OSError, subprocess.SubprocessError):
        head, changed = "no commit", "unknown"
    if not changed:
        return head.strip()
    digest = hashlib.sha256()
    for path in sorted(path for folder in CODE for path in (root / folder).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{head.strip()} with files {digest.hexdigest()[:12]}"


def judged(wanted: Iterable[Row], found: Rows) -> list[str]:
    """What is wrong with the rows that there are, a line each: some are missing, have failed, or differ in bits."""
    wrong = []
    groups: dict[str, dict[str, list[str]]] = {}
    for row in wanted:
        got = found.get(row.name)
        if got is None:
            wrong.append(f"{row.name}: not measured")
        elif "error" in got:
            wrong.append(f"{row.name}: {got['error']}")
        elif row.group is not None:
            for digest in got["digests"]:
                groups.setdefault(row.group, {}).setdefault(digest, []).append(row.name)
    for group, digests in groups.items():
        if len(digests) > 1:
            told = "; ".join(f"{digest[:12]}: {', '.join(names)}" for digest, names in digests.items())
            wrong.append(f"the digests of {group} differ: {told}")
    return wrong
