"""Where things are in a run directory, and how its small files are read and written.

Who hands over a run directory can put anything into it: its files are opened by `pipeline.ordinary_files` alone.
"""

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

from pipeline.ordinary_files import USUAL, folder_of, open_to_read, open_to_write, read_whole

JSON_BYTES = 256 * 1024 * 1024
"""Of a document that is read whole; a report has kilobytes, an evaluation with its spectra megabytes."""


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

    @property
    def folders(self) -> tuple[Path, ...]:
        """All that we make in it; beside them, what trackers of the user's own make."""
        evaluations = self.path / "evaluation", self.path / "report", self.path / "tensorboard"
        return self.logs, self.final, self.trace, self.replay, self.snapshots, self.faults, *evaluations

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


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file that lies directly in a run directory; None if it holds anything else.

    Raises:
        OSError: it cannot be read, is no ordinary file, or is too large for one.
    """
    try:
        value = json.loads(read_whole(path, JSON_BYTES, path.parent))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: Any, root: Path | None = None) -> None:
    """Write `value` as JSON; a reader finds the old file or the new one, never half of it."""
    write_text(path, json.dumps(value, indent=2) + "\n", root)


def write_text(path: Path, text: str, root: Path | None = None, mode: int = USUAL) -> None:
    """Write UTF-8 through a temporary file in the same folder: flushed to disk, then renamed."""
    write_parts(path, (text.encode("utf-8"),), root, mode)


def write_bytes(path: Path, data: bytes, root: Path | None = None) -> None:
    """Write through a temporary file in the same folder: flushed to disk, then renamed."""
    write_parts(path, (data,), root)


def write_parts(
    path: Path, parts: Iterable[bytes | bytearray | memoryview], root: Path | None = None, mode: int = USUAL
) -> None:
    """`write_bytes` of what need not be in memory all at once; `parts` may be read from `path` itself.

    Args:
        path: of the file; a link in its place is replaced, not followed.
        parts: what it is to hold.
        root: the run directory, where the file lies in a folder of it: none on the way may be a link.
        mode: permissions of the file, less the user's umask.
    """
    temporary = temporary_of(path)
    with folder_of(path, root) as folder:
        try:
            with suppress(FileNotFoundError):  # of a process of the same number, perhaps on another host
                os.unlink(temporary.name, dir_fd=folder)
            with open_to_write(temporary, root, new=True, mode=mode) as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary.name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            if error.errno is not None and error.filename in (None, temporary.name):
                error.filename = str(path)
            raise
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary.name, dir_fd=folder)


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
        return read_object(run.report)
    except OSError:
        return None


def final_digest(run: RunDir) -> str:
    """One SHA-256 over the names and bytes of the weights in `final/`, probes left out; equal for equal runs."""
    digest = hashlib.sha256()
    for path in sorted({*run.final.glob("*.safetensors")} - {*run.final.glob("probe_*.safetensors")}):
        with open_to_read(path, run.path) as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
