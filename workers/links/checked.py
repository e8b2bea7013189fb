"""A link whose messages carry a checksum: computed before a message leaves, and again when it has arrived.

What lies between is the memory of both processes, and the network: TCP has a checksum of 16 bits, which an adapter
may compute over bytes that memory has changed before. This one is around the two ends of a link of any kind, inside a
codec, so it is of the bytes that travel: one sum of the fold of the digests (`pipeline.stage.fold`) and CRC-32 of the
header. One word that changes is always found; several are missed once in some 2^64.
"""

from __future__ import annotations

import platform
import zlib
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.stage.bit_flips import Exposed, untouched
from pipeline.stage.fold import Fold, as_text
from workers.links.around import AroundReceiver, AroundSender
from workers.links.base import LinkCorrupted, Receiver, Sender
from workers.links.messages import Header, Message


class Checksums:
    """Of messages, on the device of each."""

    def __init__(self) -> None:
        self._folds: dict[torch.device, Fold] = {}

    def of(self, header: Header, tensor: Tensor) -> str:
        """24 hexadecimal digits. On a GPU the host waits until the tensor is there."""
        if tensor.device not in self._folds:
            self._folds[tensor.device] = Fold(tensor.device, sums=1)
        sums = self._folds[tensor.device].of([tensor])
        return f"{as_text(sums.tolist())}{zlib.crc32(replace(header, checksum='').to_bytes()):08x}"


class CheckedSender(AroundSender):
    """Puts a checksum into the header of every message.

    Args:
        inner: sends it.
    """

    def __init__(self, inner: Sender) -> None:
        super().__init__(inner, inner.spec)
        self._checksums, self._host = Checksums(), platform.node()

    def send(self, header: Header, tensor: Tensor, timeout: float) -> None:
        """See `Sender.send`."""
        self._check_fits(tuple(tensor.shape), tensor.dtype)
        self._inner.await_room(timeout)
        self._meter("waiting")
        header = replace(header, origin=self._host)
        header = replace(header, checksum=self._checksums.of(header, tensor))
        self._meter("computing")
        self._pass_on(header, tensor, timeout)


class CheckedReceiver(AroundReceiver):
    """Checks every message that has a checksum, and removes it.

    Args:
        inner: receives it.
        exposed: is shown every message before it is checked (`pipeline.stage.bit_flips`).
    """

    def __init__(self, inner: Receiver, exposed: Exposed = untouched) -> None:
        super().__init__(inner, inner.spec)
        self._checksums, self._exposed = Checksums(), exposed

    def recv(self, timeout: float) -> Message:
        """See `Receiver.recv`.

        Raises:
            LinkCorrupted: the message is not what was sent.
        """
        message = self._inner.recv(timeout)
        header, tensor = message.header, message.tensor
        self._exposed("message", header.step, lambda: {"message": tensor})
        if header.checksum:
            if (found := self._checksums.of(header, tensor)) != header.checksum:
                raise LinkCorrupted(
                    f"{self.address}: the message of step {header.step} has changed on its way from "
                    f"{self.address.sender} on {header.origin} to {self.address.receiver} on {platform.node()}: "
                    f"its checksum was {header.checksum} and is {found} (link.checksum). Test the memory and the "
                    "network of these hosts before the run goes on there, or go on elsewhere"
                )
            self._meter("computing")
        return Message(replace(header, checksum="", origin=""), tensor)
