"""A process that opens ends of links and does with them what the contract test tells it to.

Requests come as JSON lines on standard input, answers leave as JSON lines on standard output. Tensors are
made from a seed, and answers hold their digests, so that what was sent and what arrived can be compared.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from pipeline.stage.bit_flips import Flippable, flip_bit
from tests.workers.links.fake_gpu import GPUS, FakeGpu
from workers.links import p2p, queue, rpc
from workers.links.base import LinkAddress, Receiver, Sender
from workers.links.factory import open_receiver, open_sender
from workers.links.messages import Header, Message, TensorSpec
from workers.links.rpc_agent import start_agent, stop_agent

torch.set_num_threads(1)
p2p.FLUSH_SECONDS = rpc.FLUSH_SECONDS = PATIENCE = 100.0
"""No machine is too slow for an orderly close, nor for what is asked without a limit of its own."""
said: list[str] = []
"""What was logged."""
senders: dict[str, Sender] = {}
receivers: dict[str, Receiver] = {}
held: dict[str, Message] = {}
gpus: dict[str, FakeGpu] = {}
"""Those of the ends that were opened, by link."""
parts: dict[tuple[str, str], list[str]] = {}
"""What every end has told its meter, by end and link."""


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    heard = logging.Handler()
    heard.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(heard)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request.pop("announced", False):
            print("begun", file=answers, flush=True)
        try:
            answer = {"value": OPERATIONS[request.pop("do")](**request)}
        except Exception as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


def make(shape: list[int], dtype: str, seed: int, layout: str = "contiguous") -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    kind = getattr(torch, dtype)
    whole = torch.randint(0, 200, [*shape[:-1], 2 * shape[-1]], generator=generator).to(kind)
    if layout == "strided":
        return whole[..., ::2]
    if layout == "transposed":
        return whole[..., : shape[-1]].transpose(0, 1).contiguous().transpose(0, 1)
    return whole[..., : shape[-1]].contiguous()


def digest(tensor: torch.Tensor) -> dict[str, Any]:
    data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype), "sha": hashlib.sha256(data).hexdigest()}


def open_end(end: str, kind: Any, address: dict[str, Any], shape: list[int], dtype: str, timeout: float = PATIENCE,
             key: str = "key", codec: str = "none", flips_at: int | None = None) -> None:  # fmt: skip
    where = LinkAddress(**address, key=key.encode())
    spec = TensorSpec(tuple(shape), getattr(torch, dtype))
    gpu = None
    if kind in GPUS:
        gpu = gpus[where.name] = FakeGpu(f"GPU-of-{end}", **GPUS[kind][1])
        kind = "queue"
    queue.gpu_of = lambda device: gpu  # type: ignore[assignment]
    if end == "sender":
        senders[where.name] = open_sender(kind, where, spec, timeout, codec=codec)
    else:

        def exposed(what: Flippable, step: int, tensors: Callable[[], Mapping[str, torch.Tensor]]) -> None:
            if step == flips_at:
                flip_bit(tensors(), step)

        receivers[where.name] = open_receiver(kind, where, spec, timeout, codec=codec, exposed=exposed)
    ends: dict[str, Any] = {"sender": senders, "receiver": receivers}
    parts[end, where.name] = []
    ends[end][where.name].measure(parts[end, where.name].append)


def measured(end: str, link: str) -> list[str]:
    """The parts of its calls since this was asked before."""
    found, parts[end, link][:] = list(parts[end, link]), []
    return found


def send(link: str, step: int, shape: list[int], dtype: str = "float32", layout: str = "contiguous",
         timeout: float = PATIENCE, levels: tuple[float, ...] = (), last: bool = False) -> dict[str, Any]:  # fmt: skip
    tensor = make(shape, dtype, step, layout)
    header = Header(step, 7, tuple(levels), last=last)
    senders[link].send(header, tensor, timeout)
    return {**digest(tensor), "step": step, "levels": list(levels), "last": last}


def recv(link: str, timeout: float = PATIENCE) -> dict[str, Any]:
    held[link] = receivers[link].recv(timeout)
    header = held[link].header
    assert held[link].tensor.is_contiguous()
    assert header.epoch == 7
    tensor = digest(held[link].tensor)
    return {**tensor, "step": header.step, "levels": list(header.noise_levels), "last": header.last}


def overwrite_held(link: str) -> dict[str, Any]:
    held[link].tensor.mul_(2).add_(1)
    return digest(held[link].tensor)


def send_many(link: str, count: int, longest_pause: float) -> None:
    pauses = random.Random(1)
    for step in range(count):
        senders[link].send(Header(step, 7, ()), torch.full((3, 2), step), PATIENCE)
        if step % 20 == 0:
            time.sleep(pauses.random() * longest_pause)


def send_and_close(link: str, elements: int) -> None:
    senders[link].send(Header(0, 7, ()), torch.ones(elements), PATIENCE)
    senders[link].close()


def send_and_stop(link: str, elements: int) -> None:
    """Freeze this process while the tensor is on its way; somebody else must let it go on."""
    tensor = torch.ones(elements)
    senders[link].send(Header(0, 7, ()), tensor, PATIENCE)
    os.kill(os.getpid(), signal.SIGSTOP)


def recv_many(link: str, count: int, longest_pause: float) -> list[int]:
    pauses, steps = random.Random(2), []
    for _ in range(count):
        message = receivers[link].recv(PATIENCE)
        if len(steps) % 14 == 0:
            time.sleep(pauses.random() * longest_pause)
        assert bool((message.tensor == message.header.step).all())
        steps.append(message.header.step)
    return steps


def close(link: str) -> list[str]:
    """What had to be given up: messages by what was said of them, threads by their names."""
    said.clear()
    for ends in (senders, receivers):
        if link in ends:
            ends[link].close()
    return said + [thread.name for thread in threading.enumerate() if thread.name == f"{link}-arrivals"]


def way(link: str) -> list[str]:
    """What is said to the user of how tensors get across, by each end that is here."""
    return [ends[link].way for ends in (senders, receivers) if link in ends]  # type: ignore[attr-defined]


OPERATIONS: dict[str, Any] = {
    "way": way,
    "hold_gpu": lambda link: gpus[link].hold(),
    "let_gpu_go": lambda link: gpus[link].finish(),
    "released": lambda link: [memory.released for memory in gpus[link].memories],
    "start_agent": lambda **settings: start_agent(**settings),
    "stop_agent": lambda **settings: stop_agent(**settings),
    "open": open_end,
    "send": send,
    "recv": recv,
    "overwrite_held": overwrite_held,
    "digest_held": lambda link: digest(held[link].tensor),
    "send_many": send_many,
    "send_and_close": send_and_close,
    "send_and_stop": send_and_stop,
    "recv_many": recv_many,
    "measured": measured,
    "waiting": lambda link: receivers[link].waiting(),
    "bytes_sent": lambda link: senders[link].bytes_sent,
    "close": close,
    "leave": lambda: os._exit(0),
}

if __name__ == "__main__":
    main()
