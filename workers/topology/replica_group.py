"""Forms the process group of a stage's replicas, as torch.distributed's default group.

It is the default group because DeepSpeed uses that one. A process belongs to one stage group only, so nothing else in
it needs the default group.
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


def join_replica_group(
    store: str, name: str, rank: int, size: int, device: torch.device, timeout: float, always_group: bool = False
) -> ReplicaGroup:
    """Wait for the other replicas of a stage and form a process group with them.

    Args:
        store: key-value store: `file:///PATH` on one host, or `tcp://HOST:PORT` of a TCPStore of another process.
        name: prefix of the keys in the store; unique for the stage group and the attempt.
        rank: of this replica, from 0.
        size: number of replicas.
        device: that this replica computes on. The backend is NCCL, or Gloo on CPUs and where two replicas share a GPU.
        timeout: seconds to wait here, and later in every collective.
        always_group: also form a process group for a single replica.

    Returns:
        The group; `SOLO`, without a process group, for one replica. `leave_replica_group` ends it.

    Raises:
        TrainingError: the store cannot be reached, or replicas did not join in time.
    """
    if size == 1 and not always_group:
        return SOLO
    deadline = time.monotonic() + timeout
    group_store = PrefixStore(name, _open(store, name, timeout))
    backend = _backend(_wait_for_replicas(group_store, name, rank, size, device, deadline), device)
    limit = timedelta(seconds=timeout)
    try:
        # Only Gloo keeps a port open that accepts any connection; NCCL may need to open further ones later.
        closing = closed_afterwards() if backend == "gloo" else nullcontext()
        with _over_loopback(store.startswith("file:")), closing:
            dist.init_process_group(
                backend,
                store=group_store,
                rank=rank,
                world_size=size,
                timeout=limit,
                device_id=_bound_device(backend, device),
            )
            gradients = dist.new_group(timeout=limit, backend=backend)
    except RuntimeError as error:
        leave_replica_group()
        raise TrainingError(f"the {size} replicas of {name} could not connect ({first_line(error)[:200]})") from error
    world = dist.group.WORLD
    assert isinstance(world, dist.ProcessGroup)
    assert isinstance(gradients, dist.ProcessGroup)
    return ReplicaGroup(rank, size, world, gradients)


def leave_replica_group() -> None:
    """Destroy the process group, if there is one, without waiting for the other replicas."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _open(store: str, name: str, timeout: float) -> Store:
    address = urlsplit(store)
    try:
        if address.scheme == "file":
            return FileStore(
                address.path, -1
            )  # number of processes unknown: the last to leave must not remove the file
        limit = timedelta(seconds=timeout)
        return TCPStore(
            str(address.hostname), int(address.port or 0), is_master=False, timeout=limit, wait_for_workers=False
        )
    except RuntimeError as error:
        problem = f"the store at {store}, where the replicas of {name} meet, cannot be reached"
        raise TrainingError(f"{problem} ({first_line(error)[:200]})") from error


def _wait_for_replicas(
    store: Store, name: str, rank: int, size: int, device: torch.device, deadline: float
) -> list[str]:
    """Publish host and device of this replica, and wait for those of all; equal strings mean the same device."""
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
    # Not the index: two processes may see one GPU under different indices (CUDA_VISIBLE_DEVICES).
    return str(torch.cuda.get_device_properties(device).uuid)


def _backend(places: list[str], device: torch.device) -> str:
    return "nccl" if device.type == "cuda" and len(set(places)) == len(places) else "gloo"


def _bound_device(backend: str, device: torch.device) -> torch.device | None:
    """`device_id` of the group: with one, NCCL connects at once; Gloo takes none."""
    if backend != "nccl":
        return None
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)


@contextmanager
def _over_loopback(local: bool) -> Iterator[None]:
    """Use the loopback interface on one host: nobody outside can listen, and no host name needs to resolve."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if not local or not names or _INTERFACE in os.environ:
        yield
        return
    os.environ[_INTERFACE] = names[0]
    try:
        yield
    finally:
        del os.environ[_INTERFACE]
