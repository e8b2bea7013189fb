"""Keeps the batches that a restarted stage may need again, in memory and, beyond a limit, on disk.

With a snapshot after 4 steps, and step 7 just sent:

    step       0 1 2 3 | 4 5 6 7
    buffer     dropped | kept         a restarted receiver starts from the snapshot, at step 4
"""

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
"""Most bytes of batches kept in memory for one link; further batches go to disk."""
DISK_BYTES = 2**36
"""Most bytes of batches kept on disk for one link: without snapshots they would fill any disk."""


@dataclass
class _Entry:
    header: Header
    tensor: Tensor | None
    nbytes: int
    file: Path | None = None


class ReplayBuffer:
    """All batches since the last complete snapshot, by step.

    Args:
        folder: for batches that do not fit into memory.
        memory_limit: most bytes in memory.
        disk_limit: most bytes on disk.
    """

    def __init__(self, folder: Path, memory_limit: int = MEMORY_BYTES, disk_limit: int = DISK_BYTES) -> None:
        self._folder, self._memory_limit, self._disk_limit = folder, memory_limit, disk_limit
        self._entries: dict[int, _Entry] = {}
        self._memory_bytes = self._disk_bytes = 0
        self._lock = threading.Lock()  # one thread sends, another is told of snapshots

    def add(self, header: Header, tensor: Tensor) -> None:
        """Keep one batch; a CPU tensor is not copied and must not be changed afterwards.

        Raises:
            TrainingError: `disk_limit` is exceeded, because no snapshot was completed for too long.
        """
        size = tensor.numel() * tensor.element_size()
        with self._lock:
            if header.step in self._entries:  # resent
                return
            spill = self._memory_bytes + size > self._memory_limit
            self._memory_bytes += 0 if spill else size
            self._disk_bytes += size if spill else 0
            if self._disk_bytes > self._disk_limit:
                raise TrainingError(
                    f"the batches since the last complete snapshot, which restart=stage keeps, take more than "
                    f"{self._disk_limit / 2**30:g} GiB in '{self._folder}'. Set snapshots.every lower, or restart=job"
                )
        tensor = tensor.detach().cpu()  # keeps no GPU memory for batches that are rarely needed
        entry = _Entry(header, None if spill else tensor, size)
        if spill:
            entry.file = self._folder / f"step_{header.step}.safetensors"
            _write(entry.file, tensor)
        with self._lock:
            self._entries[header.step] = entry

    def discard_before(self, steps: int) -> None:
        """Drop batches that no restart needs, because the snapshot after `steps` steps is complete."""
        with self._lock:
            discarded = [self._entries.pop(step) for step in list(self._entries) if step < steps]
            self._memory_bytes -= sum(entry.nbytes for entry in discarded if entry.file is None)
            self._disk_bytes -= sum(entry.nbytes for entry in discarded if entry.file is not None)
        for entry in discarded:
            if entry.file is not None:
                entry.file.unlink(missing_ok=True)

    def steps(self) -> list[int]:
        """Steps of all kept batches, ascending."""
        with self._lock:
            return sorted(self._entries)

    def get(self, step: int) -> Message | None:
        """The batch of `step`; None if it was dropped."""
        with self._lock:
            entry = self._entries.get(step)
        if entry is None:
            return None
        tensor = entry.tensor
        if tensor is None:
            assert entry.file is not None
            try:
                tensor = _read(entry.file)
            except FileNotFoundError:  # dropped meanwhile
                return None
        return Message(entry.header, tensor)

    def close(self) -> None:
        """Remove all batches on disk."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _write(path: Path, tensor: Tensor) -> None:
    """Write a batch without flushing: a run that starts again does not read it."""
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
    """The run directory of a batch file, which lies in `.replay/LINK`."""
    return path.parents[2]
