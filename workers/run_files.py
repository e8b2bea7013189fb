"""Where things are in a run directory, and how its small files are written."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunDir:
    """Paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration; what makes a folder a run."""
        return self.path / "config.yaml"

    @property
    def data_index(self) -> Path:
        """What the training set consisted of when the run began."""
        return self.path / "data_index.npz"

    @property
    def metrics(self) -> Path:
        """One JSON object a line, one line a step."""
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """One JSON object a line: alarms, restarts, snapshots, notes."""
        return self.path / "events.jsonl"

    @property
    def final(self) -> Path:
        """The trained weights."""
        return self.path / "final"

    @property
    def backbone(self) -> Path:
        """The trained backbone under torchvision's names."""
        return self.final / "backbone.safetensors"

    @property
    def snapshots(self) -> Path:
        """One folder a snapshot, `step_N` after N steps."""
        return self.path / "snapshots"

    def snapshot(self, steps: int) -> Path:
        """The snapshot after so many steps."""
        return self.snapshots / f"step_{steps}"

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.path / "logs"

    @property
    def report(self) -> Path:
        """What was measured when training had ended."""
        return self.path / "report.json"

    @property
    def failure(self) -> Path:
        """Who failed, at which step and why; absent if nobody did."""
        return self.path / "failure.json"

    @property
    def coordinator(self) -> Path:
        """Process and address of the coordinator."""
        return self.path / "coordinator.json"

    @property
    def lock(self) -> Path:
        """Held by the coordinator while it lives."""
        return self.path / ".lock"

    @property
    def key(self) -> Path:
        """Of a run on several hosts, while it lives; read by this user only."""
        return self.path / ".key"

    @property
    def faults(self) -> Path:
        """Which faults of the configuration have struck."""
        return self.path / ".faults"

    @property
    def trace(self) -> Path:
        """What each process did when, one file each (`trace.enabled`)."""
        return self.path / "trace"

    @property
    def merged_trace(self) -> Path:
        """All of it as one trace; `trace.json.gz` where it is large."""
        return self.path / "trace.json"

    @property
    def replay(self) -> Path:
        """Batches that a restarted stage may need, where they do not fit into memory."""
        return self.path / ".replay"

    def stage(self, index: int) -> Path:
        """The trained stage `index`, counted from 1."""
        return self.final / f"stage_{index}.safetensors"

    def probe(self, index: int) -> Path:
        """The linear probe that was trained along with stage `index` (`evaluation.online.linear`)."""
        return self.final / f"probe_{index}.safetensors"

    def log(self, name: str) -> Path:
        """The log of one process."""
        return self.logs / f"{name}.log"


def from_here(path: Path) -> Path:
    """As a user who stands here would write it."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def step_numbers(run: RunDir) -> list[int]:
    """The steps after which there are snapshots, complete or not, in order."""
    if not run.snapshots.is_dir():
        return []
    found = (re.fullmatch(r"step_(\d{1,18})", path.name) for path in run.snapshots.iterdir())
    return sorted(int(match[1]) for match in found if match)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON; a reader finds the old file or the new one, never half of it."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 through a temporary file in the same folder: flushed to disk, then renamed."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write through a temporary file in the same folder: flushed to disk, then renamed."""
    write_parts(path, (data,))


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """`write_bytes` of what need not be in memory all at once; `parts` may be read from `path` itself."""
    temporary = temporary_of(path)
    try:
        with temporary.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """Where this process writes what shall become `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_temporaries(run: RunDir, pid: int | None = None) -> None:
    """Remove what process `pid` was writing when it was killed, or this one, which ends in the middle of it."""
    with suppress(OSError):  # whatever the disk says, the process must end
        for path in run.path.rglob(f".*.{pid or os.getpid()}.tmp"):
            path.unlink(missing_ok=True)


TO_BE_MEASURED = "to_be_measured"
"""In the report of a run that has been trained and whose blocks are still being measured."""


def read_report(run: RunDir) -> dict[str, Any] | None:
    """What a run says about itself; None where there is no report, or one that cannot be read."""
    try:
        value = json.loads(run.report.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def final_digest(run: RunDir) -> str:
    """One SHA-256 over the names and bytes of the weights in `final/`, probes left out; equal for equal runs."""
    digest = hashlib.sha256()
    for path in sorted({*run.final.glob("*.safetensors")} - {*run.final.glob("probe_*.safetensors")}):
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
