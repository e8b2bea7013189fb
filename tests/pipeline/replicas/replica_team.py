"""Drives the processes of `replica_peer`: a case is run by the first R of them, and their tensors are compared."""

from __future__ import annotations

import itertools
import json
import selectors
import subprocess
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tests.runs import start_peer
from tests.session_server import Peer

PROCESSES = 3
LIMIT = 270.0
"""Seconds for an answer: only a hang takes longer, on a busy machine too; pytest's own limit would leave processes."""
numbers = itertools.count()


class Failed(Exception):
    """A replica's case raised; `args` are the name of the error's class and its message."""


class Replicas:
    """Processes that wait for calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes = [start_peer("tests.pipeline.replicas.replica_peer") for _ in range(PROCESSES)]
        try:
            assert [self._line(process, LIMIT) for process in self.processes] == ["ready\n"] * PROCESSES
        except AssertionError:
            self.stop()
            raise

    def run(self, size: int, case: str, limit: float = LIMIT, **settings: Any) -> list[dict[str, Tensor]]:
        """What `replica_cases.CASE(team, **settings)` gives on every one of `size` replicas."""
        name = f"{case}-{next(numbers)}"
        store = f"file://{self.folder / 'store'}"
        for rank, process in enumerate(self.processes[:size]):
            call = {"case": case, "name": name, "rank": rank, "size": size, "store": store, "settings": settings}
            process.stdin.write(json.dumps({**call, "folder": str(self.folder)}) + "\n")
            process.stdin.flush()
        answers = [json.loads(self._line(process, limit)) for process in self.processes[:size]]
        for answer in answers:
            if "error" in answer:
                raise Failed(answer["error"], answer["message"])
        return [load_file(answer["file"]) for answer in answers]

    def stop(self) -> None:
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(LIMIT)

    def _line(self, process: Peer, limit: float) -> str:
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            if not ready.select(limit):
                process.kill()
                raise AssertionError(f"a replica did not answer within {limit} s")
        return process.stdout.readline()


def error(found: Tensor, expected: Tensor, floor: float = 0.0) -> float:
    """The 2-norm of the difference, relative to that of `expected`, or to `floor` where that is larger."""
    size = max(expected.double().norm().item(), floor)
    difference = (found.double() - expected.double()).norm().item()
    return difference / size if difference else 0.0


def errors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Of every tensor of a stage, the largest first; gradients that vanish by construction count as 1e-3."""
    assert found.keys() == expected.keys()
    each = {name: error(found[name], expected[name], 1e-3 if "grad" in name else 0.0) for name in expected}
    return dict(sorted(each.items(), key=lambda item: -item[1]))
