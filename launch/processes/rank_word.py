"""What rank 0 tells the others through torchrun's store, and why they may believe it.

Whoever reaches the store's port can write to it. So it says nothing that decides what a rank runs, which its own
command line does; and what it does say is sealed with the run's key, which is in a file that only this user can read:
in the private folder on one host, in the run directory, which all hosts share, on several. A word whose seal is wrong
is passed over, and the next one waited for.
"""

from __future__ import annotations

import hmac
import json
import os
import stat
from pathlib import Path
from typing import Any

from launch.prepare.config_differences import differences
from launch.prepare.ports import own_address
from launch.prepare.run_dir import read_config
from pipeline.config import Config
from pipeline.errors import UserError
from workers.control.start_messages import RankStart
from workers.control.validation import MalformedMessage
from workers.run.files import RunDir
from workers.run.keys import NoKeyError, read_key
from workers.run.private import is_ours
from workers.topology.processes import KEY_FILE
from workers.topology.rendezvous import Rendezvous


class NotOfRankZeroError(Exception):
    """A word that somebody else has written into the store, or that is not of this run."""


def sealed(start: RankStart, key: bytes) -> dict[str, Any]:
    """The record as it goes into the store, signed with the key of the run."""
    return {**start.to_message(), "seal": _seal(start, key)}


def rendezvous_of(start: RankStart, key: bytes) -> Rendezvous:
    """Where the processes of the run meet."""
    if isinstance(start.control, str):
        return Rendezvous.on_one_host(start.private_dir)
    host, port = start.control
    return Rendezvous(
        private_dir="", key=key, rpc_init="env://", control=(host, int(port)), store=start.store, host=own_address(host)
    )


def _seal(start: RankStart, key: bytes) -> str:
    text = json.dumps(start.to_message(), sort_keys=True)
    return hmac.new(key, b"what rank 0 has prepared\0" + text.encode(), "sha256").hexdigest()


def believe(word: dict[str, Any], config: Config) -> tuple[RunDir, RankStart, bytes]:
    """Where the run of this rank's own `config` is, what has been prepared for it, and its key.

    Raises:
        NotOfRankZeroError: the word is a lie.
        UserError: it is true, and rank 0 was given another configuration.
    """
    try:
        prepared = RankStart.from_message(word)
    except MalformedMessage as error:
        raise NotOfRankZeroError(f"it is {error}") from None
    path = Path(config.run_dir if config.run_dir is not None else prepared.run_dir)
    run = RunDir(path.absolute())
    owners = _owners(run.path, asked_for=config.run_dir is not None)
    if prepared.private_dir and not is_ours(Path(prepared.private_dir)):
        raise NotOfRankZeroError(f"'{prepared.private_dir}' is not a folder of this user alone")
    try:
        private = Path(prepared.private_dir) / KEY_FILE
        key = read_key(private, [os.geteuid()]) if prepared.private_dir else read_key(run.key, owners)
    except NoKeyError as reason:
        raise NotOfRankZeroError(str(reason)) from None
    if not hmac.compare_digest(str(word.get("seal")).encode(), _seal(prepared, key).encode()):
        raise NotOfRankZeroError("its seal is not made with the key of the run")
    if others := differences(read_config(run.path), config):
        raise UserError(f"this rank was given another configuration than rank 0: {'; '.join([*others.values()][:5])}")
    return run, prepared, key


def _owners(run: Path, asked_for: bool) -> list[int]:
    """Whose files this rank believes: its user's, and where its own command line names the run, the owner's of that.

    A network file system may show root's files as somebody else's.
    """
    mine = os.geteuid()
    try:
        found = run.lstat()
    except OSError as error:
        raise NotOfRankZeroError(f"'{run}' cannot be looked at ({error.strerror})") from None
    if asked_for:
        return [mine, found.st_uid]
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != mine:
        raise NotOfRankZeroError(f"'{run}' is not a folder of this user")
    return [mine]
