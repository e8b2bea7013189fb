"""Only one run may write to a run directory: it holds a lock from before the first read to the end of the last process.

The lock belongs to an open file, which outlives the process that opened it: the command takes it before anything in the
folder is read or changed, and the coordinator inherits the open file. A start that fails, or that is refused, removes
what it made, so that the next one finds the directory as it was.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from launch.prepare.lock_holders import holders
from pipeline.errors import ConfigError
from pipeline.ordinary_files import open_lock, open_to_read
from workers.run.files import RunDir

REMEDY = "Give another run_dir=FOLDER"
LOOK_SECONDS = 0.2
"""A process that only checks whether a run is being trained holds its lock for less than this."""
POLL_SECONDS = 0.01
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""Errors of file systems that have no locks, as some mounts of NFS and Lustre."""


@dataclass
class Claim:
    """A run directory that this process may write to; a context manager that releases it.

    If an exception leaves it before `keep`, it removes what was made since; a run that was there stays as it was.

    Args:
        run: the directory.
        descriptor: of the open lock; None where the file system has no locks.
        made: files and folders that were not there before, outermost first.
    """

    run: RunDir
    descriptor: int | None
    made: list[Path] = field(default_factory=list)
    _kept: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not self._kept:
            self._undo()
        self.release()

    @property
    def held(self) -> tuple[int, ...]:
        """The open lock, for processes that are to hold it too."""
        return () if self.descriptor is None else (self.descriptor,)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user."""
        problem = f"the file system of '{self.run.path}' has no locks: nothing stops a second start of this run"
        return (problem,) if self.descriptor is None else ()

    def keep(self) -> None:
        """Keep what is in the directory, however the run ends: it has begun."""
        self._kept = True

    def release(self) -> None:
        """Release the lock; processes that inherited it still hold it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def _undo(self) -> None:
        if self.run.path in self.made:
            shutil.rmtree(self.run.path, ignore_errors=True)
        _remove(self.made)


def claim(path: Path, new: bool = False, wait: float = 0.0) -> Claim:
    """Claim the run directory `path`, which is made if it is not there.

    Args:
        path: of the run.
        new: it must not be there.
        wait: seconds in which an earlier process may release it.

    Raises:
        ConfigError: another process has it, or it cannot be written.
        FileExistsError: it is there and should not be.
    """
    run = RunDir(path)
    deadline = time.monotonic() + max(wait, LOOK_SECONDS)
    made: list[Path] = []
    while True:
        try:
            made = made or _make(path, new)
            descriptor = open_lock(run.lock)
        except FileNotFoundError:  # a start that failed has removed it meanwhile
            made = []
            continue
        except FileExistsError:
            if new:
                raise
            raise ConfigError("run_dir", f"'{path}' is not a folder", REMEDY) from None
        except OSError as error:
            _remove(made)
            raise ConfigError("run_dir", f"'{path}' cannot be written ({error.strerror})", REMEDY) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, run.lock):
                return Claim(run, descriptor, _ours(run, made))
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise _held_by_another(run) from None
            time.sleep(POLL_SECONDS)
        except OSError as error:
            os.close(descriptor)
            if error.errno in NO_LOCKS:
                return Claim(run, None, _ours(run, made))
            raise ConfigError("run_dir", f"'{run.lock}' cannot be locked ({error.strerror})", REMEDY) from None
        os.close(descriptor)


def check_not_running(path: Path) -> None:
    """Raises `ConfigError` if a process holds the run in `path`."""
    if is_running(RunDir(path)):
        raise _held_by_another(RunDir(path))


def is_running(run: RunDir) -> bool:
    """Whether a process holds the run; False also where the file system has no locks."""
    try:
        with open_to_read(run.lock, run.path) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except PermissionError:  # another user's: the kernel still lists who holds it
        return bool(holders(run.lock))
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return False


def _ours(run: RunDir, made: list[Path]) -> list[Path]:
    """What this start made: where a run is there, at most its lock."""
    return [path for path in made if path == run.lock] if run.config.exists() else made


def _held_by_another(run: RunDir) -> ConfigError:
    processes = holders(run.lock)
    by = f" (by {' and '.join(processes)})" if processes else ""
    return ConfigError("run_dir", f"the run in '{run.path}' is still being trained{by}", "Wait for its end, or stop it")


def _make(path: Path, new: bool) -> list[Path]:
    """Make a folder with its parents; those that were not there, outermost first, and its lock."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=not new)
    except OSError:
        _remove(missing)
        raise
    lock = RunDir(path).lock
    return [*reversed(missing), *([] if lock.exists() else [lock])]


def _remove(made: list[Path]) -> None:
    """Remove files and empty folders, innermost first; another process may use the others by now."""
    for path in reversed(made):
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one with this name, and not one that was removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
