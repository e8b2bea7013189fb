"""What is said that a link carries and holds, against the ends of real links."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.distributed import rpc
from torch.futures import Future

from launch.plan.deciding import with_rings
from launch.plan.devices import CUDA_CONTEXT, SENDERS
from launch.plan.fitting import decisions
from launch.plan.links import input_accounts, link_accounts
from launch.plan.memories import ProcessMemories
from launch.plan.remedies import Devices
from launch.prepare.placement import Placement, place
from pipeline.config import Config
from pipeline.stage.codecs import build_codec
from tests.pipeline.small import small_config
from tests.waiting import LIMIT
from tests.workers.links.fake_gpu import FakeGpu
from tests.workers.links.gpu_ends import gpu_ends
from workers.feed.ahead import FeedOnDevice
from workers.feed.device_slots import Copies
from workers.links.base import LinkAddress, LinkTimeout
from workers.links.coded import CodedSender
from workers.links.framed import CLOSING
from workers.links.messages import Header, TensorSpec
from workers.links.p2p import P2pReceiver, P2pSender
from workers.links.pair_group import Pair
from workers.links.rpc import open_rpc_receiver, open_rpc_sender
from workers.links.rpc_calls import on_message
from workers.topology.rendezvous import link_spec

CPU = torch.device("cpu")
SIZES = {"cuda:0": 2**40, "cuda:1": 2**40}
DEPTH = 3


class Still:
    """A pair that sends nothing and where nothing arrives."""

    device = CPU

    def send(self, payload: Tensor) -> list[Any]:
        return []

    def post_receive(self, slot: Tensor) -> Still:
        return self

    def wait(self, alive: Callable[[], bool]) -> None:
        pass

    def wait_sent(self, works: list[Any]) -> None:
        pass

    def close(self) -> None:
        pass


def config(**sections: Any) -> Config:
    return small_config(**{"link": {"depth": DEPTH, "kind": "p2p"}, **sections})


@contextmanager
def p2p_ends(spec: TensorSpec) -> Iterator[tuple[P2pSender, P2pReceiver]]:
    address = LinkAddress("link1", "stage 1", "stage 2", path="", key=b"", depth=DEPTH)
    near, far = (Connection(end.detach()) for end in socket.socketpair())
    pair = cast(Pair, Still())
    sender, receiver = P2pSender(address, spec, near, pair), P2pReceiver(address, spec, far, CPU, pair)
    try:
        yield sender, receiver
    finally:
        sender._closed_because = "the test is over"
        near.send_bytes(CLOSING)
        receiver.close()
        sender.close()


def test_a_p2p_link_holds_the_messages_that_were_not_taken_and_its_slots() -> None:
    run = config()
    link = link_accounts(run, place(run, 0))[1]
    spec = TensorSpec((2, 8, 8, 16, 16), torch.float32)
    with p2p_ends(spec) as (sender, receiver):
        for step in range(DEPTH):
            sender.send(Header(step, 0, ()), torch.zeros(spec.shape), 1.0)
        assert sender.bytes_sent == DEPTH * link.bytes_per_step
        assert sum(payload.nbytes for *_, payload in sender._in_flight) == link.sending
        assert sum(slot.nbytes for slot in receiver._slots) == link.receiving
    assert (link.sender, link.receiver, link.shared) == ("stage 1", "stage 2", 0)


def test_an_rpc_link_holds_what_is_not_answered_and_what_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its messages are carried to the other end at once; the sender may have no more of them than that."""
    run = config(link={"depth": DEPTH, "kind": "rpc"})
    link = link_accounts(run, place(run, 0))[1]
    spec = TensorSpec((2, 8, 8, 16, 16), torch.float32)
    calls: list[tuple[Tensor, Future[Any]]] = []

    def carry(to: str, handler: Callable[..., Future[Any]], args: tuple[Any, ...], timeout: float) -> Future[Any]:
        answer = handler(*args)
        if handler is on_message:
            calls.append((args[-1], answer))
        return answer

    monkeypatch.setattr(rpc, "rpc_async", carry)
    address = LinkAddress("link1", "stage 1", "stage 2", path="", key=b"", depth=DEPTH)
    with ThreadPoolExecutor(1) as threads:
        opened = threads.submit(open_rpc_receiver, address, spec, LIMIT, "none", CPU)
        sender = open_rpc_sender(address, spec, LIMIT, "none")
        receiver = opened.result(LIMIT)
    for step in range(DEPTH):
        sender.send(Header(step, 0, ()), torch.zeros(spec.shape), LIMIT)
    assert sender.bytes_sent == DEPTH * link.bytes_per_step
    assert sum(tensor.nbytes for tensor, answer in calls if not answer.done()) == link.sending
    with pytest.raises(LinkTimeout):
        sender.await_room(0.0)
    in_use = receiver.recv(LIMIT).tensor
    sender.send(Header(DEPTH, 0, ()), torch.zeros(spec.shape), LIMIT)
    arrived = sum(message.tensor.nbytes for message in receiver._arrived.values())
    assert arrived + in_use.nbytes == link.receiving
    assert (link.kind, link.shared, link.on_gpu) == ("rpc", 0, False)
    receiver.close()
    sender.close()


@pytest.mark.parametrize("codec", ["bf16", "int8"])
def test_a_step_takes_as_many_bytes_as_the_codec_writes(codec: str) -> None:
    run = config(link={"codec": codec, "kind": "p2p", "depth": DEPTH})
    link = link_accounts(run, place(run, 0))[1]
    coder = build_codec(codec, (2, 8, 8, 16, 16), torch.float32)
    assert coder is not None
    with p2p_ends(TensorSpec(coder.wire_shape, coder.wire_dtype)) as (sender, _):
        coded = CodedSender(sender, coder)
        coded.send(Header(0, 0, ()), torch.zeros(coder.shape), 1.0)
        assert coded.bytes_sent == link.bytes_per_step
    decoded = {
        entry.process: entry.bytes for entry in input_accounts(run, place(run, 0), link_accounts(run, place(run, 0)))
    }
    assert decoded["stage 2"] == 2 * 8 * 8 * 16 * 16 * 4
    assert decoded["stage 1"] == 0


def test_replicas_have_a_link_for_each_pair_and_join_their_rows() -> None:
    run = config(stages={1: {"replicas": 2}}, link={"kind": "queue", "depth": DEPTH})
    links = link_accounts(run, place(run, 0))
    assert [link.name for link in links[:4]] == ["link0.1-1", "link0.1-2", "link1.1-1", "link1.2-1"]
    inputs = {entry.process: entry.bytes for entry in input_accounts(run, place(run, 0), links)}
    assert inputs["stage 2"] == 2 * links[2].bytes_per_step
    assert inputs["stage 1 replica 1"] == 0


def between_gpus(*devices: str, **settings: Any) -> tuple[Config, list[Placement]]:
    run = config(link={"depth": DEPTH, **settings}, model={"cuts": ["layer1"]})
    placements = place(run, 0)
    return run, [replace(placement, device=device) for placement, device in zip(placements, devices, strict=True)]


@pytest.mark.parametrize(
    ("settings", "on_gpu", "copied", "way"),
    [
        ({"kind": "p2p"}, True, False, ""),
        ({"kind": "queue"}, True, False, "CUDA IPC"),
        ({"kind": "queue", "device_to_device": False}, False, True, "pinned"),
        ({"kind": "rpc"}, False, True, ""),
    ],
    ids=str,
)
def test_between_two_gpus_p2p_and_a_queue_stay_there_and_shared_memory_is_copied(
    settings: dict[str, Any], on_gpu: bool, copied: bool, way: str
) -> None:
    run, placements = between_gpus("cuda:0", "cuda:1", **settings)
    links = link_accounts(run, placements)
    assert (links[1].on_gpu, links[1].way) == (on_gpu, way)
    assert input_accounts(run, placements, links)[1].bytes == copied * 2 * 8 * 8 * 16 * 16 * 4
    assert links[0].way == ("pinned" if settings["kind"] == "queue" else "")  # from the coordinator, on the CPU


def test_a_ring_is_on_the_receivers_gpu_and_a_sender_from_another_has_a_context_there() -> None:
    ring = (DEPTH + 1) * 2 * 8 * 8 * 16 * 16 * 4

    def terms(*devices: str, **settings: Any) -> list[dict[str, int]]:
        run, placements = between_gpus(*devices, **settings)
        sizes = dict.fromkeys(dict.fromkeys(devices), 2**40)
        accounts = Devices(tuple(placements), sizes, ProcessMemories()).accounts(run)
        return [{term.name: term.bytes for term in account.terms} for account in accounts]

    first, second = terms("cuda:0", "cuda:1", kind="queue")
    assert SENDERS not in first
    assert second[SENDERS] == CUDA_CONTEXT == second["CUDA"]
    assert second["batches"] == ring
    (both,) = terms("cuda:0", "cuda:0", kind="queue")
    assert both["batches"] == first["batches"] + ring
    assert SENDERS not in both
    pinned = terms("cuda:0", "cuda:1", kind="queue", device_to_device=False)
    assert all(SENDERS not in of_device for of_device in pinned)
    assert pinned[1]["batches"] == ring // (DEPTH + 1)  # what is copied there


@pytest.mark.parametrize(("codec", "share"), [("none", 1), ("bf16", 2)])
def test_what_is_kept_for_a_restart_is_as_it_is_sent_and_pinned_where_a_gpu_sends(codec: str, share: int) -> None:
    given: dict[str, Any] = {"link": {"depth": 1, "kind": "queue", "codec": codec}, "snapshots": {"every": 2}}
    run = config(restart="stage", model={"cuts": ["layer1"]}, data={"batch_size": 6}, **given)
    batches, message = 3 * 2 + 2 * 2, 2 * 6 * 8 * 16 * 16 * 4 // share
    kept = {}
    for device in ("cpu", "cuda:0"):
        placements = [replace(placement, device=device) for placement in place(run, 1)]
        kept[device] = [link.replay for link in link_accounts(run, placements)]
    images = 2 * 6 * 3 * 16 * 16
    assert kept["cpu"] == [batches * images, batches * message]
    assert kept["cuda:0"] == [batches * images, batches * message * 4 // 3]  # the next power of two; images are not
    other = config(restart="job", model={"cuts": ["layer1"]}, snapshots={"every": 2})
    assert [link.replay for link in link_accounts(other, place(other, 0))] == [0, 0]


@pytest.mark.parametrize("given", ["auto", True])
def test_a_ring_is_given_up_where_the_gpus_do_not_hold_it(given: str | bool) -> None:
    """Of two that are equal, and where nothing else is left to decide."""
    run, placements = between_gpus("cuda:0", "cuda:1", kind="queue", device_to_device=given)
    memories = ProcessMemories()

    def decided(size: int) -> Config:
        return with_rings(run, Devices(tuple(placements), {"cuda:0": size, "cuda:1": size}, memories))

    needs = max(account.needs for account in Devices(tuple(placements), SIZES, memories).accounts(run))
    for size, rings in ((needs, True), (needs - 1, given is True)):
        link = decided(size).link
        assert (link.device_to_device, link.rings) == (rings, rings)
    assert decisions(run, decided(needs)) == []
    smaller = decided(needs - 1)
    assert len(decisions(run, smaller)) == (given == "auto")
    assert run.link.rings


def test_the_ring_of_the_account_is_the_one_that_is_allocated(tmp_path: Path) -> None:
    run, placements = between_gpus("cuda:0", "cuda:1", kind="queue")
    link = link_accounts(run, placements)[1]
    gpu = FakeGpu("GPU-1")
    spec = TensorSpec((2, 8, 8, 16, 16), torch.float32)
    with gpu_ends(tmp_path, FakeGpu("GPU-0"), gpu, spec=spec, depth=DEPTH):
        assert [memory.whole.nbytes for memory in gpu.memories] == [link.receiving]
    assert (link.shared, link.sending) == (0, 0)


@pytest.mark.parametrize("feed", ["coordinator", "stages"])
@pytest.mark.parametrize("runtime", ["pipelined", "serial"])
def test_images_enter_a_gpu_one_batch_ahead(runtime: str, feed: str) -> None:
    """Slots as the process itself takes them, on both sides."""
    run = config(runtime=runtime, data={"feed": feed}, device="cuda:0")
    placements = place(run, 1)
    first = input_accounts(run, placements, link_accounts(run, placements))[0]
    taken: dict[str, int] = {"host": 0, "device": 0}

    class Counted:
        def pinned(self, nbytes: int) -> torch.Tensor:
            taken["host"] += nbytes
            return torch.empty(nbytes, dtype=torch.uint8)

        def on_device(self, nbytes: int) -> torch.Tensor:
            taken["device"] += nbytes
            return torch.empty(nbytes, dtype=torch.uint8)

    FeedOnDevice(iter(()), link_spec(run, 1).nbytes, torch.device("cpu"), cast(Copies, Counted()))
    assert (first.device, first.pinned, first.bytes) == ("cuda:0", taken["host"], taken["device"])
