"""Slots on the receiver's GPU: a ring that the sender opens by handles, and writes from its own GPU without the host.

The receiver allocates it and all marks, so that whoever dies, what is left belongs to one process. Before the first
message the ring is tried: bytes that nobody knows before have to get through it.

    sender                                   receiver
                                             allocate, mark
              <------- handles, JSON -------
    open, write the bytes, mark them
              -------- the bytes ---------->
                                             do they arrive in the ring?
              <--------- accepted ----------

    put   wait until slot n is free          take   mark the slot before as free
          copy into it, in own streams              (a frame tells of message n)
          mark that it has arrived                  wait until it has arrived
          (a frame tells of message n)              hand it out

Whatever fails until it is accepted is the reason for pinned memory of the host. All waiting is the host's, with a
limit. A handle is used once: an end that is opened again allocates again. The sender of a ring may still write to it
after its socket is closed, as it dies. So a ring is freed only when the next sender of its link has come, or with its
process.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from math import prod
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import TrainingError
from workers.links import wire
from workers.links.base import LinkAddress, LinkClosed, LinkMismatch, LinkTimeout
from workers.links.gpu import GpuError, LinkGpu, RingMemory, SharedMark
from workers.links.messages import TensorSpec
from workers.links.slots import InSlots, OutSlots, Wait
from workers.run.json_lines import parse_object

MAX_OFFER_BYTES = 64 * 1024
"""Handles of 65 slots, in hexadecimal."""
TRIAL_BYTES = 32
TRIAL_SECONDS = 10.0
"""Limit for the bytes of a trial to get through the ring."""
FLUSH_SECONDS = 10.0
"""Longest wait of `close` for copies that are still made."""
POLL_SECONDS = 5e-5
ALIGNMENT = 512
"""Slots begin at multiples of this, as memory does that PyTorch allocates."""

_kept: dict[str, RingMemory] = {}
"""The last ring into this process of every link, by its name: somebody may still write to it."""


def ring_bytes(spec: TensorSpec, depth: int) -> int:
    """Of the whole ring."""
    return (depth + 1) * _slot_bytes(spec)


class RingOut(OutSlots):
    """The sender's side; what it is given is copied later."""

    reads_later = True

    def __init__(self, gpu: LinkGpu, memory: RingMemory, free: Sequence[SharedMark], arrived: Sequence[SharedMark],
                 spec: TensorSpec) -> None:  # fmt: skip
        self._gpu, self._memory, self._free, self._arrived, self._spec = gpu, memory, free, arrived, spec
        self._open = True

    def put(self, number: int, tensor: Tensor, wait: Wait) -> None:
        """See `OutSlots.put`."""
        slot = number % len(self._free)
        wait(self._free[slot].reached)
        target = _message(self._memory, slot, self._spec, tuple(tensor.shape))
        self._gpu.copy(tensor, target, self._arrived[slot])

    def close(self) -> None:
        """Unmap the ring, when all copies are made; one that does not end keeps it."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(RuntimeError, GpuError):  # of a receiver that is dead
            deadline = time.monotonic() + FLUSH_SECONDS
            while not self._gpu.copied():
                if time.monotonic() > deadline:
                    return
                time.sleep(POLL_SECONDS)
            self._memory.release()


class RingIn(InSlots):
    """The receiver's side, which hands out the slots themselves."""

    def __init__(
        self, memory: RingMemory, free: Sequence[SharedMark], arrived: Sequence[SharedMark], spec: TensorSpec
    ) -> None:
        self._memory, self._free, self._arrived, self._spec = memory, free, arrived, spec

    def take(self, number: int, shape: tuple[int, ...], wait: Wait) -> Tensor:
        """See `InSlots.take`."""
        slots = len(self._free)
        if number:
            self._free[(number - 1) % slots].record()  # behind all that has read it
        wait(self._arrived[number % slots].reached)
        return _message(self._memory, number % slots, self._spec, shape)

    def close(self) -> None:
        """See `InSlots.close`; the ring stays until nobody can write to it."""


class RingOffer:
    """The receiver's part of opening a ring.

    Args:
        gpu: of the receiver.
        connection: to the sender, which has said that it will try.
        address, spec: of the link.
        deadline: for all of it, by the clock of `time.monotonic`.
    """

    def __init__(
        self, gpu: LinkGpu, connection: Connection, address: LinkAddress, spec: TensorSpec, deadline: float
    ) -> None:
        self._connection, self._address, self._spec, self._deadline = connection, address, spec, deadline
        self._gpu = gpu
        self._memory: RingMemory | None = None
        self._free: list[SharedMark] = []
        self._arrived: list[SharedMark] = []

    def accepted(self) -> InSlots | str:
        """This side of the ring, or why there is none, which both ends know then. Raises the link errors."""
        if (former := _kept.pop(self._address.name, None)) is not None:
            _release(former)
        try:
            self._memory = self._gpu.allocate(ring_bytes(self._spec, self._address.depth))
            _kept[self._address.name] = self._memory  # whatever comes of it
            self._free, self._arrived = ([self._gpu.mark() for _ in range(self._address.depth + 1)] for _ in range(2))
            _send_json(self._connection, self._address, self._address.sender, **self._handles())
        except (GpuError, RuntimeError) as error:
            return self._refuse(f"at {self._address.receiver}, {error}")
        answer = _receive_json(self._connection, self._address, self._address.sender, self._deadline)
        if "refusal" in answer:
            return str(answer["refusal"])
        problem = self._try(answer)
        if problem:
            return self._refuse(problem)
        _send_json(self._connection, self._address, self._address.sender, accepted=True)
        return RingIn(self._memory, self._free, self._arrived, self._spec)

    def withdraw(self) -> None:
        """Free what was offered and refused, when the sender has gone on."""
        memory, self._memory = self._memory, None
        if memory is not None:
            _release(_kept.pop(self._address.name))

    def _handles(self) -> dict[str, Any]:
        assert self._memory is not None
        marks = {"free": self._free, "arrived": self._arrived}
        return {"memory": self._memory.handle.hex()} | {
            name: [mark.handle.hex() for mark in each] for name, each in marks.items()
        }

    def _try(self, answer: Mapping[str, object]) -> str:
        """Why the bytes of the trial are not in the ring; empty if they are."""
        assert self._memory is not None
        wanted, limit = _unhex(answer.get("trial")), min(self._deadline, time.monotonic() + TRIAL_SECONDS)
        try:
            while not self._arrived[0].reached():
                if wire.has_ended(self._connection):
                    raise LinkClosed(f"{self._address}: {self._address.sender} ended while the link was being opened")
                if time.monotonic() > limit:
                    return "what the sender wrote to the ring for a trial did not arrive in time"
                time.sleep(POLL_SECONDS)
            found = bytes(self._memory.whole[:TRIAL_BYTES].cpu().tolist())
        except RuntimeError as error:
            return f"at {self._address.receiver}, {error}"
        return "" if found == wanted else "what the sender wrote to the ring for a trial is not what arrived"

    def _refuse(self, reason: str) -> str:
        reason = next(iter(reason.splitlines()), reason)
        _send_json(self._connection, self._address, self._address.sender, refusal=reason)
        return reason


def open_ring(
    gpu: LinkGpu, receivers_gpu: str, connection: Connection, address: LinkAddress, spec: TensorSpec, deadline: float
) -> OutSlots | str:
    """The sender's side of the ring that a `RingOffer` offers, or why there is none. Raises the link errors.

    Args:
        gpu: of the sender.
        receivers_gpu: UUID of the receiver's.
        connection, address, spec, deadline: as for `RingOffer`.
    """
    offer = _receive_json(connection, address, address.receiver, deadline)
    if "refusal" in offer:
        return str(offer["refusal"])
    memory: RingMemory | None = None
    try:
        if problem := gpu.out_of_reach(receivers_gpu):
            raise GpuError(problem)
        memory = gpu.attach(receivers_gpu, _unhex(offer.get("memory")), ring_bytes(spec, address.depth))
        free, arrived = (
            [gpu.open_mark(receivers_gpu, _unhex(handle)) for handle in _slots_of(offer.get(name), address.depth)]
            for name in ("free", "arrived")
        )
        trial = os.urandom(TRIAL_BYTES)
        written = torch.frombuffer(bytearray(trial), dtype=torch.uint8).to(gpu.device)
        gpu.copy(written, memory.whole[:TRIAL_BYTES], arrived[0])
        _send_json(connection, address, address.receiver, trial=trial.hex())
    except (GpuError, RuntimeError) as error:
        reason = f"at {address.sender}, {next(iter(str(error).splitlines()), 'an error without words')}"
        _send_json(connection, address, address.receiver, refusal=reason)
        _give_up(gpu, memory)
        return reason
    try:
        answer = _receive_json(connection, address, address.receiver, deadline)
    except TrainingError:
        _give_up(gpu, memory)
        raise
    if not answer.get("accepted"):
        _give_up(gpu, memory)
        return str(answer.get("refusal", f"{address.receiver} did not accept it"))
    return RingOut(gpu, memory, free, arrived, spec)


def _give_up(gpu: LinkGpu, memory: RingMemory | None) -> None:
    if memory is not None:
        with contextlib.suppress(RuntimeError):
            gpu.finish()
        _release(memory)


def _release(memory: RingMemory) -> None:
    with contextlib.suppress(GpuError, RuntimeError):  # CUDA knows it no more, so nothing is held
        memory.release()


def _slot_bytes(spec: TensorSpec) -> int:
    return -(-max(spec.nbytes, TRIAL_BYTES) // ALIGNMENT) * ALIGNMENT


def _message(memory: RingMemory, slot: int, spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
    start, nbytes = slot * _slot_bytes(spec), prod(shape) * spec.dtype.itemsize
    return memory.whole[start : start + nbytes].view(spec.dtype).view(shape)


def _slots_of(handles: object, depth: int) -> list[object]:
    if not isinstance(handles, list) or len(handles) != depth + 1:
        raise GpuError("the receiver did not offer a mark for every slot")
    return handles


def _unhex(text: object) -> bytes:
    try:
        return bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        return b""


def _send_json(connection: Connection, address: LinkAddress, peer: str, **said: object) -> None:
    try:
        connection.send_bytes(json.dumps(said).encode())
    except OSError:
        raise LinkClosed(f"{address}: {peer} ended while the link was being opened") from None


def _receive_json(connection: Connection, address: LinkAddress, peer: str, deadline: float) -> dict[str, Any]:
    try:
        if not connection.poll(max(deadline - time.monotonic(), 0.0)):
            raise LinkTimeout(f"{address}: {peer} fell silent while the link was being opened")
        said = parse_object(connection.recv_bytes(MAX_OFFER_BYTES))
    except (EOFError, OSError):
        raise LinkClosed(f"{address}: {peer} ended while the link was being opened") from None
    if said is None:
        raise LinkMismatch(f"{address}: {peer} said nothing that can be read. Both must run the same version")
    return said
