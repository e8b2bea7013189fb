"""Where features go while they are computed: batch by batch into files, or into memory.

A data set's features can be larger than the memory, so they are appended to one file per place, hashed as they are
written, and memory-mapped when all are there. Where the disk has no room they are kept in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import torch
from torch import Tensor

from pipeline.config.places import Place
from pipeline.errors import UserError
from pipeline.ordinary_files import open_to_write
from workers.evaluating.feature_cache import TENSOR, Written
from workers.evaluating.finite_features import check_finite
from workers.run.files import temporary_of


class Rows:
    """Collects the rows of `[N, D]` at several places, in order; a context manager.

    Args:
        count: N.
        folder: for the files, `PLACE.safetensors`; None keeps everything in memory.
        note: called with a sentence if the disk has no room.
    """

    def __init__(self, count: int, folder: Path | None, note: Callable[[str], None] = lambda text: None) -> None:
        self._count, self._folder, self._note = count, folder, note
        self._done = 0
        self._memory: dict[Place, Tensor] = {}
        self._files: dict[Place, _File] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def add(self, features: Mapping[Place, Tensor]) -> None:
        """The next rows, float32 `[B, D]` at every place; raises `UserError` if they are not finite."""
        check_finite(features)
        if not self._done:
            self._prepare({place: rows.shape[1] for place, rows in features.items()})
        for place, rows in features.items():
            if self._files:
                self._files[place].append(rows)
            else:
                self._memory[place][self._done : self._done + len(rows)] = rows
        self._done += len(next(iter(features.values()), ()))

    def finish(self) -> tuple[dict[Place, Tensor], dict[Place, Written]]:
        """What is in memory, and what became files; one of them is empty.

        Raises:
            UserError: a file could not be written.
        """
        assert self._done == self._count, f"{self._done} of {self._count} rows"
        return self._memory, {place: file.close() for place, file in self._files.items()}

    def _prepare(self, widths: Mapping[Place, int]) -> None:
        if self._folder is not None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                for place, width in widths.items():
                    path = self._folder / f"{place.key}.safetensors"
                    self._files[place] = self._open.enter_context(_File(path, self._count, width))
                return
            except OSError as error:
                self._open.close()
                self._files = {}
                reason = error.strerror or error
                self._note(f"no features are kept in '{self._folder}' ({reason}): the evaluation goes on without")
        self._memory = {place: torch.empty(self._count, width) for place, width in widths.items()}


class _File:
    """One file that grows by rows under a temporary name; a context manager that leaves no half of it behind."""

    def __init__(self, path: Path, rows: int, width: int) -> None:
        self._path, self._temporary, self._width = path, temporary_of(path), width
        self._digest = hashlib.sha256()
        self._temporary.unlink(missing_ok=True)
        self._file: BinaryIO = open_to_write(self._temporary, path.parent.parent, new=True)
        start = _header(rows, width)
        self._size = len(start) + 4 * rows * width
        try:
            if hasattr(os, "posix_fallocate"):  # so that a full disk shows before the work, not after it
                os.posix_fallocate(self._file.fileno(), 0, self._size)
            self._write(start)
        except OSError:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def append(self, rows: Tensor) -> None:
        try:
            self._write(rows.contiguous().numpy().astype("<f4", copy=False).tobytes())
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> Written:
        try:
            self._file.close()
            self._temporary.replace(self._path)
        except OSError as error:
            raise self._unwritable(error) from None
        return Written(self._size, self._digest.hexdigest(), self._width)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)

    def _unwritable(self, error: OSError) -> UserError:
        reason = error.strerror or error
        return UserError(f"'{self._path}' cannot be written ({reason}). Make room, or give evaluation.cache=false")


def _header(rows: int, width: int) -> bytes:
    """What a safetensors file of one float32 tensor `[rows, width]` begins with: its length, and JSON of 8n bytes."""
    entry = {"dtype": "F32", "shape": [rows, width], "data_offsets": [0, 4 * rows * width]}
    text = json.dumps({TENSOR: entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
