"""The batches that a restarted stage may need again: in the host's memory, and on disk where there are many."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pipeline.errors import TrainingError
from pipeline.ordinary_files import make_folder, open_to_write
from workers.links.messages import Header, Message

MEMORY_BYTES = 2**30
"""Of batches kept in the host's memory for one link; those beyond wait on disk."""
DISK_BYTES = 2**36
"""Of those: a run that takes no snapshot for so long would fill any disk."""


@dataclass
class _Kept:
    header: Header
    tensor: Tensor | None
    nbytes: int
    file: Path | None = None


class ReplayBuffer:
    """The batches that a restarted receiver may need: all since the last complete snapshot, in order.

    Args:
        folder: where batches go that do not fit into `limit` bytes of memory.
        most: bytes of them on disk.
    """

    def __init__(self, folder: Path, limit: int = MEMORY_BYTES, most: int = DISK_BYTES) -> None:
        self._folder, self._limit, self._most = folder, limit, most
        self._kept: dict[int, _Kept] = {}
        self._bytes = self._spilt = 0
        self._lock = threading.Lock()  # one thread sends, another hears of snapshots

    def add(self, header: Header, tensor: Tensor) -> None:
        """Keep one batch, in the host's memory; a tensor that is there must not be changed afterwards.

        Raises:
            TrainingError: there are too many, because no snapshot became complete.
        """
        size = tensor.numel() * tensor.element_size()
        with self._lock:
            if header.step in self._kept:  # sent once more
                return
            spill = self._bytes + size > self._limit
            self._bytes += 0 if spill else size
            self._spilt += size if spill else 0
            if self._spilt > self._most:
                raise TrainingError(
                    f"the batches since the last complete snapshot, which restart=stage keeps, take more than "
                    f"{self._most / 2**30:g} GiB in '{self._folder}'. Set snapshots.every lower, or restart=job"
                )
        tensor = tensor.detach().cpu()  # nothing of the device is held for what is hardly ever asked for
        kept = _Kept(header, None if spill else tensor, size)
        if spill:
            kept.file = self._folder / f"step_{header.step}.safetensors"
            _write(kept.file, tensor)
        with self._lock:
            self._kept[header.step] = kept

    def forget(self, steps: int) -> None:
        """A snapshot after `steps` steps is complete: no earlier batch will be asked for."""
        with self._lock:
            gone = [self._kept.pop(step) for step in list(self._kept) if step < steps]
            self._bytes -= sum(kept.nbytes for kept in gone if kept.file is None)
            self._spilt -= sum(kept.nbytes for kept in gone if kept.file is not None)
        for kept in gone:
            if kept.file is not None:
                kept.file.unlink(missing_ok=True)

    def steps(self) -> list[int]:
        """Of the batches that are kept."""
        with self._lock:
            return sorted(self._kept)

    def get(self, step: int) -> Message | None:
        """The batch of `step`; None once it has been forgotten."""
        with self._lock:
            kept = self._kept.get(step)
        if kept is None:
            return None
        tensor = kept.tensor
        if tensor is None:
            assert kept.file is not None
            try:
                tensor = _read(kept.file)
            except FileNotFoundError:  # forgotten meanwhile
                return None
        return Message(kept.header, tensor)

    def close(self) -> None:
        """Remove what is on disk."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _write(path: Path, tensor: Tensor) -> None:
    """Not flushed to the disk: it is of no use to a run that starts again."""
    from workers.run.tensor_files import serialized

    run = _run_of(path)
    make_folder(path.parent, run)
    path.unlink(missing_ok=True)
    with open_to_write(path, run, new=True) as file:
        file.writelines(serialized({"batch": tensor.contiguous()}))


def _read(path: Path) -> Tensor:
    from workers.run.tensor_files import read_tensors

    return read_tensors(path, _run_of(path))["batch"]


def _run_of(path: Path) -> Path:
    """The run directory: batches lie in `.replay/LINK`."""
    return path.parents[2]
