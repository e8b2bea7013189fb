"""Decides whether a configuration may call functions: the user's own and root's may, others need `--trust`.

`PACKAGE.MODULE:NAME` is imported and called with any options, so a file from another user can run any program.
Commands that build what a file names call `check_trust` first; those that only read a run build nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.validation.pydantic_errors import shown

_NAMING = ("backbone", "kind", "name")
"""Keys whose value may be `PACKAGE.MODULE:NAME`."""


def check_trust(config: Config, path: Path, owner: int, trackers: bool = False) -> None:
    """Check that the functions that a configuration names may be called.

    Args:
        config: from the file.
        path: of the file, for the message.
        owner: user ID of the file's owner when it was read.
        trackers: whether trackers will be started.

    Raises:
        UserError: the file names functions and belongs to another user.
    """
    named = named_functions(config)
    wanted = {key: name for key, name in named.items() if trackers or not key.startswith("trackers.")}
    if not wanted or owner in _trusted_users():
        return
    key, name = next(iter(wanted.items()))
    raise UserError(
        f"'{path}' belongs to {user_name(owner)} and names {shown(name)} ({key}): it calls any function with any "
        "arguments, as you. Read the file first; then give --trust, or your own copy"
    )


def named_functions(config: Config) -> dict[str, str]:
    """The functions and classes that a configuration names as `PACKAGE.MODULE:NAME`, by dotted key."""
    return dict(_named(config.model_dump(mode="json")))


def _trusted_users() -> set[int]:
    """IDs of this user and root; for root through sudo, also of the user who called it."""
    asked = os.environ.get("SUDO_UID", "") if os.geteuid() == 0 else ""
    return {0, os.geteuid(), *([int(asked)] if asked.isascii() and asked.isdigit() else [])}


def user_name(number: int) -> str:
    """`user 'NAME'`, or `user ID` if the ID has no name on this machine."""
    with suppress(ImportError, KeyError):
        import pwd

        return f"user '{pwd.getpwuid(number).pw_name}'"
    return f"user {number}"


def _named(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Dotted keys and names of all functions and classes, without those in options."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key in _NAMING and isinstance(item, str) and ":" in item:
            yield ".".join((*path, str(key))), item
        elif key != "options":
            yield from _named(item, (*path, str(key)))
