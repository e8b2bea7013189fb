"""A rank on a host that does not see the run directory: what it takes from the announcement, and its own folder.

The run is kept by the host of rank 0. Here are only the logs and the traces of this host's processes, a note of where
the run is, and why it failed, if it did.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch.failure import write_failure
from launch.prepare.recompute import undecided, with_recompute
from launch.processes.announcement import NOT_SIGNED, Announcement, UntrustedAnnouncementError, announcement_in
from launch.processes.presence import settings_of
from pipeline.config import Config
from pipeline.errors import ConfigError, UserError
from pipeline.ordinary_files import make_folder
from workers.control.failures import FailureReport
from workers.run.files import RunDir, write_json
from workers.run.keys import DIGITS, given_key

KEY = "key"
"""Of the message of rank 0, where the user names no file with a key: the key of the run in hexadecimal."""


def verify_apart(message: dict[str, Any], config: Config) -> tuple[RunDir, Announcement, bytes, Config]:
    """As `announcement.verify`, without the run directory of rank 0.

    Args:
        message: from the store; has the key where the user names no file with one on this host.
        config: that this rank was given on its own command line.

    Raises:
        UntrustedAnnouncementError: rank 0 of this run has not written it.
        UserError: rank 0 has, and was given another configuration; or the file with the key cannot be used.
    """
    announcement = announcement_in(message)
    key = given_key() or _key_in(message)
    if announcement.private_dir or not announcement.is_signed(str(message.get("signature")), key):
        raise UntrustedAnnouncementError(NOT_SIGNED)
    there = {index: announcement.recompute.get(str(index)) for index in undecided(config)}
    config = with_recompute(config, {index: value for index, value in there.items() if value is not None})
    if settings_of(config)[1] != announcement.digest:
        raise UserError("this rank was given another configuration than rank 0")
    # A name that only the store says leads to nothing but a folder in `runs`.
    path = Path(config.run_dir if config.run_dir is not None else Path("runs") / Path(announcement.run_dir).name)
    return RunDir(path.absolute()), announcement, key, config


def open_folder(run: RunDir, host: str, there: str) -> None:
    """Make the folder of this host for a run that is kept elsewhere.

    Args:
        run: the folder.
        host: which keeps the run.
        there: its run directory.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        make_folder(run.logs, run.path)
        if not run.config.exists():  # with `shared_run_dir: false` it may be that of rank 0
            write_json(run.elsewhere, {"host": host, "run_dir": there}, run.path)
            run.failure.unlink(missing_ok=True)  # of an earlier start
    except OSError as error:
        problem = f"'{run.path}' cannot be written ({error.strerror})"
        raise ConfigError("run_dir", problem, "Give another run_dir=FOLDER on this host") from None


def keep_failure(run: RunDir, failure: FailureReport) -> None:
    """Write down why the run has failed, unless that was done by the first process of this host."""
    if not run.failure.exists():
        write_failure(run, failure)


def _key_in(message: dict[str, Any]) -> bytes:
    try:
        key = bytes.fromhex(str(message[KEY]))
    except (KeyError, ValueError):
        key = b""
    if len(key) != DIGITS // 2:
        raise UntrustedAnnouncementError("it has no key, and ONWARD_KEY_FILE names none on this host")
    return key
