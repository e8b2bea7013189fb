"""The coordinator's side of snapshots: when they are taken, and the manifest that makes one count."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence

from pipeline.config.run import SnapshotsConfig
from workers.run.files import RunDir, step_numbers, write_json
from workers.snapshots.manifest import MANIFEST, Manifest, StageFile
from workers.snapshots.writer import SnapshotPart


class SnapshotCommitter:
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
        config: SnapshotsConfig,
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

    def taken(self, part: SnapshotPart) -> None:
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
