"""One of the two processes between which a link, and the sum of gradients, are timed: see `measuring_pair.py`."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import nn

from launch.plan.answer_process import answer_one
from pipeline.config import Config
from pipeline.errors import first_line
from pipeline.precision import DTYPES
from pipeline.replicas import GradientSum
from workers.links.base import LinkAddress, LinkClosed, Part
from workers.links.factory import Kind, open_receiver, open_sender
from workers.links.messages import Header, TensorSpec
from workers.links.rpc_agent import start_agent, stop_agent
from workers.run.compute import set_up_compute
from workers.run.signals import signal_on_parent_death
from workers.stage.device_clock import DeviceClock
from workers.topology.replica_group import join_replica_group, leave_replica_group

NAMES = "stage 1", "stage 2"
SENDER, RECEIVER = 0, 1
WARM = 3
"""Messages, and sums, before those that are timed."""
LEAST, MOST = 5, 20
"""Messages that are timed; the least where the time is over before."""
SUMS = 5
SUMMED_BYTES = 2**25
"""Of gradients: a full bucket and a part of one."""
PAUSE = 1e-3
"""Seconds between two messages, in which the receiver waits for the next."""
Answer = dict[str, Any]


class OwnTime:
    """What an end of a link spends itself: of its process, with the threads that transfer for it; or on its GPU.

    Args:
        device: of the tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._clock = device, DeviceClock.of(device) if device.type == "cuda" else None
        self._began, self._parts = time.process_time(), 0.0

    def start(self) -> None:
        """What comes now counts."""
        self._began, self._parts = time.process_time(), 0.0
        if self._clock is not None:
            self._clock.start()

    def part(self, part: Part) -> None:
        """See `workers.links.base.Meter`."""
        if self._clock is not None:
            self._clock.lap(None, booked=None if part == "waiting" else self._book)

    def stop(self) -> float:
        """Seconds since `start`."""
        if self._clock is None:
            return time.process_time() - self._began
        torch.cuda.synchronize(self._device)
        self._clock.settle()
        return self._parts

    def _book(self, began: float, ended: float) -> None:
        self._parts += ended - began


def answer(question: Mapping[str, Any]) -> Answer:
    """What this process has measured: for each link, and for the sum of gradients.

    The question has the configuration, the number of this process, its device, a folder and a key that both share, the
    kind of every link with the shapes of its messages, and whether gradients are summed.
    """
    config, rank = Config.model_validate_json(question["config"]), int(question["rank"])
    set_up_compute(config)
    device, limit, folder = torch.device(question["device"]), float(question["limit"]), question["folder"]
    measured: Answer = {"links": []}
    for number, (kind, shapes) in enumerate(question["links"]):
        with _agent(kind, rank, folder, limit, config):
            messages = []
            for size, shape in enumerate(shapes):
                address = _address(f"link{number}-{size}", question)
                spec = TensorSpec(tuple(shape), DTYPES[config.precision.dtype])
                if rank == SENDER:
                    messages.append(_send(config, kind, address, spec, device, limit, question["seconds"]))
                else:
                    messages.append(_receive(config, kind, address, spec, device, limit))
            measured["links"].append(messages)
    if question["sums"]:
        measured["summing"] = _seconds_of_sum(rank, folder, device, limit)
    return measured


def _send(
    config: Config,
    kind: Kind,
    address: LinkAddress,
    spec: TensorSpec,
    device: torch.device,
    limit: float,
    most: float,
) -> Answer:
    """Send messages for `most` seconds; what each cost this process, and when it was sent."""
    tensor, own, seconds, sent = torch.randn(spec.shape, device=device).to(spec.dtype), OwnTime(device), [], []
    settings, ends = config.link, time.monotonic() + most
    with open_sender(
        kind, address, spec, limit, settings.codec, device, settings.rings, checksum=settings.checksum
    ) as link:
        link.measure(own.part)
        for number in range(WARM + MOST):
            last = number == WARM + MOST - 1 or (number >= WARM + LEAST - 1 and time.monotonic() > ends)
            own.start()
            began = time.monotonic()
            link.send(Header(number, 0, (), last=last), tensor, limit)
            sent.append(time.monotonic())
            if device.type == "cuda":
                seconds.append(own.stop())
            with suppress(LinkClosed) if last else nullcontext():  # the receiver closes its end after the last
                link.await_room(limit)
            time.sleep(PAUSE + sent[-1] - began)
            if device.type == "cpu":  # with what threads have sent meanwhile
                seconds.append(own.stop())
            if last:
                break
        carried = link.bytes_sent // len(sent)
    return {"seconds": seconds[WARM:], "at": sent[WARM:], "bytes": carried}


def _receive(
    config: Config, kind: Kind, address: LinkAddress, spec: TensorSpec, device: torch.device, limit: float
) -> Answer:
    """Receive messages until the last; what each cost this process, and when it was there."""
    own, seconds, arrived, last = OwnTime(device), [], [], False
    with open_receiver(kind, address, spec, limit, device, config.link.codec, config.link.rings) as link:
        link.measure(own.part)
        while not last:
            own.start()
            message = link.recv(limit)
            seconds.append(own.stop())
            arrived.append(time.monotonic())
            last = message.header.last
    return {"seconds": seconds[WARM:], "at": arrived[WARM:]}


def _seconds_of_sum(rank: int, folder: str, device: torch.device, limit: float) -> Answer:
    """Of `SUMMED_BYTES` of gradients, as replicas sum them, several times."""
    parameters = [nn.Parameter(torch.zeros(SUMMED_BYTES // 8, device=device)) for _ in range(2)]
    team = join_replica_group(f"file://{folder}/replicas", "sums", rank, 2, device, limit)
    try:
        gradients, seconds = GradientSum(parameters, team), []
        for _ in range(WARM + SUMS):
            for parameter in parameters:
                parameter.grad = torch.ones_like(parameter)
            began = _now(device)
            gradients.finish()
            seconds.append(_now(device) - began)
    finally:
        leave_replica_group()
    return {"seconds": seconds[WARM:], "bytes": SUMMED_BYTES}


def _now(device: torch.device) -> float:
    """Of a CPU, what this process has computed: a sum is no shorter where the cores have other work."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.monotonic()


def _address(name: str, question: Mapping[str, Any]) -> LinkAddress:
    folder = question["folder"]
    key, store = bytes.fromhex(question["key"]), f"file://{folder}/store"
    return LinkAddress(name, *NAMES, path=f"{folder}/{name}", key=key, depth=1, store=store)


@contextmanager
def _agent(kind: Kind, rank: int, folder: str, limit: float, config: Config) -> Iterator[None]:
    if kind != "rpc":
        yield
        return
    start_agent(NAMES[rank], rank, 2, f"file://{folder}/rpc", limit, config.link.rpc_transports)
    try:
        yield
    finally:
        stop_agent(graceful=True, timeout=limit)


def _answer(question: dict[str, Any]) -> Answer:
    try:
        return answer(question)
    except Exception as error:  # whatever a link or a library raises
        return {"problem": first_line(error)[:300]}


def main() -> None:
    """Answer the one question on the standard input."""
    signal_on_parent_death(signal.SIGKILL)
    answer_one(_answer)


if __name__ == "__main__":
    main()
