"""Keeps the batches that a restarted stage may need again, in memory of the host and, beyond a limit, on disk.

With a snapshot after 4 steps, and step 7 just sent:

    step       0 1 2 3 | 4 5 6 7
    buffer     dropped | kept         a restarted receiver starts from the snapshot, at step 4

A GPU copies a batch into pinned memory beside the rest of the step, and nobody waits for it: what goes to disk is
written with the next step. The memory of a batch that is dropped goes back to PyTorch's cache of pinned memory.
"""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pipeline.errors import TrainingError
from pipeline.ordinary_files import make_folder, open_to_write
from workers.links.gpu import LinkGpu
from workers.links.messages import Header, Message

MEMORY_BYTES = 2**30
"""Most bytes of memory for the batches of one link; further batches go to disk."""
DISK_BYTES = 2**36
"""Most bytes of batches kept on disk for one link: without snapshots they would fill any disk."""


@dataclass
class _Entry:
    header: Header
    tensor: Tensor | None
    nbytes: int
    file: Path | None


class ReplayBuffer:
    """All batches since the last complete snapshot, by step; for one thread, except `discard_before`.

    Args:
        folder: for batches that do not fit into memory.
        gpu: that batches come from; None for a CPU.
        memory_limit: most bytes in memory.
        disk_limit: most bytes on disk.
    """

    def __init__(
        self,
        folder: Path,
        gpu: LinkGpu | None = None,
        memory_limit: int = MEMORY_BYTES,
        disk_limit: int = DISK_BYTES,
    ) -> None:
        self._folder, self._gpu, self._memory_limit, self._disk_limit = folder, gpu, memory_limit, disk_limit
        self._entries: dict[int, _Entry] = {}
        self._unwritten: _Entry | None = None
        """Goes to disk, and is in memory until then."""
        self._memory_bytes = self._disk_bytes = 0
        self._lock = threading.Lock()  # one thread sends, another is told of snapshots

    def add(self, header: Header, tensor: Tensor) -> None:
        """Keep one batch, which must not be changed afterwards; one on a GPU is copied, and may be let go of.

        Raises:
            TrainingError: `disk_limit` is exceeded, because no snapshot was completed for too long.
        """
        self._write_rest()
        size = _held(tensor.nbytes, pinned=self._gpu is not None)
        with self._lock:
            if header.step in self._entries:  # resent
                return
            spill = self._memory_bytes + size > self._memory_limit
            size = tensor.nbytes if spill else size
            self._memory_bytes += 0 if spill else size
            self._disk_bytes += size if spill else 0
            if self._disk_bytes > self._disk_limit:
                raise TrainingError(
                    f"the batches since the last complete snapshot, which restart=stage keeps, take more than "
                    f"{self._disk_limit / 2**30:g} GiB in '{self._folder}'. Set snapshots.every lower, or restart=job"
                )
        file = self._folder / f"step_{header.step}.safetensors" if spill else None
        self._unwritten = _Entry(header, self._on_host(tensor.detach()), size, file)
        if self._gpu is None or not spill:
            self._write_rest()

    def discard_before(self, steps: int) -> None:
        """Drop batches that no restart needs, because the snapshot after `steps` steps is complete. Thread-safe."""
        with self._lock:
            discarded = [self._entries.pop(step) for step in list(self._entries) if step < steps]
            self._memory_bytes -= sum(entry.nbytes for entry in discarded if entry.file is None)
            self._disk_bytes -= sum(entry.nbytes for entry in discarded if entry.file is not None)
        for entry in discarded:
            if entry.file is not None:
                entry.file.unlink(missing_ok=True)

    def steps(self) -> list[int]:
        """Steps of all kept batches, ascending."""
        self._write_rest()
        with self._lock:
            return sorted(self._entries)

    def get(self, step: int) -> Message | None:
        """The batch of `step`, in memory of the host; None if it was dropped."""
        self._write_rest()
        with self._lock:
            entry = self._entries.get(step)
        if entry is None:
            return None
        if entry.file is None:
            assert entry.tensor is not None
            self._finish()
            return Message(entry.header, entry.tensor)
        try:
            return Message(entry.header, _read(entry.file))
        except FileNotFoundError:  # dropped meanwhile
            return None

    def close(self) -> None:
        """Remove all batches on disk."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _on_host(self, tensor: Tensor) -> Tensor:
        if self._gpu is None:
            return tensor
        kept = self._gpu.page(tensor.nbytes).view(tensor.dtype).view(tensor.shape)
        self._gpu.copy(tensor, kept)
        return kept

    def _write_rest(self) -> None:
        """Write what the GPU was still copying when it was added."""
        entry, self._unwritten = self._unwritten, None
        if entry is None:
            return
        if entry.file is not None:
            assert entry.tensor is not None
            self._finish()
            _write(entry.file, entry.tensor)
            entry.tensor = None
        with self._lock:
            self._entries[entry.header.step] = entry

    def _finish(self) -> None:
        if self._gpu is not None and not self._gpu.copied():
            self._gpu.finish()


def most_in_memory(batches: int | None, nbytes: int, pinned: bool, limit: int = MEMORY_BYTES) -> int:
    """What a buffer takes of the host's memory, at most, in bytes.

    Args:
        batches: that it keeps at once; None for any number.
        nbytes: of the largest.
        pinned: they come from a GPU. Then one more than fits is there until it is written.
        limit: the buffer's `memory_limit`.
    """
    size = _held(nbytes, pinned)
    if batches is not None and batches * size <= limit:
        return batches * size
    return limit + pinned * size


def _held(nbytes: int, pinned: bool) -> int:
    """What a batch takes: PyTorch's allocator of pinned memory rounds up to a power of two."""
    return 1 << max(nbytes - 1, 0).bit_length() if pinned else nbytes


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
