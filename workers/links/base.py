"""What every link promises, whatever it is made of: the two ends, the address they share, their errors.

A link carries messages one way, in order, from one stage to the next; nothing ever travels back but
permission to send more. `factory` opens both ends, `queue`, `rpc` and `p2p` implement them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from torch import Tensor

from pipeline.errors import TrainingError
from workers.links.messages import Header, Message, TensorSpec


class LinkTimeout(TrainingError):
    """The other end did not do its part in time; the link is unharmed and the call may be repeated."""


class LinkClosed(TrainingError):
    """The other end has gone, orderly or not, or this end was closed; nothing more can travel."""


class LinkMismatch(TrainingError):
    """The two ends, or a message and the link, do not fit together."""


@dataclass(frozen=True)
class LinkAddress:
    """Everything both ends need to find and to trust each other.

    Args:
        name: for example `link2`; unique in a run.
        sender: the sending process in words, `stage 2`; `worker_name` of it is its name in an RPC group.
        receiver: the receiving process in words.
        path: Unix socket in the run's private directory; `queue` needs one. Where it is empty `p2p` uses TCP.
        key: authentication key of the run; not used by `rpc`.
        depth: messages that may wait unreceived before `send` blocks.
        store: where the two processes of a `p2p` link meet: `file:///PATH` on one host, or `tcp://HOST:PORT` of a
            store that another process hosts.
        host: that the receiving process listens on where there is no `path`; the port is published in the store.
    """

    name: str
    sender: str
    receiver: str
    path: str
    key: bytes = field(repr=False)
    depth: int
    store: str = ""
    host: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.sender} -> {self.receiver})"


class _End(ABC):
    """What both ends have in common: an address, and an end of their own."""

    def __init__(self, address: LinkAddress, spec: TensorSpec) -> None:
        self.address, self.spec = address, spec

    @abstractmethod
    def close(self) -> None:
        """Give everything back; calling it again does nothing. The other end gets `LinkClosed`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_fits(self, shape: tuple[int, ...], dtype: object) -> None:
        if not self.spec.admits(shape, dtype):
            found = f"{list(shape)} {str(dtype).removeprefix('torch.')}"
            raise LinkMismatch(
                f"{self.address}: a tensor {found} does not fit the link, which was opened for {self.spec}. "
                "Axes may be smaller, never larger or fewer"
            )


class Sender(_End):
    """The sending end; for one thread."""

    def __init__(self, address: LinkAddress, spec: TensorSpec) -> None:
        super().__init__(address, spec)
        self.bytes_sent = 0
        """Bytes of tensors sent so far."""

    @property
    def keeps(self) -> bool:
        """Whether the link may still read a tensor after `send` has returned, so that its memory must not be reused."""
        return True

    @abstractmethod
    def await_room(self, timeout: float) -> None:
        """Wait until the next `send` will find room; who sends over several links asks all of them first.

        Raises:
            LinkTimeout: no room within `timeout` seconds; the link can be used again.
            LinkClosed: the receiver has gone.
        """

    @abstractmethod
    def send(self, header: Header, tensor: Tensor, timeout: float) -> None:
        """Send one message; block while `depth` messages are unreceived (this is the backpressure).

        Args:
            header: travels as it is.
            tensor: any shape within the spec, contiguous or not, on any device. It arrives contiguous.
                It must not be modified after the call if the link `keeps` it.
            timeout: seconds to wait for room.

        Raises:
            LinkTimeout: no room in time. Nothing was sent; the link can be used again.
            LinkClosed: the receiver has gone.
            LinkMismatch: the tensor does not fit the spec.
        """

    def gone(self) -> bool:
        """Whether the receiver is known to have gone; does not wait, and only some links know before they send."""
        return False


class Receiver(_End):
    """The receiving end; for one thread, except `waiting`."""

    computing: float = 0.0
    """Seconds of all calls of `recv` together in which it did not wait, but finished what had come."""

    @abstractmethod
    def recv(self, timeout: float) -> Message:
        """Take the next message, in the order sent.

        The tensor belongs to the caller, who may change it in place, until the next `recv` or `close`;
        after that its memory may hold another message.

        Raises:
            LinkTimeout: no message in time; the link can be used again.
            LinkClosed: the sender has gone. Messages it sent before an orderly close are delivered first.
        """

    @abstractmethod
    def waiting(self) -> int:
        """Messages sent and not yet received, about; safe from any thread."""

    def gone(self) -> bool:
        """Whether the sender is known to have gone, though messages of it may wait; does not wait itself."""
        return False

    def attend(self) -> None:
        """Nothing is to be received from this sender now, but from another: where it died, let its successor in."""


def worker_name(process: str) -> str:
    """The name in an RPC group of a process in words: `stage 2` is `stage-2`."""
    return re.sub(r"[^A-Za-z0-9_:-]", "-", process)


def seconds(timeout: float) -> str:
    """A time limit for a message."""
    return f"{timeout:g} s"
