"""The authentication key of a run as a file that only its user can read: 256 bits in hexadecimal."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.errors import UserError

DIGITS = 64
"""Hexadecimal digits of a key."""
KEY_FILE_VARIABLE = "ONWARD_KEY_FILE"
"""Names a file with the key of the run, where whoever started this process gave the same to all."""


class NoKeyError(Exception):
    """A file holds no key, or somebody else may have read or written it."""


def new_key() -> str:
    """A new key, in hexadecimal."""
    return secrets.token_hex(DIGITS // 2)


def given_key() -> str | None:
    """The key that this process was given in a file of its own user, in hexadecimal; None if it was given none.

    Raises:
        UserError: the file holds no key, or others may have read it.
    """
    path = os.environ.get(KEY_FILE_VARIABLE)
    try:
        return read_key(Path(path), [os.geteuid()]).hex() if path else None
    except NoKeyError as reason:
        raise UserError(f"{KEY_FILE_VARIABLE}: {reason}. Give a file of mode 0600 with {DIGITS} digits") from None


def write_key(path: Path, key: str | None = None) -> str:
    """Write a key, by default a new one, to a new file that only this user can read; returns it in hexadecimal."""
    path.unlink(missing_ok=True)  # left by a run that was killed
    key = key or new_key()
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
