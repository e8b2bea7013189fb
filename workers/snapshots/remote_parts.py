"""Parts of snapshots and of `final/` of a process that does not see the run directory of the coordinator.

They are sent to it as they are made, from the copies that the process has in memory, and fetched when a run goes on.
Nothing of them is kept on this host.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from pipeline.errors import UserError
from pipeline.ordinary_files import make_folder
from workers.control.channel import Message
from workers.control.transfer import TransferClient, TransferFailed
from workers.control.validation import read_message
from workers.run.files import RunDir
from workers.run.tensor_files import serialized, serialized_bytes, tensors_in
from workers.snapshots.manifest import MANIFEST, StageFile, read_initial_file, read_manifest
from workers.snapshots.parts import OpenedPart, PartName, SavedPart


class RemoteParts:
    """On the host of the coordinator; as `Parts`.

    Args:
        client: connected to a server of a `PartStore`.
        folder: on this host, for temporary files.
    """

    def __init__(self, client: TransferClient, folder: Path) -> None:
        self._client, self._folder = client, folder

    def save(self, name: PartName, tensors: dict[str, Tensor]) -> SavedPart:
        """See `Parts.save`."""
        size = serialized_bytes(tensors)
        return SavedPart(size, self._client.put(name.to_message(), size, lambda: serialized(tensors)))

    @contextmanager
    def opened(self, steps: int, stage: int) -> Iterator[OpenedPart | None]:
        """See `Parts.opened`."""
        with self._fetched(PartName("snapshot", stage, steps), f"the snapshot after {steps} steps") as part:
            yield part

    @contextmanager
    def opened_initial(self, stage: int) -> Iterator[OpenedPart]:
        """See `Parts.opened_initial`."""
        with self._fetched(PartName("initial", stage), "the weights that the run begins with") as part:
            if part is None:
                raise TransferFailed(f"there are no weights that stage {stage} begins with")
            yield part

    @contextmanager
    def _fetched(self, name: PartName, whole: str) -> Iterator[OpenedPart | None]:
        received = self._client.get(name.to_message(), self._folder)
        if received is None:
            yield None
            return
        with received.file as file:
            part = read_message(StageFile, received.about)
            if part.sha256 != received.sha256:
                raise TransferFailed(
                    f"the part of stage {name.stage} of {whole} is damaged: its digest is not the manifest's"
                )
            with tensors_in(file, self._folder) as tensors:
                yield OpenedPart(tensors, part.counters)


class PartStore:
    """The coordinator's side: which files of a run other processes may send and fetch.

    Args:
        run: its directory.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run

    @property
    def root(self) -> Path:
        """See `FileStore.root`."""
        return self._run.path

    def place(self, what: Message) -> Path:
        """See `FileStore.place`."""
        name = PartName.from_message(what)
        if name.kind == "initial":
            raise UserError("the weights that the run begins with are there already")
        path = name.path(self._run)
        if name.kind == "snapshot" and (path.parent / MANIFEST).exists():
            raise UserError(f"the snapshot after {name.steps} steps is complete already")
        make_folder(path.parent, self._run.path)
        return path

    def find(self, what: Message) -> tuple[Message, Path] | None:
        """See `FileStore.find`: parts of complete snapshots, with what the manifest says of them."""
        name = PartName.from_message(what)
        if name.kind == "initial":
            first = read_initial_file(self._run, name.stage)
            return asdict(first), self._run.initial / first.file
        if name.kind != "snapshot":
            raise UserError("only parts of snapshots, and weights to begin with, are sent")
        folder = self._run.snapshot(name.steps)
        part = read_manifest(folder).stages.get(name.stage)
        return None if part is None else (asdict(part), folder / part.file)
