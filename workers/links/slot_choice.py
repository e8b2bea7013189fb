"""Decides where the slots of a queue link lie, from what its two ends state in their hellos.

    both on a CPU       shared memory, which the receiver uses in place
    both on a GPU       a ring on the receiver's, opened by CUDA IPC (`ring`)
    whatever else       shared memory that is pinned at an end on a GPU (`pinned`)

Between two GPUs the first obstacle below is the reason why it is pinned memory after all, and the start says so. The
rules are tried in this order at both ends, on the same two statements. What only one of them can know, whether the
sender reaches the receiver's GPU, and whether bytes that are written do arrive, is found out by trying (`ring`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from workers.links.base import LinkAddress
from workers.links.gpu import LinkGpu

Place = Literal["shared", "pinned", "ring"]
BOOT, NAMESPACES = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns")
SWITCHED_OFF = "link.device_to_device is false"


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What one end says of itself.

    Args:
        gpu: the UUID of its GPU; empty on a CPU.
        boot: id of the running kernel.
        ipc, pid: the namespaces of its process.
        refusal: why it does not share memory of a GPU; empty if nothing speaks against it.
    """

    gpu: str = ""
    boot: str = ""
    ipc: str = ""
    pid: str = ""
    refusal: str = ""

    @classmethod
    def of(cls, gpu: LinkGpu | None, device_to_device: bool) -> Statement:
        """Of this process, for an end on `gpu`; a CPU has nothing to say."""
        if gpu is None:
            return cls()
        refusal = gpu.refusal() if device_to_device else SWITCHED_OFF
        return cls(gpu=gpu.uuid, boot=_read(BOOT), ipc=_namespace("ipc"), pid=_namespace("pid"), refusal=refusal)

    def to_hello(self) -> dict[str, str]:
        """Values of a hello; those that are empty are left out."""
        return {key: value for key, value in asdict(self).items() if value}

    @classmethod
    def from_hello(cls, hello: Mapping[str, object]) -> Statement:
        """The inverse; whatever is no text counts as not said."""
        said = {key: hello.get(key, "") for key in asdict(cls())}
        return cls(**{key: value if isinstance(value, str) else "" for key, value in said.items()})


@dataclass(frozen=True)
class SlotChoice:
    """Where the slots lie, and why not on a GPU; the reason is empty where there is nothing to explain."""

    place: Place
    reason: str = ""

    def in_words(self, address: LinkAddress) -> str:
        """For the user; empty between two CPUs."""
        ways = {"ring": "device to device (CUDA IPC)", "pinned": "pinned host memory"}
        if self.place not in ways:
            return ""
        because = f": {self.reason}" if self.reason else ""
        return f"{address.sender} -> {address.receiver}: queue, {ways[self.place]}{because}"


def choose(address: LinkAddress, sender: Statement, receiver: Statement) -> SlotChoice:
    """Where the slots lie as far as both ends can know; a ring has yet to be tried."""
    ends = ((address.sender, sender), (address.receiver, receiver))
    on_cpu = [name for name, end in ends if not end.gpu]
    if on_cpu:
        return SlotChoice("shared") if len(on_cpu) == 2 else SlotChoice("pinned", f"{on_cpu[0]} is on the CPU")
    for name, end in ends:
        if end.refusal:
            return SlotChoice("pinned", end.refusal if end.refusal == SWITCHED_OFF else f"at {name}, {end.refusal}")
    if not sender.boot or sender.boot != receiver.boot:
        return SlotChoice("pinned", "it is not certain that both are on one host")
    for kind in ("ipc", "pid"):
        if not getattr(sender, kind) or getattr(sender, kind) != getattr(receiver, kind):
            problem = f"the two processes have no common {kind.upper()} namespace"
            return SlotChoice("pinned", f"{problem}; containers have with --{kind}=host")
    return SlotChoice("ring")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _namespace(kind: str) -> str:
    try:
        return os.readlink(NAMESPACES / kind)
    except OSError:
        return ""
