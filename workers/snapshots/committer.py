"""The coordinator's side of snapshots: decides when one is taken, and completes it by writing its manifest."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence

from pipeline.config.run import SnapshotsConfig
from workers.run.files import RunDir, step_numbers, write_json
from workers.snapshots.manifest import MANIFEST, Manifest, StageFile
from workers.snapshots.writer import SnapshotPart


class SnapshotCommitter:
    """Decides when a snapshot is taken, collects the stages' parts, writes manifests and removes old snapshots.

    Args:
        config: how often to take snapshots, and how many to keep.
        run: where they are.
        say: called with a sentence when a snapshot could not be completed.
        start_step: number of steps in the snapshot that the run resumes from; 0 for none.
        on_committed: called with the number of steps of every snapshot when it is complete.
    """

    def __init__(
        self,
        config: SnapshotsConfig,
        run: RunDir,
        say: Callable[[str], None],
        start_step: int = 0,
        on_committed: Callable[[int], None] = lambda steps: None,
    ) -> None:
        self.config, self.run, self.say, self._on_committed = config, run, say, on_committed
        self.committed = start_step
        """Steps of the newest complete snapshot."""
        self._expected: dict[int, int] = {}
        self._parts: dict[int, dict[int, StageFile]] = {}
        self._lock = threading.Lock()  # one thread sends batches, another receives the parts

    def begin_if_due(self, step: int, stages: int, leave: bool = False) -> bool:
        """Whether a snapshot follows `step`, counted from 0; then it waits for the parts of stages 1 to `stages`.

        Args:
            leave: the run stops after this step, so a snapshot follows in any case.
        """
        if not leave and (self.config.every is None or (step + 1) % self.config.every):
            return False
        with self._lock:
            self._expected[step + 1], self._parts[step + 1] = stages, {}
        return True

    def drop_parts_of(self, stages: Sequence[int]) -> None:
        """Discard these stages' parts of incomplete snapshots: they restart, and will write them again."""
        with self._lock:
            for parts in self._parts.values():
                for stage in stages:
                    parts.pop(stage, None)

    def add_part(self, part: SnapshotPart) -> None:
        """Take note that a stage has written its part, or has failed to."""
        with self._lock:
            if part.steps not in self._expected:
                self._remove_parts(part.steps)
                return
            parts = self._parts[part.steps]
            if part.file is not None:
                parts[part.stage] = part.file
            complete = len(parts) == self._expected[part.steps]
            if complete or part.file is None:
                del self._expected[part.steps], self._parts[part.steps]
        if part.file is None:
            self._remove_parts(part.steps)
            self.say(f"no snapshot after {part.steps} steps: stage {part.stage}: {part.problem}")
        elif complete:
            self._commit(part.steps, parts)

    def _remove_parts(self, steps: int) -> None:
        """Remove the other parts of a snapshot that cannot be completed."""
        if not (self.run.snapshot(steps) / MANIFEST).exists():
            shutil.rmtree(self.run.snapshot(steps), ignore_errors=True)

    def _commit(self, steps: int, parts: dict[int, StageFile]) -> None:
        manifest = Manifest(steps, {index: parts[index] for index in sorted(parts)})
        try:
            write_json(self.run.snapshot(steps) / MANIFEST, manifest.to_json(), self.run.path)
        except OSError as error:
            self._remove_parts(steps)
            self.say(f"no snapshot after {steps} steps: its manifest could not be written ({error.strerror})")
            return
        self.committed = max(self.committed, steps)
        self._on_committed(steps)
        for old in self._outdated(steps):
            shutil.rmtree(self.run.snapshot(old), ignore_errors=True)

    def _outdated(self, newest: int) -> list[int]:
        complete = [n for n in step_numbers(self.run) if (self.run.snapshot(n) / MANIFEST).is_file()]
        last = set(sorted(complete)[-self.config.keep_last :])
        every = self.config.keep_every
        return [n for n in complete if n not in last and n < newest and not (every and n % every == 0)]
