"""Where a run came from: `provenance.json`, one record for every start, and copies of the user's own modules.

A run that goes on adds a record and overwrites none, and copies a module again only if it has changed since.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launch.prepare.config_record import recorded_values
from launch.prepare.git_commit import GitCommit, git_commits
from launch.prepare.user_modules import INSTALLED, UserModule, named_modules, user_modules
from pipeline.config import Config
from pipeline.config.secrets import argument_without_secrets
from pipeline.ordinary_files import PRIVATE, USUAL, make_folder
from workers.run.environment import PACKAGES_FOLDER
from workers.run.files import RunDir, read_object, write_json, write_parts

FORMAT = "onward-provenance-1"
DISTRIBUTIONS = ("onward", "torch", "torchvision", "numpy")
"""Packages whose versions every start records, beside Python's; those of a named package are added."""
CPU_FACTS, GPU_FACTS = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")
MAX_ARGUMENT = 10_000
"""Characters that are kept of one argument of the command."""


@dataclass(frozen=True)
class ModuleCopy:
    """What was copied of a module.

    Args:
        name: dotted, as it is imported.
        source: its file when the run started.
        file: the copy, relative to the run directory; None if there is none.
        sha256: of the copy.
        why_not: why there is none.
    """

    name: str
    source: str
    file: str | None
    sha256: str | None
    why_not: str | None


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """One start of a run.

    Args:
        time: time of day, ISO 8601 with its zone.
        step: the first step that it trains, counted from 0.
        command: its words, without what may be a secret.
        folder: in which it was given.
        host: that prepared the run, and keeps it.
        hosts: all that train, that one first.
        system: kernel and kind of processor of `host`.
        processor: its name, as the kernel says; empty where it does not.
        gpus: names of those that the driver shows on `host`.
        devices: that the stages and their replicas compute on, in order.
        versions: of Python and of packages.
        commits: of the repositories in which Onward, the folder and the user's modules lie.
        modules: the user's own.
        config: the values that decide bits; None where they are those of the start before.
    """

    time: str
    step: int
    command: list[str]
    folder: str
    host: str
    hosts: list[str]
    system: str
    processor: str
    gpus: list[str]
    devices: list[str]
    versions: dict[str, str]
    commits: list[GitCommit]
    modules: list[ModuleCopy]
    config: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """As a plain dictionary."""
        plain = {**asdict(self), "commits": [commit.to_json() for commit in self.commits]}
        return {name: value for name, value in plain.items() if name != "config" or value is not None}


def record_start(
    config: Config, run: RunDir, step: int = 0, hosts: Sequence[str] = (), devices: Sequence[str] = ()
) -> list[str]:
    """Add this start to `provenance.json`, and copy the user's modules to `modules/`.

    Args:
        config: of the run.
        run: the directory, which is claimed.
        step: the first step that is trained.
        hosts: that train, if there are several.
        devices: that the stages compute on.

    Returns:
        Sentences for the user: which modules are no longer what the run was started with.

    Raises:
        OSError: something cannot be written.
    """
    earlier = read_starts(run)
    modules = user_modules(config)
    copies = _copied(run, modules, earlier)
    host, kernel = platform.node(), os.uname()
    start = RunStart(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        step=step,
        command=[argument_without_secrets(word)[:MAX_ARGUMENT] for word in _command()],
        folder=str(Path.cwd()),
        host=host,
        hosts=list(dict.fromkeys((host, *hosts))),
        system=f"{kernel.sysname} {kernel.release} {kernel.machine}",
        processor=_processor(),
        gpus=_gpus(),
        devices=list(devices),
        versions=_versions(named_modules(config)),
        commits=git_commits(_folders(modules)),
        modules=copies,
        config=recorded_values(config, earlier),
    )
    write_json(run.provenance, {"format": FORMAT, "starts": [*earlier, start.to_json()]}, run.path)
    return _changed(earlier, copies)


def read_starts(run: RunDir) -> list[dict[str, Any]]:
    """The starts of a run as `RunStart.to_json` gives them, the first one first; none where there is no record."""
    try:
        document = read_object(run.provenance)
    except OSError:
        return []
    starts = (document or {}).get("starts")
    return [start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []


def _processor() -> str:
    with suppress(OSError):
        lines = CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return ""


def _gpus() -> list[str]:
    """In the order of their addresses, with which PyTorch's need not agree."""
    names = []
    for path in sorted(GPU_FACTS.glob("*/information")):
        with suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return names


def _command() -> list[str]:
    program = Path(sys.argv[0] if sys.argv else "")
    return ["onward" if program.name in ("onward", "cli.py") else str(program), *sys.argv[1:]]


def _versions(modules: Iterable[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in dict.fromkeys((*DISTRIBUTIONS, *(module.partition(".")[0] for module in modules))):
        try:
            found[name] = importlib.metadata.version(name)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue
    return found


def _folders(modules: Iterable[UserModule]) -> dict[str, Path]:
    """Folders of which the commit is asked for, by what they hold."""
    folders = {"working directory": Path.cwd()}
    if not INSTALLED & set(Path(PACKAGES_FOLDER).parts):  # an installed copy may lie within the user's repository
        folders["onward"] = Path(PACKAGES_FOLDER)
    return folders | {module.name: module.source.parent for module in modules}


def _copied(run: RunDir, modules: Sequence[UserModule], earlier: Sequence[dict[str, Any]]) -> list[ModuleCopy]:
    """Copies all modules whose content no earlier start has copied."""
    there = {(copy["name"], copy["sha256"]): copy["file"] for start in earlier for copy in _copies_of(start)}
    folder = run.modules if not earlier else run.modules / f"start_{len(earlier) + 1}"
    copies = []
    for module in modules:
        if module.why_not:
            copies.append(ModuleCopy(module.name, str(module.source), None, None, module.why_not))
            continue
        digest = hashlib.sha256(module.data).hexdigest()
        file = there.get((module.name, digest))
        if file is None:
            path = folder / module.place
            make_folder(path.parent, run.path)
            write_parts(path, (module.data,), run.path, _mode(module.source))
            file = str(path.relative_to(run.path))
        copies.append(ModuleCopy(module.name, str(module.source), file, digest, None))
    return copies


def _mode(source: Path) -> int:
    """For the user alone if the source is."""
    try:
        return USUAL if source.stat().st_mode & 0o077 else PRIVATE
    except OSError:
        return PRIVATE


def _copies_of(start: dict[str, Any]) -> list[dict[str, str]]:
    modules = start.get("modules")
    named = [copy for copy in modules if isinstance(copy, dict)] if isinstance(modules, list) else []
    return [copy for copy in named if all(isinstance(copy.get(key), str) for key in ("name", "file", "sha256"))]


def _changed(earlier: Sequence[dict[str, Any]], copies: Iterable[ModuleCopy]) -> list[str]:
    if not earlier:
        return []
    before = {copy["name"]: copy["sha256"] for copy in _copies_of(earlier[-1])}
    changed = [copy.name for copy in copies if copy.name in before and before[copy.name] != copy.sha256]
    if not changed:
        return []
    which = ", ".join(f"'{name}'" for name in changed)
    return [f"{which}: not what the run was started with; modules/ of the run has both"]
