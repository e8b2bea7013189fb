"""Where a process keeps its parts of snapshots and of `final/`: in the run directory.

Where that is not shared with the host of the coordinator, they are sent there: `remote_parts.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field
from torch import Tensor

from workers.control.validation import Count, Index, read_message
from workers.run.files import RunDir
from workers.run.tensor_files import open_tensors, save_tensors
from workers.snapshots.manifest import read_initial_file, read_manifest


@dataclass(frozen=True)
class PartName:
    """Which file of a run.

    Args:
        kind: part of a snapshot; of the weights to begin with; of the trained ones; of those of an online probe.
        stage: counted from 1.
        steps: of the snapshot; 0 for the others.
    """

    kind: Literal["snapshot", "initial", "stage", "probe"]
    stage: Index
    steps: Annotated[Count, Field(lt=10**18)] = 0

    def to_message(self) -> dict[str, Any]:
        """As it is sent."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> PartName:
        """The inverse of `to_message`; raises `MalformedMessage`."""
        return read_message(cls, message)

    def path(self, run: RunDir) -> Path:
        """Where it is in a run directory."""
        if self.kind == "snapshot":
            return run.snapshot(self.steps) / f"stage_{self.stage}.safetensors"
        if self.kind == "initial":
            return run.initial / f"stage_{self.stage}.safetensors"
        return run.stage(self.stage) if self.kind == "stage" else run.probe(self.stage)


@dataclass(frozen=True)
class SavedPart:
    """A file that was saved.

    Args:
        bytes: its size.
        sha256: its digest.
    """

    bytes: int
    sha256: str


@dataclass(frozen=True)
class OpenedPart:
    """A part of a snapshot.

    Args:
        tensors: the opened file, as `safe_open` returns it.
        counters: the state of the stage that is not in tensors.
    """

    tensors: Any
    counters: dict[str, Any]


class Parts(Protocol):
    """Where they are kept."""

    def save(self, name: PartName, tensors: dict[str, Tensor]) -> SavedPart:
        """Write a file, whole or not at all; raises `OSError` or `TransferFailed`."""
        ...

    def opened(self, steps: int, stage: int) -> AbstractContextManager[OpenedPart | None]:
        """The part of a stage of a complete snapshot; None if the stage is not in it.

        Raises:
            UserError: its manifest cannot be read.
            OSError, SafetensorError: it cannot be read.
            TransferFailed: it cannot be fetched.
        """
        ...

    def opened_initial(self, stage: int) -> AbstractContextManager[OpenedPart]:
        """The weights that a stage begins with; raises as `opened`."""
        ...


class LocalParts:
    """In the run directory."""

    def __init__(self, run: RunDir) -> None:
        self._run = run

    def save(self, name: PartName, tensors: dict[str, Tensor]) -> SavedPart:
        """See `Parts.save`."""
        path = name.path(self._run)
        digest = save_tensors(path, tensors, root=self._run.path)
        return SavedPart(path.stat().st_size, digest)

    @contextmanager
    def opened(self, steps: int, stage: int) -> Iterator[OpenedPart | None]:
        """See `Parts.opened`."""
        folder = self._run.snapshot(steps)
        part = read_manifest(folder).stages.get(stage)
        if part is None:
            yield None
            return
        with open_tensors(folder / part.file, self._run.path) as tensors:
            yield OpenedPart(tensors, part.counters)

    @contextmanager
    def opened_initial(self, stage: int) -> Iterator[OpenedPart]:
        """See `Parts.opened_initial`."""
        part = read_initial_file(self._run, stage)
        with open_tensors(self._run.initial / part.file, self._run.path) as tensors:
            yield OpenedPart(tensors, part.counters)
