"""Runs on several hosts of a laboratory in network namespaces (root), whose network cards can be slow."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common.runs import ROOT

sys.path.insert(0, str(ROOT))

from tests.laboratory.hosts import Laboratory

PORT = 29400
STREAM = """
import socket, sys, time
if sys.argv[1] == "take":
    end, _ = socket.create_server(("", 5000)).accept()
    end.recv(1 << 16)
    began, taken = time.monotonic(), 0
    while piece := end.recv(1 << 16):
        taken += len(piece)
    print(taken / (time.monotonic() - began))
else:
    end = socket.create_connection((sys.argv[1], 5000))
    end.sendall(bytes(int(sys.argv[2])))
"""


def train_on_hosts(lab: Laboratory, each: int, config: Path, overrides: Sequence[str]) -> Path:
    """Train with torchrun, `each` processes on every host; returns the folder of the run."""
    meet = ["--rdzv-backend=c10d", "--rdzv-id=benchmark", f"--rdzv-endpoint={lab[1].name}:{PORT}"]
    torchrun = ["-m", "torch.distributed.run", f"--nnodes={len(lab.hosts)}", f"--nproc-per-node={each}", *meet]
    run = lab.shared / "run"
    training = ["-m", "launch.train", str(config.resolve()), f"run_dir={run}", *overrides]
    started = [host.start([sys.executable, *torchrun, *training], {"OMP_NUM_THREADS": "1"}) for host in lab.hosts]
    for process in started:
        _, error = process.communicate(timeout=3600)
        if process.returncode:
            raise SystemExit(error)
    return run


def slow_down(lab: Laboratory, megabits: float) -> None:
    """Let every host send no more than so many megabits a second: a token bucket before its card."""
    shape = ["rate", f"{megabits}mbit", "burst", "32kb", "latency", "100ms"]
    for host in lab.hosts:
        host.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *shape)


def bytes_a_second(lab: Laboratory, size: int) -> float:
    """What a plain TCP stream of `size` bytes gets from the second host to the first."""
    taking = lab[1].start([sys.executable, "-c", STREAM, "take"])
    time.sleep(1.0)
    lab[2].run(sys.executable, "-c", STREAM, lab[1].address, str(size))
    return float(taking.communicate(timeout=600)[0])
