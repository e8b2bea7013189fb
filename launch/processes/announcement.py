"""What rank 0 announces to the other ranks through torchrun's store, and why they may trust it.

Whoever reaches the port of the store can write to it. So the announcement decides nothing of what a rank trains, which
its own command line does. What it does contain is signed (HMAC) with the key of the run, which is in a file that only
this user can read: in the private folder on one host; on several in the run directory, or in the file that the user
names on every host (`ONWARD_KEY_FILE`). An announcement whose signature is wrong is ignored, and the rank waits for the
next one. Only where the run directory is not shared, and the user names no file, does the key go through the store.
"""

from __future__ import annotations

import hmac
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launch.prepare.config_differences import differences
from launch.prepare.recompute import as_before
from launch.prepare.run_dir import read_config
from launch.processes.presence import is_own
from pipeline.config import Config
from pipeline.config.memory import Recompute
from pipeline.errors import UserError
from workers.control.start_messages import StartMessage
from workers.control.validation import MalformedMessage
from workers.run.files import RunDir
from workers.run.keys import NoKeyError, given_key, read_key
from workers.run.private import is_ours
from workers.topology.processes import KEY_FILE
from workers.topology.rendezvous import Rendezvous

SHOWN = 5
"""Differences between two configurations that a message names."""

NOT_SIGNED = "its signature is not made with the key of the run"


class UntrustedAnnouncementError(Exception):
    """Somebody else has written it into the store, or it is not of this run."""


@dataclass(frozen=True, kw_only=True)
class Announcement(StartMessage):
    """Where the processes of a run meet.

    Args:
        run_dir: absolute path of the run directory.
        private_dir: folder of the run's sockets and key, on one host; empty on several.
        store: where process groups meet, on several hosts.
        control: address of the control channel: a path on one host, host and port on several.
        digest: of the configuration of the run, without keys that each host may have its own values of.
        recompute: of every stage, by its number, counted from 1.
    """

    run_dir: str
    private_dir: str
    store: str
    control: str | tuple[str, int]
    digest: str = ""
    recompute: dict[str, Recompute] = field(default_factory=dict)

    def signed(self, key: bytes) -> dict[str, Any]:
        """The message for the store."""
        return {**self.to_message(), "signature": self._signature(key)}

    def rendezvous(self, key: bytes, own_address: str = "", apart: bool = False) -> Rendezvous:
        """Addresses and key for this process.

        Args:
            key: of the run.
            own_address: of this host, on several; that of the coordinator if not given.
            apart: this process does not see the run directory.
        """
        if isinstance(self.control, str):
            return Rendezvous.on_one_host(self.private_dir)
        host, port = self.control
        return Rendezvous(
            private_dir="",
            key=key,
            rpc_init="env://",
            control=(host, port),
            store=self.store,
            host=own_address or host,
            apart=apart,
        )

    def is_signed(self, signature: str, key: bytes) -> bool:
        """Whether the signature was made with the key."""
        return hmac.compare_digest(signature.encode(), self._signature(key).encode())

    def _signature(self, key: bytes) -> str:
        text = json.dumps(self.to_message(), sort_keys=True)
        return hmac.new(key, b"announcement of rank 0\0" + text.encode(), "sha256").hexdigest()


def announcement_in(message: dict[str, Any]) -> Announcement:
    """The announcement in a message from the store, whoever has written it; raises `UntrustedAnnouncementError`."""
    try:
        return Announcement.from_message(message)
    except MalformedMessage as error:
        raise UntrustedAnnouncementError(f"it is {error}") from None


def verify(message: dict[str, Any], config: Config) -> tuple[RunDir, Announcement, bytes, Config]:
    """The directory of the run, the announcement in the message, the key of the run, and what this rank is to train.

    That is its own configuration, in which what it leaves open (`memory.recompute: auto`) is as rank 0 has decided.

    Args:
        message: from the store.
        config: that this rank was given on its own command line.

    Raises:
        UntrustedAnnouncementError: rank 0 of this run has not written it.
        UserError: rank 0 has, and was given another configuration; or the file with the key cannot be used.
    """
    announcement = announcement_in(message)
    path = Path(config.run_dir if config.run_dir is not None else announcement.run_dir)
    run = RunDir(path.absolute())
    owners = _owners(run.path, named_here=config.run_dir is not None)
    if announcement.private_dir and not is_ours(Path(announcement.private_dir)):
        raise UntrustedAnnouncementError(f"'{announcement.private_dir}' is not a folder of this user alone")
    try:
        if announcement.private_dir:
            key = read_key(Path(announcement.private_dir) / KEY_FILE, [os.geteuid()])
        else:
            key = given_key() or read_key(run.key, owners)
    except NoKeyError as reason:
        raise UntrustedAnnouncementError(str(reason)) from None
    if not announcement.is_signed(str(message.get("signature")), key):
        raise UntrustedAnnouncementError(NOT_SIGNED)
    there = read_config(run.path)
    config = as_before(config, there)
    if changed := differences(there, config, is_own):
        named = "; ".join([*changed.values()][:SHOWN])
        raise UserError(f"this rank was given another configuration than rank 0: {named}")
    return run, announcement, key, config


def _owners(run: Path, named_here: bool) -> list[int]:
    """Whose files this rank trusts: its user's, and where its own command line names the run, the owner's of that.

    A network file system may show root's files as somebody else's.
    """
    own_id = os.geteuid()
    try:
        status = run.lstat()
    except OSError as error:
        raise UntrustedAnnouncementError(f"'{run}' cannot be looked at ({error.strerror})") from None
    if named_here:
        return [own_id, status.st_uid]
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != own_id:
        raise UntrustedAnnouncementError(f"'{run}' is not a folder of this user")
    return [own_id]
