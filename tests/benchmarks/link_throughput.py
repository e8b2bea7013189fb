"""How fast a link is, beside a plain memory copy and a plain TCP socket of the same size between the same processes.

    python tests/benchmarks/link_throughput.py [--messages 20] [--malloc] [--kinds queue rpc p2p pinned] [--device cpu]
        [--megabytes 1 12 50]

One process sends, another receives and reads every value; each message is acknowledged by a tiny message
back, so a time covers the whole trip. All kinds run between the same two processes, and their messages take turns
with the copies, so that all of them meet the same machine. `--malloc` sets glibc's thresholds in the two processes,
so that large buffers are kept and not returned to the kernel after every message. `socket` is a TCP connection over the
loopback device, from memory that is there into memory that is there: no link over TCP can be faster. With
`--device cuda` the tensors are sent from a GPU and received on it, or on the next one if there is one; the copy is one
within the GPU, and the socket still one between the memories of the two processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from workers.links.base import LinkAddress, Receiver, Sender
from workers.links.factory import Kind, open_receiver, open_sender
from workers.links.messages import Header, TensorSpec
from workers.links.rpc_agent import start_agent, stop_agent
from workers.run.environment import ALLOCATOR

KINDS: tuple[Kind, ...] = ("queue", "rpc", "p2p")
PINNED = "pinned"
"""A queue that goes through memory of the host, with `link.device_to_device` off; from a CPU it is the queue."""
MEGABYTES = (1.0, 12.0, 50.0)
WARM_UP = 4
LIMIT = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=20)
    parser.add_argument("--malloc", action="store_true", help="set glibc's malloc thresholds in both processes")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=(*KINDS, PINNED))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--megabytes", type=float, nargs="+", default=MEGABYTES)
    parser.add_argument("--role", choices=["sender", "receiver"], help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        play(options)
        return
    print(f"{'link':8}{'MB':>6}{'ms':>10}{'GB/s':>8}{'memcpy GB/s':>13}{'of a copy':>11}{'of a socket':>13}")
    for row in measure(options.kinds, options.messages, options.malloc, options.device, options.megabytes):
        print(
            f"{row['kind']:8}{row['mb']:6g}{row['link'] * 1e3:10.2f}{row['mb'] / row['link'] / 1e3:8.2f}"
            f"{row['mb'] / row['copy'] / 1e3:13.2f}{row['copy'] / row['link']:11.2f}{row['socket'] / row['link']:13.2f}"
            f"  {row['way']}".rstrip()
        )


def measure(
    kinds: Sequence[str],
    messages: int,
    malloc: bool,
    device: str = "cpu",
    megabytes: Sequence[float] = MEGABYTES,
    timeout: float = 600.0,
) -> list[dict[str, Any]]:
    """Median seconds of a message over each kind and of a copy, for each size.

    Raises:
        RuntimeError: a process failed.
        subprocess.TimeoutExpired: they took longer than `timeout` seconds.
    """
    folders = [str(Path(__file__).resolve().parents[2]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    environment.update(ALLOCATOR if malloc else {})
    with tempfile.TemporaryDirectory() as directory:
        common = [sys.executable, __file__, "--directory", directory, "--messages", str(messages), "--kinds", *kinds]
        common += ["--device", device, "--megabytes", *map(str, megabytes)]
        receiver = subprocess.Popen([*common, "--role", "receiver"], env=environment)
        try:
            sender = subprocess.run(
                [*common, "--role", "sender"], env=environment, capture_output=True, text=True, timeout=timeout
            )
            if sender.returncode:
                raise RuntimeError(f"the sender failed: {(sender.stderr.strip().splitlines() or ['no word'])[-1]}")
            receiver.wait(30)
        finally:
            receiver.kill()
            receiver.wait(10)
    return [json.loads(line) for line in sender.stdout.splitlines()]


def play(options: argparse.Namespace) -> None:
    """One of the two processes, to its end."""
    role, kinds, directory, messages = options.role, options.kinds, options.directory, options.messages
    torch.set_num_threads(1)
    device = device_of(role, options.device)
    if "rpc" in kinds:
        start_agent(role, int(role == "receiver"), 2, f"file://{directory}/rpc", LIMIT)
    for mb in options.megabytes:
        spec = TensorSpec((int(mb * 250_000),), torch.float32)
        with contextlib.ExitStack() as stack:
            links = {kind: open_both_ways(stack, kind, role, directory, spec, device) for kind in kinds}
            plain = stack.enter_context(plain_socket(role, Path(directory) / f"port-{spec.shape[0]}"))
            if role == "sender":
                for row in time_all(links, plain, spec, messages, device):
                    print(json.dumps({"mb": mb, **row}), flush=True)
            else:
                arrived = torch.zeros(spec.shape)
                for _ in range(WARM_UP + messages):
                    for out, arrivals in links.values():
                        message = arrivals.recv(LIMIT)
                        out.send(message.header, message.tensor.sum().reshape(1).cpu(), LIMIT)
                    receive(plain, arrived)
                    plain.sendall(struct.pack("f", arrived.sum().item()))
    if "rpc" in kinds:
        stop_agent(graceful=True, timeout=LIMIT)


def device_of(role: str, kind: str) -> torch.device:
    """That of one of the two processes: of several GPUs, the receiver takes the second."""
    several = kind == "cuda" and torch.cuda.device_count() > 1
    return torch.device(kind, int(several and role == "receiver")) if kind == "cuda" else torch.device(kind)


def open_both_ways(
    stack: contextlib.ExitStack, name: str, role: str, directory: str, spec: TensorSpec, device: torch.device
) -> tuple[Sender, Receiver]:
    """This process's ends of a link for large messages and of one back for their acknowledgements, which are read."""

    direct, kind = name != PINNED, cast(Kind, "queue" if name == PINNED else name)

    def address(way: str, *ends: str) -> LinkAddress:
        unique = f"{way}-{name}-{spec.shape[0]}"
        return LinkAddress(
            unique, *ends, path=f"{directory}/{unique}", key=b"key", depth=2, store=f"file://{directory}/store"
        )

    there, back = address("there", "sender", "receiver"), address("back", "receiver", "sender")
    short = TensorSpec((1,), torch.float32)
    if role == "sender":
        plain = partial(open_sender, kind, there, spec, LIMIT, device=device, device_to_device=direct)
        out = stack.enter_context(plain(checksum=False))  # see checksum_cost.py
        return out, stack.enter_context(open_receiver(kind, back, short, LIMIT))
    arrivals = stack.enter_context(open_receiver(kind, there, spec, LIMIT, device, device_to_device=direct))
    return stack.enter_context(open_sender(kind, back, short, LIMIT)), arrivals


@contextlib.contextmanager
def plain_socket(role: str, place: Path) -> Iterator[socket.socket]:
    """A TCP connection between the two processes; the sender listens, and writes its port to `place`."""
    with contextlib.ExitStack() as stack:
        if role == "sender":
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            unfinished = place.with_suffix(".new")
            unfinished.write_text(str(listener.getsockname()[1]))
            unfinished.rename(place)
            connection, _ = listener.accept()
        else:
            while not place.exists():
                time.sleep(0.01)
            connection = socket.create_connection(("127.0.0.1", int(place.read_text())))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(LIMIT)
        yield stack.enter_context(connection)


def receive(connection: socket.socket, tensor: torch.Tensor) -> None:
    """Fill `tensor` from `connection`."""
    left = memoryview(tensor.numpy()).cast("B")
    while left:
        left = left[connection.recv_into(left) :]


def time_all(
    links: dict[str, tuple[Sender, Receiver]],
    plain: socket.socket,
    spec: TensorSpec,
    messages: int,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Median seconds; the time to read the message once, as the receiver does, is subtracted."""
    tensor, buffer = torch.ones(spec.shape, device=device), torch.zeros(spec.shape, device=device)
    in_memory = torch.ones(spec.shape)
    trips: dict[str, list[float]] = {kind: [] for kind in links}
    copy, read, sent, answer = [], [], [], torch.zeros(1)

    def plain_trip() -> None:
        plain.sendall(memoryview(in_memory.numpy()).cast("B"))
        receive(plain, answer)

    def wait() -> None:
        torch.cuda.synchronize(device) if device.type == "cuda" else None

    for step in range(WARM_UP + messages):
        for kind, (out, answers) in links.items():
            tensor.fill_(step % 5 + 1)  # so that what an earlier message has left in a slot is not taken for this one
            trips[kind].append(clock(lambda ends=(out, answers), step=step: trip(*ends, step, tensor)))
            copy.append(clock(lambda: (buffer.copy_(tensor), wait())))
            read.append(clock(lambda: tensor.sum().cpu()))
        sent.append(clock(plain_trip))
    reading, copying = (statistics.median(times[WARM_UP * len(links) :]) for times in (read, copy))
    of_link = {kind: max(statistics.median(times[WARM_UP:]) - reading, 1e-9) for kind, times in trips.items()}
    of_socket = max(statistics.median(sent[WARM_UP:]) - reading, 1e-9)
    return [
        {"kind": kind, "link": of_link[kind], "copy": copying, "socket": of_socket, "way": out.way}
        for kind, (out, _) in links.items()
    ]


def trip(out: Sender, answers: Receiver, step: int, tensor: torch.Tensor) -> None:
    """There and back; the answer is the sum of what has arrived, all of it `step % 5 + 1`."""
    out.send(Header(step, 0, ()), tensor, LIMIT)
    total, wanted = answers.recv(LIMIT).tensor.item(), tensor.numel() * (step % 5 + 1)
    if abs(total - wanted) > 1e-3 * wanted:
        raise ValueError(f"{out.address}: what arrived in step {step} adds up to {total:g}, and not to {wanted}")


def clock(action: Any) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
