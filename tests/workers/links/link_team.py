"""Drives the processes of `link_peer`: one object a process, and a team of them with links between."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runs import ROOT, start_peer
from tests.waiting import LIMIT, wait_until
from tests.workers.links.processes import state_of

HANG = 2 * LIMIT
"""Seconds; longer than all that a peer is asked to wait for, its own start on a busy machine included."""
LEAVE_SECONDS = 10.0
numbers = itertools.count()


class Failed(Exception):
    """The peer's call raised; `args` are the name of the error's class and its message."""


class Peer:
    """A driven process. `begin` asks, `end` gets the answer, `call` does both; an error is a `failure`."""

    def __init__(self, name: str, stderr: int | None = None) -> None:
        self.name = name
        self.process: Any
        if stderr is None:
            self.process = start_peer("tests.workers.links.link_peer")
        else:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.workers.links.link_peer"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
            )

    def _line(self) -> str:
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            assert ready.select(HANG), f"{self.name} did not answer within {HANG} s"
        return self.process.stdout.readline()

    def await_ready(self) -> None:
        assert self._line() == "ready\n"

    def begin(self, do: str, **settings: Any) -> None:
        self.process.stdin.write(json.dumps({"do": do, **settings}) + "\n")
        self.process.stdin.flush()

    def begin_blocked(self, do: str, **settings: Any) -> None:
        """`begin` something that cannot end yet, and return when the process has fallen asleep in it."""
        self.begin(do, announced=True, **settings)
        assert self._line() == "begun\n"
        wait_until(lambda: state_of(self.process.pid) == "S", f"{self.name} blocked in {do}")

    def end(self) -> Any:
        answer = json.loads(self._line())
        if "error" in answer:
            raise Failed(answer["error"], answer["message"])
        return answer["value"]

    def call(self, do: str, **settings: Any) -> Any:
        self.begin(do, **settings)
        return self.end()

    def failure(self) -> tuple[str, str]:
        with pytest.raises(Failed) as caught:
            self.end()
        return caught.value.args

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT)

    def dismiss(self) -> None:
        """Have it end by itself if it listens, so that what it has run counts as run."""
        with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
            self.begin("leave")
            self.process.wait(LEAVE_SECONDS)
        self.kill()


class ReplicaGroup:
    """Two peers with a link from the first to the second, and others if there are."""

    def __init__(self, peers: dict[str, Peer], private: Path, store: str) -> None:
        self.peers, self.private, self.store = peers, private, store
        self.stage1, self.stage2 = peers["stage 1"], peers["stage 2"]

    def address(self, depth: int = 2, sender: str = "stage 1", receiver: str = "stage 2") -> dict[str, Any]:
        name = f"link{next(numbers)}"
        return {
            "name": name, "sender": sender, "receiver": receiver, "depth": depth, "path": str(self.private / name),
            "store": self.store,
        }  # fmt: skip

    def link(self, kind: str, sender: str = "stage 1", receiver: str = "stage 2", depth: int = 2,
             **settings: Any) -> str:  # fmt: skip
        address = self.address(depth, sender, receiver)
        self.open(kind, address, self.peers[sender], self.peers[receiver], **settings)
        return str(address["name"])

    def open(self, kind: str, address: dict[str, Any], sender: Peer, receiver: Peer, **settings: Any) -> None:
        settings = {"shape": (4, 3, 2), "dtype": "float32", **settings}
        for end, peer in (("receiver", receiver), ("sender", sender)):
            peer.begin("open", end=end, kind=kind, address=address, **settings)
        sender.end()
        receiver.end()

    def close(self, link: str) -> None:
        assert self.stage1.call("close", link=link) == []
        assert self.stage2.call("close", link=link) == []


@contextlib.contextmanager
def started_team(folder: Path, *names: str) -> Iterator[ReplicaGroup]:
    """Processes that have joined one RPC group; they leave nothing behind."""
    (private := folder / "private").mkdir()
    with contextlib.ExitStack() as stack:
        peers = {name: Peer(name) for name in names}
        for peer in peers.values():
            stack.callback(peer.dismiss)
        for peer in peers.values():
            peer.await_ready()
        group = {"world_size": len(peers), "init_method": f"file://{folder}/rpc", "timeout": LIMIT}
        for rank, peer in enumerate(peers.values()):
            peer.begin("start_agent", name=peer.name, rank=rank, **group)
        for peer in peers.values():
            peer.end()
        yield ReplicaGroup(peers, private, f"file://{folder}/links")
    assert os.listdir(private) == []
