"""The authentication key of a run as a file that only its user can read: 256 bits in hexadecimal.

It is made for every run, in its private folder or directory, or is given by the user in a file on every host.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.errors import UserError
from pipeline.ordinary_files import open_to_read

KEY_VARIABLE = "ONWARD_KEY_FILE"
"""Names the file with a key that the user gives, or `onward train --hosts`."""
DIGITS = 64
"""Hexadecimal digits of a key."""


class NoKeyError(Exception):
    """A file holds no key, or somebody else may have read or written it."""


def new_key() -> str:
    """A new key, in hexadecimal."""
    return secrets.token_hex(DIGITS // 2)


def write_key(path: Path, key: str | None = None) -> str:
    """Write a key, by default a new one, to a new file that only this user can read; returns it in hexadecimal."""
    path.unlink(missing_ok=True)  # left by a run that was killed
    key = key or new_key()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(key)
    return key


def given_key() -> bytes | None:
    """The key in the file that the user names on this host; None where none is named.

    A link is followed, as a Kubernetes Secret is mounted by one. The file must be the user's own with mode 0600 or
    less, or root's and closed to all but a group.

    Raises:
        UserError: the file holds no key, or others may read it.
    """
    path = os.environ.get(KEY_VARIABLE)
    if not path:
        return None
    make = f"Make one, the same on every host: (umask 077; openssl rand -hex {DIGITS // 2} > FILE)"
    try:
        with open_to_read(path) as file:
            found, text = os.fstat(file.fileno()), file.read(DIGITS + 2).decode("ascii", "replace").strip()
    except OSError as error:
        raise UserError(f"{KEY_VARIABLE}: '{path}' cannot be read ({error.strerror}). {make}") from None
    of_root = found.st_uid == 0 and not found.st_mode & 0o027
    if not of_root and (found.st_uid != os.geteuid() or found.st_mode & 0o077):
        mode = f"mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}"
        raise UserError(f"{KEY_VARIABLE}: others may read '{path}' ({mode}). Make it yours alone: chmod 600 {path}")
    if re.fullmatch(f"[0-9a-fA-F]{{{DIGITS}}}", text) is None:
        raise UserError(f"{KEY_VARIABLE}: '{path}' does not hold a key of {DIGITS} hexadecimal digits. {make}")
    return bytes.fromhex(text)


def fingerprint(key: bytes | None) -> str:
    """By which two hosts see whether they have the same key, and nobody can tell which; empty for none."""
    return "" if key is None else hashlib.sha256(b"fingerprint of a key\0" + key).hexdigest()[:16]


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
