"""Snapshots: the state of every stage after the same step, and the manifest that makes it count.

A marker travels with a batch. Each stage copies its state after that step and goes on training; a thread writes the
copy. When all have reported, the coordinator writes the manifest: sizes and digests of the files. A snapshot without
a manifest does not exist, and one whose files are not what the manifest says is passed over.
"""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError
from torch import Tensor

from pipeline.config.run import Snapshots
from pipeline.engines import OPTIMIZER
from pipeline.errors import TrainingError, UserError
from pipeline.stage.stage import Stage
from pipeline.stage.state import OPTIMIZER_TENSORS, restore_stage, snapshot_tensors, stage_counters, state_misfit
from workers.control.validation import Index, Seconds, read_message
from workers.run.faults import Faults
from workers.run.files import RunDir, step_numbers, temporary_of, write_json
from workers.run.tensor_files import facts_of, open_tensors, read_tensors, save_tensors
from workers.snapshots.manifest import MANIFEST, Manifest, StageFile, read_manifest

CLOSE_SECONDS = 300.0
"""Longest wait at the end of a run for a snapshot that is still being written."""
POLL_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Taken:
    """What became of one stage's part of a snapshot.

    Args:
        stage: counted from 1.
        steps: of the snapshot.
        file: what was written; None if that failed.
        problem: why it failed, in one sentence.
        seconds: from the beginning of the copy until it was written.
    """

    stage: Index
    steps: Index
    file: StageFile | None
    problem: str | None = None
    seconds: Seconds = 0.0

    def to_message(self) -> dict[str, Any]:
        """For the control channel."""
        return {"type": "snapshot", **asdict(self)}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Taken:
        """The inverse of `to_message`."""
        return read_message(cls, message)


class SnapshotWriter:
    """Writes the snapshots of the stages of one process, in a thread of its own; a context manager.

    At most one waits while another is written: `take` blocks on the third, which bounds the memory.

    Args:
        run: where to.
        report: called from the thread with the outcome of each.
        faults: that are to strike.
        writes: whether this process keeps what it takes; of replicas only the first does.
    """

    def __init__(
        self, run: RunDir, report: Callable[[Taken], None], faults: Faults | None = None, writes: bool = True
    ) -> None:
        self._run, self._report, self._writes = run, report, writes
        self._faults = faults or Faults((), run, (), 1)
        self._jobs: queue.Queue[tuple[int, int, dict[str, Tensor], dict[str, Any], float] | None] = queue.Queue(1)
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
        began = time.monotonic()
        tensors = snapshot_tensors(stage)  # replicas may have to put their parts together: all of them ask
        if not self._writes:
            return
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        counters = {**stage_counters(stage), OPTIMIZER_TENSORS: sum(name.startswith(OPTIMIZER) for name in copies)}
        job = (stage.index, steps, copies, counters, began)
        while True:
            with suppress(queue.Full):
                return self._jobs.put(job, timeout=POLL_SECONDS)
            if not self._thread.is_alive():
                raise TrainingError("the thread that writes snapshots has ended; its log says why")

    def close(self) -> None:
        """Until all that were taken are written."""
        self._jobs.put(None)
        self._thread.join(CLOSE_SECONDS)

    def abandon(self) -> None:
        """At the end of a process that will not wait for the disk: no half-written file stays."""
        self._abandoned = True
        if self._writing is not None:
            temporary_of(self._writing).unlink(missing_ok=True)

    def _write_all(self) -> None:
        while (job := self._jobs.get()) is not None and not self._abandoned:
            index, steps, tensors, counters, began = job
            self._writing = path = self._run.snapshot(steps) / f"stage_{index}.safetensors"
            try:
                self._faults.before_write(index, steps)
                digest = save_tensors(path, tensors, root=self._run.path)
                file = StageFile(path.name, path.stat().st_size, digest, counters)
                self._faults.after_write(index, steps, path)
                self._report(Taken(index, steps, file, seconds=time.monotonic() - began))
            except Exception as error:  # whatever it is, training goes on, and the next one may be written
                if not isinstance(error, OSError):
                    _log.exception("snapshot after %d steps of stage %d", steps, index)
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                problem = f"'{path}' could not be written ({' '.join(reason.split())[:200]})"
                self._report(Taken(index, steps, None, problem))


class SnapshotKeeper:
    """The coordinator's side: says when, joins the stages' parts, writes manifests and clears away what is old.

    Args:
        config: when, and how many to keep.
        run: where.
        say: called with a sentence when a snapshot could not be completed.
        start_step: the snapshot that the run goes on from; 0 for none.
        committed: called with the steps of every snapshot that is complete.
    """

    def __init__(
        self,
        config: Snapshots,
        run: RunDir,
        say: Callable[[str], None],
        start_step: int = 0,
        committed: Callable[[int], None] = lambda steps: None,
    ) -> None:
        self.config, self.run, self.say, self._tell = config, run, say, committed
        self.committed = start_step
        """Steps of the newest complete snapshot."""
        self._expected: dict[int, int] = {}
        self._parts: dict[int, dict[int, StageFile]] = {}
        self._lock = threading.Lock()  # one thread sends batches, another hears of the parts

    def due(self, step: int, stages: int, leave: bool = False) -> bool:
        """Whether a snapshot follows `step`, counted from 0; it then expects the parts of stages 1 to `stages`.

        Args:
            leave: the run ends with this step, so a snapshot follows in any case.
        """
        if not leave and (self.config.every is None or (step + 1) % self.config.every):
            return False
        with self._lock:
            self._expected[step + 1], self._parts[step + 1] = stages, {}
        return True

    def forget(self, stages: Sequence[int]) -> None:
        """These stages start over from the newest complete snapshot, and will write their parts of others again."""
        with self._lock:
            for parts in self._parts.values():
                for stage in stages:
                    parts.pop(stage, None)

    def taken(self, part: Taken) -> None:
        """One stage has written its part, or has failed to."""
        with self._lock:
            if part.steps not in self._expected:
                self._clear(part.steps)
                return
            parts = self._parts[part.steps]
            if part.file is not None:
                parts[part.stage] = part.file
            complete = len(parts) == self._expected[part.steps]
            if complete or part.file is None:
                del self._expected[part.steps], self._parts[part.steps]
        if part.file is None:
            self._clear(part.steps)
            self.say(f"no snapshot after {part.steps} steps: stage {part.stage}: {part.problem}")
        elif complete:
            self._commit(part.steps, parts)

    def _clear(self, steps: int) -> None:
        """Make room: the other parts of a snapshot that cannot be completed are of no use."""
        if not (self.run.snapshot(steps) / MANIFEST).exists():
            shutil.rmtree(self.run.snapshot(steps), ignore_errors=True)

    def _commit(self, steps: int, parts: dict[int, StageFile]) -> None:
        manifest = Manifest(steps, {index: parts[index] for index in sorted(parts)})
        try:
            write_json(self.run.snapshot(steps) / MANIFEST, manifest.to_json(), self.run.path)
        except OSError as error:
            self._clear(steps)
            self.say(f"no snapshot after {steps} steps: its manifest could not be written ({error.strerror})")
            return
        self.committed = max(self.committed, steps)
        self._tell(steps)
        for old in self._to_drop(steps):
            shutil.rmtree(self.run.snapshot(old), ignore_errors=True)

    def _to_drop(self, newest: int) -> list[int]:
        complete = [n for n in step_numbers(self.run) if (self.run.snapshot(n) / MANIFEST).is_file()]
        last = set(sorted(complete)[-self.config.keep_last :])
        every = self.config.keep_every
        return [n for n in complete if n not in last and n < newest and not (every and n % every == 0)]


def restore(run: RunDir, steps: int, stages: Sequence[Stage]) -> None:
    """Bring `stages` to the state of a snapshot; a stage that it does not have has not learned yet.

    Raises:
        UserError: a file does not fit the stage.
    """
    if steps == 0:
        return
    folder = run.snapshot(steps)
    manifest = read_manifest(folder)
    for stage in stages:
        part = manifest.stages.get(stage.index)
        if part is None:
            continue
        try:
            with open_tensors(folder / part.file, run.path) as file:
                if (problem := state_misfit(stage, facts_of(file), part.counters)) is not None:
                    raise ValueError(problem)
            anew = restore_stage(stage, read_tensors(folder / part.file, run.path), part.counters)
        except (RuntimeError, KeyError, TypeError, ValueError, SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"'{folder / part.file}' does not fit stage {stage.index} ({reason})") from None
        if anew:
            _log.warning("stage %d: not in '%s', so it starts anew: online %s", stage.index, folder, ", ".join(anew))
