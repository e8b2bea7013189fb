"""Paths in a run directory, and reading and writing of its small files.

A run directory may come from somebody else and contain anything, so its files are opened by `pipeline.ordinary_files`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.ordinary_files import USUAL, folder_of, open_to_read, open_to_write, read_whole
from workers.run.json_lines import parse_object

JSON_BYTES = 256 * 1024 * 1024
"""Largest JSON file that is read; a report has kilobytes, an evaluation with spectra has megabytes."""
_creating = threading.Lock()
"""Held while a temporary file is created, and by a process from the removal of its own to its exit."""


@dataclass(frozen=True)
class RunDir:
    """Paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration. A folder that has one is a run."""
        return self.path / "config.yaml"

    @property
    def data_index(self) -> Path:
        """Index of the training set at the start of the run: file names, sizes, labels."""
        return self.path / "data_index.npz"

    @property
    def metrics(self) -> Path:
        """One JSON object per line, one line per step."""
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """One JSON object per line: alarms, restarts, snapshots, notes."""
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
    def exported(self) -> Path:
        """Folders that `onward export --to` wrote, where no other place was given."""
        return self.path / "export"

    @property
    def initial(self) -> Path:
        """The weights that the run began with, where `init_from` gives any."""
        return self.path / "init"

    @property
    def snapshots(self) -> Path:
        """One folder per snapshot: `step_N` after N steps."""
        return self.path / "snapshots"

    def snapshot(self, steps: int) -> Path:
        """The folder of the snapshot after `steps` steps."""
        return self.snapshots / f"step_{steps}"

    @property
    def logs(self) -> Path:
        """Log files, one per process."""
        return self.path / "logs"

    @property
    def report(self) -> Path:
        """Results: accuracies, throughput, time shares."""
        return self.path / "report.json"

    @property
    def elsewhere(self) -> Path:
        """Which host keeps the run, on a host that does not see its directory; has only logs and a trace otherwise."""
        return self.path / "elsewhere.json"

    @property
    def failure(self) -> Path:
        """Which process failed, at which step and why; absent if the run did not fail."""
        return self.path / "failure.json"

    @property
    def coordinator(self) -> Path:
        """Address of the metrics and of the live page; when this attempt began, and what those before it took."""
        return self.path / "coordinator.json"

    @property
    def provenance(self) -> Path:
        """Where the run came from: one record for every start."""
        return self.path / "provenance.json"

    @property
    def modules(self) -> Path:
        """Copies of the user's own modules, as they were when the run started."""
        return self.path / "modules"

    @property
    def lock(self) -> Path:
        """Lock file, held while the run lives."""
        return self.path / ".lock"

    @property
    def key(self) -> Path:
        """Authentication key of a run on several hosts, while it lives; readable by this user only."""
        return self.path / ".key"

    @property
    def faults(self) -> Path:
        """Which faults of the configuration have been triggered."""
        return self.path / ".faults"

    @property
    def repeated(self) -> Path:
        """Digests of steps that the run did and does again, to be compared (`digests.every`)."""
        return self.path / ".repeated.json"

    @property
    def trace(self) -> Path:
        """Trace of each process, one file each (`trace.enabled`)."""
        return self.path / "trace"

    @property
    def merged_trace(self) -> Path:
        """The traces of all processes in one file; `trace.json.gz` where it is large."""
        return self.path / "trace.json"

    @property
    def replay(self) -> Path:
        """Batches kept for a restarted stage that do not fit into memory."""
        return self.path / ".replay"

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders that we create; trackers of the user may create others."""
        evaluations = self.path / "evaluation", self.path / "report", self.path / "tensorboard"
        own = self.initial, self.final, self.trace, self.replay, self.snapshots, self.faults, self.modules
        return self.logs, *own, *evaluations

    def stage(self, index: int) -> Path:
        """Weights of stage `index`, counted from 1."""
        return self.final / f"stage_{index}.safetensors"

    def probe(self, index: int) -> Path:
        """Weights of the online linear probe of stage `index` (`evaluation.online.linear`)."""
        return self.final / f"probe_{index}.safetensors"

    def log(self, name: str) -> Path:
        """Log file of one process."""
        return self.logs / f"{name}.log"


def relative_to_cwd(path: Path) -> Path:
    """`path` relative to the working directory where it lies below it, else absolute."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def step_numbers(run: RunDir) -> list[int]:
    """Step counts of all snapshots, complete or not, ascending."""
    if not run.snapshots.is_dir():
        return []
    found = (re.fullmatch(r"step_(\d{1,18})", path.name) for path in run.snapshots.iterdir())
    return sorted(int(match[1]) for match in found if match)


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file directly in a run directory; None if the file holds anything else.

    Raises:
        OSError: the file cannot be read, is not an ordinary file, or is larger than `JSON_BYTES`.
    """
    return parse_object(read_whole(path, JSON_BYTES, path.parent))


def write_json(path: Path, value: Any, root: Path | None = None) -> None:
    """Write `value` as JSON, atomically: a reader finds the old file or the new one."""
    write_text(path, json.dumps(value, indent=2) + "\n", root)


def write_text(path: Path, text: str, root: Path | None = None, mode: int = USUAL) -> None:
    """Write UTF-8 atomically; see `write_parts`."""
    write_parts(path, (text.encode("utf-8"),), root, mode)


def write_bytes(path: Path, data: bytes, root: Path | None = None) -> None:
    """Write atomically; see `write_parts`."""
    write_parts(path, (data,), root)


def write_parts(
    path: Path, parts: Iterable[bytes | bytearray | memoryview], root: Path | None = None, mode: int = USUAL
) -> None:
    """Write `parts` to a temporary file in the same folder, flush it to disk, and rename it to `path`.

    The parts need not be in memory all at once, and may be read from `path` itself.

    Args:
        path: of the file; a symbolic link in its place is replaced, not followed.
        parts: content of the file.
        root: the run directory, where the file lies in it: no folder in between may be a symbolic link.
        mode: permissions of the file, less the user's umask.
    """
    temporary = temporary_of(path)
    with folder_of(path, root) as folder:
        try:
            with suppress(FileNotFoundError):  # left by a process with the same id, perhaps on another host
                os.unlink(temporary.name, dir_fd=folder)
            with _creating:
                file = open_to_write(temporary, root, new=True, mode=mode)
            with file:
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
    """Where this process writes before it renames the file to `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_temporaries(run: RunDir, pid: int) -> None:
    """Remove half-written files of process `pid`, which was killed, as far as the file system lets them be removed."""
    with suppress(OSError):
        for path in run.path.rglob(f".*.{pid}.tmp"):
            path.unlink(missing_ok=True)


def exit_at_once(run: RunDir, code: int) -> None:
    """End this process without its clean-up, and leave no half-written file, whatever its other threads are writing."""
    held = _creating.acquire(timeout=1.0)  # a file system that hangs keeps no process from its end
    try:
        remove_temporaries(run, os.getpid())
        os._exit(code)
    finally:
        if held:
            _creating.release()


TO_BE_MEASURED = "to_be_measured"
"""Key in the report of a run that is trained but whose blocks have not been evaluated yet."""


def read_report(run: RunDir) -> dict[str, Any] | None:
    """The report of a run; None where there is none, or it cannot be read."""
    try:
        return read_object(run.report)
    except OSError:
        return None


def final_digest(run: RunDir) -> str:
    """SHA-256 over names and bytes of the weights in `final/`, without probes; equal for bit-identical runs."""
    digest = hashlib.sha256()
    for path in sorted({*run.final.glob("*.safetensors")} - {*run.final.glob("probe_*.safetensors")}):
        with open_to_read(path, run.path) as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
