"""The authentication key of a run as a file that only its user can read: 256 bits in hexadecimal."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

DIGITS = 64
"""Hexadecimal digits of a key."""


class NoKeyError(Exception):
    """A file holds no key, or somebody else may have read or written it."""


def write_key(path: Path) -> str:
    """Create a key in a new file that only this user can read; returns it in hexadecimal."""
    path.unlink(missing_ok=True)  # left by a run that was killed
    key = secrets.token_hex(DIGITS // 2)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(key)
    return key


def remove_key(path: Path) -> None:
    """Remove the file of the key if it exists and can be removed."""
    with suppress(OSError):
        path.unlink()


def read_key(path: Path, owners: Iterable[int]) -> bytes:
    """The key in a file, which must belong to one of the user ids `owners` and be readable by its owner only.

    Raises:
        NoKeyError: that is not so, or the file holds no key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid not in owners or found.st_mode & 0o077:
                raise NoKeyError(f"'{path}' is not a file that only this user can read")
            return bytes.fromhex(file.read(DIGITS + 1).decode("ascii"))
    except OSError as error:
        raise NoKeyError(f"'{path}' cannot be read ({error.strerror})") from None
    except ValueError:
        raise NoKeyError(f"'{path}' holds no key") from None
