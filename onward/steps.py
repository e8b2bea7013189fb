"""The steps of a run as they happen: follows `metrics.jsonl`, which is rewritten when a run goes back to a snapshot."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.ordinary_files import open_to_read

POLL_SECONDS = 0.1
CHUNK = 1 << 20


@dataclass(frozen=True)
class Step:
    """One step of every stage.

    Args:
        step: counted from 0.
        epoch: counted from 0.
        losses: of every block that learned, by its number from 1.
        images_per_second: of the run, over its last steps.
        eta_seconds: until its end, as far as that is known.
        line: all that was measured, as in `metrics.jsonl`.
    """

    step: int
    epoch: int
    losses: Mapping[int, float | None]
    _: KW_ONLY
    images_per_second: float
    eta_seconds: float | None
    line: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Step:
        """From a line of `metrics.jsonl`."""
        losses = {stage["stage"]: stage.get("loss") for stage in line["stages"]}
        rate, left = line.get("images_per_second") or 0.0, line.get("eta_seconds")
        return cls(line["step"], line["epoch"], losses, images_per_second=rate, eta_seconds=left, line=line)


class StepFile:
    """Reads `metrics.jsonl` while it is being written; every step comes once, in order.

    Args:
        path: of the file, which need not be there yet.
        after: the last step that is not wanted.
    """

    def __init__(self, path: Path, after: int = -1) -> None:
        self._path, self._last = path, after
        self._inode, self._at, self._rest = 0, 0, b""

    def new(self) -> list[Step]:
        """The steps that have come since the last call."""
        found: list[Step] = []
        with suppress(FileNotFoundError), open_to_read(self._path, self._path.parent) as file:
            about = os.fstat(file.fileno())
            if about.st_ino != self._inode or about.st_size < self._at:  # another file: the run went back
                self._inode, self._at, self._rest = about.st_ino, 0, b""
            file.seek(self._at)
            while data := file.read(CHUNK):
                self._at += len(data)
                *lines, self._rest = (self._rest + data).split(b"\n")
                found += self._steps(lines)
        return found

    def _steps(self, lines: list[bytes]) -> Iterator[Step]:
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):  # a line that was cut short when a process was killed
                step = Step.of(json.loads(line))
                if step.step > self._last:
                    self._last = step.step
                    yield step


def follow(path: Path, ended: Callable[[], bool], after: int = -1) -> Iterator[Step]:
    """Every step until the run has ended, as it happens.

    Args:
        path: of `metrics.jsonl`.
        ended: whether no further step will be written.
        after: the last step that is not wanted.
    """
    file = StepFile(path, after)
    while True:
        last_look = ended()  # before the look, so that what was written until then is found
        yield from file.new()
        if last_look:
            return
        time.sleep(POLL_SECONDS)
