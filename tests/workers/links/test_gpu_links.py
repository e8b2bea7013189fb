"""Queues between two GPUs: where their slots are and why, and what they do while a GPU is behind its host."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.waiting import LIMIT
from tests.workers.links.fake_gpu import FakeGpu, Shared
from tests.workers.links.gpu_ends import batch, gpu_ends, header
from tests.workers.links.reopened import dies
from workers.links import ring
from workers.links.base import LinkAddress, LinkClosed, LinkTimeout
from workers.links.gpu import GpuError, SharedMark
from workers.links.messages import TensorSpec
from workers.links.pinned import PART_BYTES
from workers.links.slot_choice import SWITCHED_OFF, SlotChoice, Statement, choose

IPC = "stage 1 -> stage 2: queue, device to device (CUDA IPC)"
PINNED = "stage 1 -> stage 2: queue, pinned host memory: "
ADDRESS = LinkAddress("link1", "stage 1", "stage 2", path="", key=b"", depth=2)


class NoMemory(FakeGpu):
    def allocate(self, nbytes: int) -> Shared:
        raise GpuError("cudaMalloc: out of memory")


class Unopened(FakeGpu):
    def attach(self, uuid: str, handle: bytes, nbytes: int) -> Shared:
        raise GpuError("cudaIpcOpenMemHandle: invalid argument")


class Broken(FakeGpu):
    """Writes a message no more after the trial."""

    def copy(self, source: Tensor, target: Tensor, arrived: Any = None) -> None:
        if source.dtype != torch.uint8:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        super().copy(source, target, arrived)


WAYS: dict[str, tuple[FakeGpu | None, FakeGpu | None, bool, str]] = {
    "two GPUs": (FakeGpu("a"), FakeGpu("b"), True, IPC),
    "one GPU": (FakeGpu("a"), FakeGpu("a"), True, IPC),
    "switched off": (FakeGpu("a"), FakeGpu("b"), False, PINNED + SWITCHED_OFF),
    "a sender on the CPU": (None, FakeGpu("b"), True, PINNED + "stage 1 is on the CPU"),
    "a receiver on the CPU": (FakeGpu("a"), None, True, PINNED + "stage 2 is on the CPU"),
    "no GPU": (None, None, True, ""),
    "no package": (FakeGpu("a"), FakeGpu("b", refuses="nothing there"), True, PINNED + "at stage 2, nothing there"),
    "a hidden GPU": (FakeGpu("a", hidden="it is hidden"), FakeGpu("b"), True, PINNED + "at stage 1, it is hidden"),
    "no memory": (FakeGpu("a"), NoMemory("b"), True, PINNED + "at stage 2, cudaMalloc: out of memory"),
    "not opened": (Unopened("a"), FakeGpu("b"), True, PINNED + "at stage 1, cudaIpcOpenMemHandle: invalid argument"),
    "lost bytes": (FakeGpu("a", lost=True), FakeGpu("b"), True, PINNED + "what the sender wrote to the ring for a"),
    "not registered": (
        FakeGpu("a", unpinned="no memlock"), FakeGpu("b"), False, f"{PINNED}{SWITCHED_OFF}; through pinned pages, as",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WAYS)
def test_what_a_link_uses_is_said_with_the_reason_and_carries_the_same_bits(tmp_path: Path, case: str) -> None:
    sender, receiver, device_to_device, said = WAYS[case]
    lossy = isinstance(sender, FakeGpu) and sender._lost
    with gpu_ends(tmp_path, sender, receiver, device_to_device=device_to_device) as (out, into):
        assert out.way.startswith(said)
        assert bool(out.way) == bool(said)
        if "registered" not in case:
            assert into.way == out.way
        assert out.reads_later == (said == IPC)
        if lossy:
            sender._lost = False
        for step in range(7):
            out.send(header(step), batch(step), LIMIT)
            assert torch.equal(into.recv(LIMIT).tensor, batch(step))
        offered = [memory for gpu in (sender, receiver) if gpu is not None for memory in gpu.memories]
        assert [memory.released for memory in offered] == [said != IPC] * len(offered)
    assert all(gpu.pinned == 0 for gpu in (sender, receiver) if gpu is not None)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"boot": "2"}, "it is not certain that both are on one host"),
        ({"boot": ""}, "it is not certain that both are on one host"),
        ({"ipc": "ipc:[2]"}, "the two processes have no common IPC namespace; containers have with --ipc=host"),
        ({"pid": "pid:[2]"}, "the two processes have no common PID namespace; containers have with --pid=host"),
        ({"pid": ""}, "the two processes have no common PID namespace; containers have with --pid=host"),
    ],
)
def test_processes_of_two_containers_do_not_try(other: dict[str, str], reason: str) -> None:
    same = {"gpu": "a", "boot": "1", "ipc": "ipc:[1]", "pid": "pid:[1]"}
    here, there = Statement(**same), Statement(**{**same, "gpu": "b", **other})
    assert choose(ADDRESS, here, here) == SlotChoice("ring")
    assert choose(ADDRESS, here, there) == SlotChoice("pinned", reason)
    assert Statement.from_hello(there.to_hello()) == there
    assert Statement.from_hello({"gpu": 3, "boot": None}) == Statement()
    assert Statement.of(None, True) == Statement()
    assert Statement.of(FakeGpu("a"), True).ipc.startswith("ipc:[")


def test_a_receiver_waits_for_a_copy_no_longer_than_asked_and_gets_it_later(tmp_path: Path) -> None:
    gpu = FakeGpu("a")
    with gpu_ends(tmp_path, gpu, FakeGpu("b")) as (out, into):
        gpu.hold()
        for step in range(2):  # the sender goes on meanwhile
            out.send(header(step), batch(step), LIMIT)
        for _ in range(2):
            with pytest.raises(LinkTimeout, match="the tensor of message 0 is not there in time: stage 1"):
                into.recv(0.01)
        gpu.finish()
        for step in range(2):
            assert torch.equal(into.recv(LIMIT).tensor, batch(step))


def test_a_slot_is_not_written_while_the_receivers_gpu_reads_it(tmp_path: Path) -> None:
    reader = FakeGpu("b")
    with gpu_ends(tmp_path, FakeGpu("a"), reader) as (out, into):
        for step in range(2):
            out.send(header(step), batch(step), LIMIT)
        used = into.recv(LIMIT).tensor
        reader.hold()  # it lags behind: what reads the tensor has been launched and not been done
        into.recv(LIMIT)
        out.send(header(2), batch(2), LIMIT)
        for _ in range(2):
            with pytest.raises(LinkTimeout, match="stage 2 still computes with the slot of message 3"):
                out.send(header(3), batch(3), 0.01)
        assert torch.equal(used, batch(0))
        reader.finish()
        out.send(header(3), batch(3), LIMIT)
        assert torch.equal(used, batch(3))  # the slot of message 0
        assert [into.recv(LIMIT).header.step for _ in range(2)] == [2, 3]


def test_who_waits_for_a_device_of_a_process_that_dies_does_so_no_longer(tmp_path: Path) -> None:
    gpu, reader = FakeGpu("a"), FakeGpu("b")
    with gpu_ends(tmp_path, gpu, reader) as (out, into):
        gpu.hold()
        out.send(header(0), batch(0), LIMIT)
        dies(out)
        for _ in range(2):
            with pytest.raises(LinkClosed, match="message 0 cannot be received: stage 1 ended before its tensor was"):
                into.recv(LIMIT)
        gpu.finish()
    with gpu_ends(tmp_path, FakeGpu("a"), reader, depth=1) as (out, into):
        out.send(header(0), batch(0), LIMIT)
        into.recv(LIMIT)
        out.send(header(1), batch(1), LIMIT)
        reader.hold()
        into.recv(LIMIT)
        dies(into)
        with pytest.raises(LinkClosed, match="stage 2 ended without closing the link"):
            out.send(header(2), batch(2), LIMIT)
        reader.finish()


def test_an_error_of_cuda_is_the_death_of_the_other_process_where_that_has_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.links.queue.DYING_SECONDS", 0.01)
    with gpu_ends(tmp_path, Broken("a"), FakeGpu("b")) as (out, into):
        with pytest.raises(RuntimeError, match="illegal memory access"):
            out.send(header(0), batch(0), LIMIT)
        monkeypatch.setattr("workers.links.queue.DYING_SECONDS", LIMIT)
        put = out._slots.put  # type: ignore[union-attr]

        def dying(*arguments: Any) -> None:
            dies(into)
            put(*arguments)

        monkeypatch.setattr(out._slots, "put", dying)
        with pytest.raises(LinkClosed, match="stage 2"):
            out.send(header(0), batch(0), LIMIT)


def test_a_ring_stays_until_the_next_sender_has_come(tmp_path: Path) -> None:
    """A process that dies may write to it after its socket is closed; a handle is used once."""
    gpu = FakeGpu("b")
    for number in range(3):
        with gpu_ends(tmp_path, FakeGpu("a"), gpu) as (out, into):
            assert [memory.released for memory in gpu.memories] == [True] * number + [False]
            out.send(header(0), batch(0), LIMIT)
            used = into.recv(LIMIT).tensor
        assert torch.equal(used, batch(0))
        assert not gpu.memories[-1].released
    ring._kept.pop("link1").release()


def test_what_was_opened_when_the_other_end_dies_within_the_trial_is_given_up(tmp_path: Path) -> None:
    class Dying(FakeGpu):
        """Ends, as far as its socket shows, before it says whether the bytes have arrived."""

        def mark(self) -> SharedMark:
            return cast(SharedMark, SimpleNamespace(handle=super().mark().handle, reached=self.die))

        def die(self) -> bool:
            raise EOFError

    sender, receiver = FakeGpu("a"), Dying("b")
    with pytest.raises(LinkClosed, match="stage 2 ended while"), gpu_ends(tmp_path, sender, receiver):
        pass
    assert [memory.released for memory in sender.memories] == [True]
    assert ring._kept["link1"] is receiver.memories[0]  # until the next sender has come
    with gpu_ends(tmp_path, sender, receiver := FakeGpu("b")) as (out, _):
        assert out.way == IPC
    ring._kept.pop("link1").release()


def test_a_close_waits_for_the_copies_and_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu("a")
    asked: list[None] = []

    def copied(self: FakeGpu) -> bool:
        asked.append(None)
        if len(asked) == 3:
            gpu.finish()
        return not self._launched

    monkeypatch.setattr(FakeGpu, "copied", copied)
    with gpu_ends(tmp_path, gpu, FakeGpu("b")) as (out, into):
        gpu.hold()
        for step in range(2):
            out.send(header(step), batch(step), LIMIT)
        out.close()
        assert len(asked) == 3
        assert gpu.memories[-1].released
        assert [torch.equal(into.recv(LIMIT).tensor, batch(step)) for step in range(2)] == [True, True]
        with pytest.raises(LinkClosed, match="stage 1 closed its end after 2 messages"):
            into.recv(LIMIT)


@pytest.mark.parametrize("registered", [True, False])
def test_pinned_memory_is_read_before_its_slot_is_free(tmp_path: Path, registered: bool) -> None:
    """The GPU that reads lags behind, and messages are larger than two pinned pages."""
    spec = TensorSpec((2 * PART_BYTES // 4 + 100,), torch.float32)
    reader = FakeGpu("b", unpinned="" if registered else "no memlock")
    with gpu_ends(tmp_path, FakeGpu("a"), reader, spec=spec, depth=1, device_to_device=False) as (out, into):
        wanted = torch.arange(spec.shape[0], dtype=torch.float32)
        out.send(header(0), wanted, LIMIT)
        if registered:
            reader.hold()
        first = into.recv(LIMIT).tensor
        out.send(header(1), wanted + 1, LIMIT)
        second = into.recv(LIMIT).tensor
        out.send(header(2), wanted + 2, LIMIT)  # into the slot of the first
        reader.finish()
        assert torch.equal(first, wanted)
        assert torch.equal(second, wanted + 1)
