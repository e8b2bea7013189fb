"""Writes the parts of snapshots: the state of every stage after the same step.

The header of a batch marks the step. Each stage copies its state after that step and continues training while a thread
writes the copy. When all stages have reported, the coordinator writes the manifest with sizes and digests of the files.
A snapshot without a manifest, or with files that differ from it, is ignored.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from pipeline.engines import OPTIMIZER
from pipeline.errors import TrainingError
from pipeline.stage.stage import Stage
from pipeline.stage.state import OPTIMIZER_TENSORS, snapshot_tensors, stage_counters
from workers.control.validation import Index, Seconds, read_message
from workers.run.faults import Faults
from workers.run.files import RunDir, temporary_of
from workers.snapshots.host_copies import host_copies
from workers.snapshots.manifest import StageFile
from workers.snapshots.parts import LocalParts, PartName, Parts

CLOSE_SECONDS = 300.0
"""Longest wait at the end of a run for a snapshot that is being written."""
POLL_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SnapshotPart:
    """The result of writing one stage's part of a snapshot.

    Args:
        stage: counted from 1.
        steps: number of steps of the snapshot.
        file: the file; None if writing failed.
        problem: why writing failed, in one sentence.
        seconds: from the beginning of the copy to the end of writing.
    """

    stage: Index
    steps: Index
    file: StageFile | None
    problem: str | None = None
    seconds: Seconds = 0.0

    def to_message(self) -> dict[str, Any]:
        """As it is sent over the control channel."""
        return {"type": "snapshot", **asdict(self)}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> SnapshotPart:
        """The inverse of `to_message`."""
        return read_message(cls, message)


@dataclass(frozen=True)
class _Job:
    """A snapshot of one stage that is to be written.

    Args:
        stage, steps: as in `SnapshotPart`.
        tensors: copies of its state, which are complete when `there` has returned.
        there: waits for them.
        counters: the part of the state that is no tensor.
        started_at: when it was taken, by `time.monotonic`.
    """

    stage: int
    steps: int
    _: KW_ONLY
    tensors: dict[str, Tensor]
    there: Callable[[], None]
    counters: dict[str, Any]
    started_at: float


class SnapshotWriter:
    """Writes the snapshots of the stages of one process in a thread; a context manager.

    One copy may wait while another is written. `take` blocks on the third, which bounds the memory.

    Args:
        run: where the snapshots are written.
        report: called from the thread with the result of each part.
        faults: to be injected.
        writes: whether this process writes its snapshots; of the replicas of a stage only the first does.
        parts: where they are kept, if not in the run directory.
    """

    def __init__(
        self,
        run: RunDir,
        report: Callable[[SnapshotPart], None],
        faults: Faults | None = None,
        writes: bool = True,
        parts: Parts | None = None,
    ) -> None:
        self._parts = parts or LocalParts(run)
        self._run, self._report, self._writes = run, report, writes
        self._faults = faults or Faults((), run, (), 1)
        self._jobs: queue.Queue[_Job | None] = queue.Queue(1)
        self._writing: Path | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._write_all, name="snapshots", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def take(self, stage: Stage, steps: int) -> None:
        """Copy the state of `stage` after `steps` steps; it is written later."""
        started_at = time.monotonic()
        tensors = snapshot_tensors(stage)  # a collective operation where the state is sharded, so all replicas call it
        if not self._writes:
            return
        copies, there = host_copies(tensors)
        counters = {**stage_counters(stage), OPTIMIZER_TENSORS: sum(name.startswith(OPTIMIZER) for name in copies)}
        job = _Job(stage.index, steps, tensors=copies, there=there, counters=counters, started_at=started_at)
        while True:
            with suppress(queue.Full):
                return self._jobs.put(job, timeout=POLL_SECONDS)
            if not self._thread.is_alive():
                raise TrainingError("the thread that writes snapshots has ended; its log says why")

    def close(self) -> None:
        """Wait until all snapshots are written."""
        self._jobs.put(None)
        self._thread.join(CLOSE_SECONDS)

    def abandon(self) -> None:
        """Remove a half-written file, at the end of a process that does not wait for the disk."""
        self._abandoned = True
        if self._writing is not None:
            temporary_of(self._writing).unlink(missing_ok=True)

    def _write_all(self) -> None:
        while (job := self._jobs.get()) is not None and not self._abandoned:
            index, steps = job.stage, job.steps
            name = PartName("snapshot", index, steps)
            self._writing = path = name.path(self._run)
            try:
                self._faults.before_write(index, steps)
                job.there()
                saved = self._parts.save(name, job.tensors)
                file = StageFile(path.name, saved.bytes, saved.sha256, job.counters)
                self._faults.after_write(index, steps, path)
                self._report(SnapshotPart(index, steps, file, seconds=time.monotonic() - job.started_at))
            except Exception as error:  # training continues, and the next snapshot may succeed
                if not isinstance(error, OSError):
                    _log.exception("snapshot after %d steps of stage %d", steps, index)
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                problem = f"'{path}' could not be written ({' '.join(reason.split())[:200]})"
                self._report(SnapshotPart(index, steps, None, problem))
