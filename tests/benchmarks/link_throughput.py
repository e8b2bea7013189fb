"""How fast a link is, beside a plain memory copy of the same size in the same process.

    python tests/benchmarks/link_throughput.py [--messages 40] [--malloc] [--kinds queue rpc]

One process sends, another receives and reads every value; each message is acknowledged by a tiny message
back, so a time covers the whole trip. The copies are interleaved with the messages, so that both meet the
same machine. `--malloc` sets glibc's thresholds in the two processes, so that large buffers are
kept and not returned to the kernel after every message.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from workers.environment import ALLOCATOR
from workers.links.agent import start_agent, stop_agent
from workers.links.base import LinkAddress, Receiver, Sender
from workers.links.factory import open_receiver, open_sender
from workers.messages import Header, TensorSpec

MEGABYTES = (1, 12, 50)
WARM_UP = 6
LIMIT = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=40)
    parser.add_argument("--malloc", action="store_true", help="set glibc's malloc thresholds in both processes")
    parser.add_argument("--kinds", nargs="+", default=["queue", "rpc"], choices=["queue", "rpc"])
    parser.add_argument("--role", choices=["sender", "receiver"], help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        play(options.role, options.kinds[0], options.directory, options.messages)
        return
    print(f"{'link':8}{'MB':>6}{'ms':>10}{'GB/s':>8}{'memcpy GB/s':>13}{'ratio':>8}")
    for kind in options.kinds:
        for row in measure(kind, options.messages, options.malloc):
            print(
                f"{kind:8}{row['mb']:6}{row['link'] * 1e3:10.2f}{row['mb'] / row['link'] / 1e3:8.2f}"
                f"{row['mb'] / row['copy'] / 1e3:13.2f}{row['copy'] / row['link']:8.2f}"
            )


def measure(kind: str, messages: int, malloc: bool) -> list[dict[str, Any]]:
    """Median seconds of a message and of a copy, for each size."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    environment.update(ALLOCATOR if malloc else {})
    with tempfile.TemporaryDirectory() as directory:
        common = [sys.executable, __file__, "--directory", directory, "--kinds", kind, "--messages", str(messages)]
        receiver = subprocess.Popen([*common, "--role", "receiver"], env=environment)
        try:
            sender = subprocess.run(
                [*common, "--role", "sender"], env=environment, stdout=subprocess.PIPE, check=True, timeout=600
            )
            receiver.wait(30)
        finally:
            receiver.kill()
            receiver.wait(10)
    return [json.loads(line) for line in sender.stdout.splitlines()]


def play(role: str, kind: Any, directory: str, messages: int) -> None:
    torch.set_num_threads(1)
    if kind == "rpc":
        start_agent(role, int(role == "receiver"), 2, f"file://{directory}/store", LIMIT)
    for mb in MEGABYTES:
        spec = TensorSpec((mb * 250_000,), torch.float32)
        answer_spec = TensorSpec((1,), torch.float32)
        there = LinkAddress(f"there{mb}", "sender", "receiver", f"{directory}/there", b"key", 2)
        back = LinkAddress(f"back{mb}", "receiver", "sender", f"{directory}/back", b"key", 2)
        if role == "sender":
            with open_sender(kind, there, spec, LIMIT) as out, open_receiver(kind, back, answer_spec, LIMIT) as answers:
                print(json.dumps({"mb": mb, **time_both(out, answers, spec, messages)}), flush=True)
        else:
            with (
                open_receiver(kind, there, spec, LIMIT) as arrivals,
                open_sender(kind, back, answer_spec, LIMIT) as out,
            ):
                for _ in range(WARM_UP + messages):
                    message = arrivals.recv(LIMIT)
                    out.send(message.header, message.tensor.sum().reshape(1), LIMIT)
    if kind == "rpc":
        stop_agent(graceful=True, timeout=LIMIT)


def time_both(out: Sender, answers: Receiver, spec: TensorSpec, messages: int) -> dict[str, float]:
    """Median seconds; the time to read the message once, as the receiver does, is subtracted."""
    tensor, buffer = torch.ones(spec.shape), torch.zeros(spec.shape)
    link, copy, read = [], [], []
    for step in range(WARM_UP + messages):
        link.append(clock(lambda step=step: trip(out, answers, step, tensor)))
        copy.append(clock(lambda: buffer.copy_(tensor)))
        read.append(clock(tensor.sum))
    median = {name: statistics.median(times[WARM_UP:]) for name, times in (("l", link), ("c", copy), ("r", read))}
    return {"link": max(median["l"] - median["r"], 1e-9), "copy": median["c"], "read": median["r"]}


def trip(out: Sender, answers: Receiver, step: int, tensor: torch.Tensor) -> None:
    out.send(Header(step, 0, ()), tensor, LIMIT)
    answers.recv(LIMIT)


def clock(action: Any) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
