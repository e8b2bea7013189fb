"""What a sender keeps for a restarted stage, of batches on a GPU or encoded ones: nothing of it stays on the device."""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.waiting import LIMIT
from tests.workers.links.fake_gpu import FakeGpu
from tests.workers.links.gpu_ends import gpu_ends
from tests.workers.links.reopened import BYTES, SPEC, Link, batch, dies, header
from workers.links.base import Sender
from workers.links.factory import CPU, open_receiver, open_sender
from workers.links.messages import Header
from workers.links.replay import ReplayBuffer, most_in_memory
from workers.links.replaying import ReplayingSender, ResumingReceiver

PAGE = 32
"""Of pinned memory for a batch of 24 bytes."""


def watched(nbytes: int) -> tuple[Tensor, weakref.ref[mmap.mmap]]:
    """A tensor, and what is None when its memory is in use no more."""
    memory = mmap.mmap(-1, nbytes)
    return torch.frombuffer(memory, dtype=torch.uint8), weakref.ref(memory)


def on_gpu(step: int) -> tuple[Tensor, weakref.ref[mmap.mmap]]:
    """The batch of a step, in memory that is watched."""
    tensor, in_use = watched(BYTES)
    return tensor.view(SPEC.dtype).view(SPEC.shape).copy_(batch(step)), in_use


class CountingGpu(FakeGpu):
    """Knows which pages are still in use, which its allocator has rounded up."""

    def __init__(self, uuid: str) -> None:
        super().__init__(uuid)
        self._pages: list[weakref.ref[mmap.mmap]] = []

    def page(self, nbytes: int) -> Tensor:
        tensor, in_use = watched(nbytes)
        self._pages.append(in_use)
        return tensor

    @property
    def pages(self) -> int:
        return sum(page() is not None for page in self._pages)


@pytest.mark.parametrize("fits", [0, 2, 9])
def test_a_batch_is_copied_behind_the_step_and_is_the_same_in_memory_and_on_disk(tmp_path: Path, fits: int) -> None:
    gpu, folder = CountingGpu("a"), tmp_path / "log"
    buffer = ReplayBuffer(folder, gpu, memory_limit=fits * PAGE)
    for step in range(5):
        gpu.hold()
        tensor, source = on_gpu(step)
        buffer.add(header(step), tensor)
        assert gpu.held, "the step was waited for"
        del tensor
        assert source() is not None, "it is still being copied"
        gpu.finish()
        assert source() is None, "it stays on the GPU"
        assert gpu.pages * PAGE <= most_in_memory(step + 1, BYTES, pinned=True, limit=fits * PAGE)
        assert gpu.pages == min(step + 1, fits + 1)
    gpu.hold()
    buffer.add(header(5), batch(5))
    assert buffer.steps() == list(range(6))
    for step in range(6):
        message = buffer.get(step)
        assert message is not None
        assert message.header == header(step)
        assert torch.equal(message.tensor, batch(step))
    del message
    assert (gpu.pages, len(list(tmp_path.glob("log/*")))) == (min(fits, 6), max(6 - fits, 0))
    buffer.discard_before(6)
    assert (gpu.pages, len(list(tmp_path.glob("log/*")))) == (0, 0)


def test_what_is_sent_again_comes_from_the_host_and_the_newest_is_let_go_of(tmp_path: Path) -> None:
    gpu = CountingGpu("a")
    sent: list[tuple[int, int]] = []

    class Noting(Sender):
        """Notes where each tensor is that it sends."""

        def await_room(self, timeout: float) -> None: ...

        def send(self, header: Header, tensor: Tensor, timeout: float) -> None:
            sent.append((header.step, tensor.data_ptr()))
            self.bytes_sent += tensor.nbytes

        def close(self) -> None: ...

    opening: Callable[[], Sender] = partial(Noting, Link(tmp_path).address, SPEC)
    sender = ReplayingSender(opening, ReplayBuffer(tmp_path / "log", gpu), LIMIT)
    for step in range(2):
        tensor, source = on_gpu(step)
        sender.send(header(step), tensor, LIMIT)
        assert sent.pop() == (step, tensor.data_ptr()), "it was sent from the device"
        del tensor
        assert source() is None, "it stays on the GPU"
    sender._reopen()
    sender.await_room(LIMIT)
    kept = [sender._buffer.get(step) for step in range(2)]
    assert sent == [(step, message.tensor.data_ptr()) for step, message in enumerate(kept) if message is not None]


def test_a_restarted_receiver_gets_the_same_bits_from_pinned_memory(tmp_path: Path) -> None:
    gpu = CountingGpu("a")
    buffer = ReplayBuffer(tmp_path / "log", gpu, memory_limit=2 * PAGE)
    for step in range(4):
        buffer.add(header(step), batch(step))
    with gpu_ends(tmp_path, gpu, FakeGpu("b"), spec=SPEC, depth=4) as (out, into):
        for step in buffer.steps():
            message = buffer.get(step)
            assert message is not None
            out.send(message.header, message.tensor, LIMIT)
            assert torch.equal(into.recv(LIMIT).tensor, batch(step))


def test_of_encoded_activations_the_codes_are_kept_and_sent_again(tmp_path: Path) -> None:
    link, buffers = Link(tmp_path, depth=4), list[ReplayBuffer]()

    def lasting(opening: Callable[[], Sender]) -> Sender:
        buffers.append(link.log())
        return ReplayingSender(opening, buffers[0], LIMIT)

    receiving = lambda timeout: open_receiver("queue", link.address, SPEC, timeout, CPU, "bf16")  # noqa: E731
    first = link.soon(lambda: ResumingReceiver(receiving, LIMIT, 0))
    sender = open_sender("queue", link.address, SPEC, LIMIT, "bf16", lasting=lasting)
    receiver = first.result(LIMIT)
    for step in range(2):
        sender.send(header(step), batch(step) / 3, LIMIT)
    kept = [buffers[0].get(step) for step in range(2)]
    assert [message and message.tensor.dtype for message in kept] == [torch.bfloat16] * 2
    dies(receiver._inner)
    late = link.soon(lambda: ResumingReceiver(receiving, LIMIT, 0))
    sender.await_room(LIMIT)
    for step in range(2):
        assert torch.equal(late.result(LIMIT).recv(LIMIT).tensor, (batch(step) / 3).bfloat16().float())
