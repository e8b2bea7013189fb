"""Both ends of the link between two stages of several replicas, in threads of one process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from tests.waiting import LIMIT
from workers.links.base import LinkAddress, Receiver, Sender
from workers.links.factory import CPU, open_receiver, open_sender
from workers.links.messages import Header, TensorSpec
from workers.links.resharding import joining, shares, slicing


class Fan:
    """All ends of the link between two stages, each stage's replicas in threads of this process."""

    def __init__(self, folder: Path, senders: int, receivers: int, whole: TensorSpec, *, kind: str = "queue",
                 depth: int = 2, codec: str = "none") -> None:  # fmt: skip
        every = shares(senders, receivers)
        ways = {
            share: LinkAddress(
                f"link1.{share.sender}-{share.receiver}", f"stage 1 replica {share.sender}",
                f"stage 2 replica {share.receiver}", str(folder / f"{share.sender}-{share.receiver}"), b"key", depth,
                store=f"file://{folder}/store",
            ) for share in every
        }  # fmt: skip
        views, batch, *rest = whole.shape
        sent, received = (TensorSpec((views, batch // n, *rest), whole.dtype) for n in (senders, receivers))

        def sender(number: int) -> Sender:
            mine = [share for share in every if share.sender == number]
            ends = [(s, open_sender(kind, ways[s], s.spec(whole), LIMIT, codec)) for s in mine]
            return slicing(ends, sent)

        def receiver(number: int) -> Receiver:
            mine = [share for share in every if share.receiver == number]
            ends = [(s, open_receiver(kind, ways[s], s.spec(whole), LIMIT, CPU, codec)) for s in mine]
            return joining(ends, received, CPU)

        with ThreadPoolExecutor(senders + receivers) as pool:
            opening = (
                [pool.submit(sender, n) for n in range(senders)],
                [pool.submit(receiver, n) for n in range(receivers)],
            )
            self.senders = [end.result(LIMIT) for end in opening[0]]
            self.receivers = [end.result(LIMIT) for end in opening[1]]

    def send(self, step: int, whole: Tensor, only: int | None = None) -> None:
        rows = whole.shape[1] // len(self.senders)
        for number, end in enumerate(self.senders):
            if only in (None, number):
                end.send(Header(step, 0, ()), whole[:, number * rows : (number + 1) * rows], LIMIT)

    def recv(self, step: int) -> Tensor:
        messages = [end.recv(LIMIT) for end in self.receivers]
        assert {message.header.step for message in messages} == {step}
        return torch.cat([message.tensor for message in messages], dim=1)

    def close(self) -> None:
        for end in (*self.senders, *self.receivers):
            end.close()


def batch(step: int, rows: int = 12, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.arange(2 * rows * 3 * 2 * 2).view(2, rows, 3, 2, 2) + step).to(dtype)


def spec(dtype: torch.dtype = torch.float32) -> TensorSpec:
    return TensorSpec((2, 12, 3, 2, 2), dtype)
