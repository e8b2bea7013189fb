"""Drives the processes of `link_peer`: one object a process, and a team of them with links between."""

from __future__ import annotations

import itertools
import json
import os
import selectors
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PEER = Path(__file__).with_name("link_peer.py")
numbers = itertools.count()


class Failed(Exception):
    """The peer's call raised; `args` are the name of the error's class, its message and its duration."""


class Peer:
    """A driven process. `begin` asks, `end` gets the answer, `call` does both."""

    def __init__(self, name: str, stderr: int | None = None) -> None:
        self.name = name
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PEER.parents[2])}
        self.process = subprocess.Popen(
            [sys.executable, str(PEER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
        )

    def _line(self, limit: float) -> str:
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            assert ready.select(limit), f"{self.name} did not answer within {limit} s"
        return self.process.stdout.readline()

    def await_ready(self) -> None:
        assert self._line(60) == "ready\n"

    def begin(self, do: str, **settings: Any) -> None:
        self.process.stdin.write(json.dumps({"do": do, **settings}) + "\n")
        self.process.stdin.flush()

    def end(self, limit: float = 20) -> Any:
        answer = json.loads(self._line(limit))
        if "error" in answer:
            raise Failed(answer["error"], answer["message"], answer["seconds"])
        return answer["value"]

    def call(self, do: str, **settings: Any) -> Any:
        self.begin(do, **settings)
        return self.end()

    def failure(self, limit: float = 20) -> tuple[str, str, float]:
        with pytest.raises(Failed) as caught:
            self.end(limit)
        return caught.value.args

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


class Team:
    """Two peers with a link from the first to the second, and others to be killed."""

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
        self.stage1.call("close", link=link)
        self.stage2.call("close", link=link)
