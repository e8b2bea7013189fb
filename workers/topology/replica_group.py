"""How the replicas of a stage meet and become torch.distributed's default group of their processes.

It is the default group because DeepSpeed looks for that one. A process serves one stage, so nothing else claims it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch.distributed import FileStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from pipeline.errors import TrainingError, first_line
from pipeline.replicas import SOLO, ReplicaGroup
from workers.links.listening import closed_afterwards

_INTERFACE = "GLOO_SOCKET_IFNAME"


def form_team(
    store: str, name: str, rank: int, size: int, device: torch.device, timeout: float, always_group: bool = False
) -> ReplicaGroup:
    """Wait for the other replicas of a stage, and join them.

    Args:
        store: where they meet: `file:///PATH`, on one host, or `tcp://HOST:PORT`, a TCPStore that someone serves.
        name: of the stage, and of the attempt where there was one before; begins every key in the store.
        rank: this replica, counted from 0.
        size: how many there are.
        device: that this one computes on. GPUs speak over NCCL; where two replicas share one, over Gloo.
        timeout: seconds to wait here, and later for any answer of another replica.
        always_group: make a group of one replica too.

    Returns:
        The team; `SOLO`, without any group, for one replica. `dissolve_team` ends it.

    Raises:
        TrainingError: the store cannot be reached, or replicas did not come in time.
    """
    if size == 1 and not always_group:
        return SOLO
    deadline = time.monotonic() + timeout
    meeting = PrefixStore(name, _open(store, name, timeout))
    backend = _backend(_await_replicas(meeting, name, rank, size, device, deadline), device)
    limit = timedelta(seconds=timeout)
    try:
        # NCCL may want to be called again, and has no such trouble with strangers.
        closing = closed_afterwards() if backend == "gloo" else nullcontext()
        with _on_this_host(store.startswith("file:")), closing:
            dist.init_process_group(
                backend, store=meeting, rank=rank, world_size=size, timeout=limit, device_id=_bound(backend, device)
            )
            gradients = dist.new_group(timeout=limit, backend=backend)
    except RuntimeError as error:
        dissolve_team()
        raise TrainingError(f"the {size} replicas of {name} could not connect ({first_line(error)[:200]})") from error
    world = dist.group.WORLD
    assert isinstance(world, dist.ProcessGroup)
    assert isinstance(gradients, dist.ProcessGroup)
    return ReplicaGroup(rank, size, world, gradients)


def dissolve_team() -> None:
    """Leave the group, if there is one; the others are not waited for."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _open(store: str, name: str, timeout: float) -> Store:
    address = urlsplit(store)
    try:
        if address.scheme == "file":
            return FileStore(address.path, -1)  # of no known number of processes: the last to leave removes nothing
        limit = timedelta(seconds=timeout)
        return TCPStore(
            str(address.hostname), int(address.port or 0), is_master=False, timeout=limit, wait_for_workers=False
        )
    except RuntimeError as error:
        problem = f"the store at {store}, where the replicas of {name} meet, cannot be reached"
        raise TrainingError(f"{problem} ({first_line(error)[:200]})") from error


def _await_replicas(store: Store, name: str, rank: int, size: int, device: torch.device, deadline: float) -> list[str]:
    """Where each replica computes, in words that differ for different devices."""
    store.set(f"here/{rank}", f"{socket.gethostname()} {_hardware(device)}")
    started = time.monotonic()
    for other in range(size):
        try:
            store.wait([f"here/{other}"], timedelta(seconds=max(deadline - time.monotonic(), 0.001)))
        except RuntimeError as error:
            missing = [r + 1 for r in range(size) if not store.check([f"here/{r}"])]
            who = ", ".join(str(r) for r in missing) or "another"
            raise TrainingError(
                f"replica {rank + 1} of {size} of {name} waited {deadline - started:.0f} s for replica {who}, "
                "which did not start, or died before it could say so"
            ) from error
    return [bytes(store.get(f"here/{other}")).decode() for other in range(size)]


def _hardware(device: torch.device) -> str:
    if device.type != "cuda":
        return "cpu"
    # Two processes may see one GPU under different numbers (CUDA_VISIBLE_DEVICES), so a number would not do.
    return str(torch.cuda.get_device_properties(device).uuid)


def _backend(places: list[str], device: torch.device) -> str:
    return "nccl" if device.type == "cuda" and len(set(places)) == len(places) else "gloo"


def _bound(backend: str, device: torch.device) -> torch.device | None:
    """NCCL connects at once if it knows the GPU; Gloo is bound to none."""
    if backend != "nccl":
        return None
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)


@contextmanager
def _on_this_host(local: bool) -> Iterator[None]:
    """Replicas on one host speak over its loopback: no one else can listen, and no host name need resolve."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if not local or not names or _INTERFACE in os.environ:
        yield
        return
    os.environ[_INTERFACE] = names[0]
    try:
        yield
    finally:
        del os.environ[_INTERFACE]
