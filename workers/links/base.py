"""The interface of a link: its two ends, the address that they share, and their errors.

A link carries messages in one direction and in order, from one stage to the next. Only permission to send more travels
back. `factory` opens both ends; `queue`, `rpc` and `p2p` implement them.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from torch import Tensor

from pipeline.errors import TrainingError
from workers.links.messages import Header, Message, TensorSpec
from workers.run.closable import Closable

Part = Literal["waiting", "copying", "computing"]
"""What a call of a link spends its time on: waiting for the other end, copying tensors, or computing on them."""
Meter = Callable[[Part], None]
"""Is told, whenever a part of a call ends, what the time since it was told last was spent on."""


def no_meter(part: Part) -> None:
    """Measures nothing."""


class LinkTimeout(TrainingError):
    """The other end did not respond in time; the link still works and the call may be repeated."""


class LinkClosed(TrainingError):
    """The other end was closed or its process died, or this end was closed; nothing more can be sent."""


class LinkMismatch(TrainingError):
    """The two ends were opened differently, or a message does not fit the link."""


class LinkCorrupted(TrainingError):
    """A message is not what was sent."""


@dataclass(frozen=True)
class LinkAddress:
    """Everything that both ends need to connect and to authenticate.

    Args:
        name: for example `link2`; unique in a run.
        sender: name of the sending process, `stage 2`; `worker_name` of it is its name in an RPC group.
        receiver: name of the receiving process.
        path: Unix socket in the run's private directory; `queue` needs one. Where it is empty `p2p` uses TCP.
        key: authentication key of the run; not used by `rpc`.
        depth: number of messages that may be unreceived before `send` blocks.
        store: key-value store of a `p2p` link: `file:///PATH` on one host, or `tcp://HOST:PORT` of a store that
            another process hosts.
        host: address that the receiving process listens on where there is no `path`; the port is in the store.
    """

    name: str
    sender: str
    receiver: str
    _: KW_ONLY
    path: str
    key: bytes = field(repr=False)
    depth: int
    store: str = ""
    host: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.sender} -> {self.receiver})"


@dataclass(frozen=True, kw_only=True)
class LinkBuffers:
    """What a link holds while messages are under way, at most, in bytes.

    Args:
        message: the largest message, as it is written.
        shared: memory that both ends map.
        sending: of the sender alone.
        receiving: of the receiver alone; the message in use is among it.
    """

    message: int
    shared: int = 0
    sending: int = 0
    receiving: int = 0


class _End(Closable):
    """What both ends have in common."""

    def __init__(self, address: LinkAddress, spec: TensorSpec) -> None:
        self.address, self.spec = address, spec
        self.way = ""
        """How tensors get to the other end, for the user; empty where the kind of link says it."""
        self._meter: Meter = no_meter

    def measure(self, meter: Meter) -> None:
        """Let `meter` measure every call that transfers a message; an end around another measures that one, too."""
        self._meter = meter

    @abstractmethod
    def close(self) -> None:
        """See `Closable.close`. The other end gets `LinkClosed`."""

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
    def reads_later(self) -> bool:
        """Whether the link may read a tensor after `send` has returned, so that the caller must not overwrite it."""
        return True

    @abstractmethod
    def await_room(self, timeout: float) -> None:
        """Wait until the next `send` will find room; a sender over several links waits for all of them first.

        Raises:
            LinkTimeout: no room within `timeout` seconds; the link can be used again.
            LinkClosed: the receiver has ended.
        """

    @abstractmethod
    def send(self, header: Header, tensor: Tensor, timeout: float) -> None:
        """Send one message; blocks while `depth` messages are unreceived, which is the backpressure of the pipeline.

        Args:
            header: sent unchanged.
            tensor: any shape within the spec, contiguous or not, on any device. It arrives contiguous.
                It must not be modified after the call where the link `reads_later`.
            timeout: seconds to wait for room.

        Raises:
            LinkTimeout: no room in time. Nothing was sent; the link can be used again.
            LinkClosed: the receiver has ended.
            LinkMismatch: the tensor does not fit the spec.
        """

    def peer_gone(self) -> bool:
        """Whether the receiver is known to have ended; does not block, and only some links know before they send."""
        return False


class Receiver(_End):
    """The receiving end; for one thread, except `waiting`."""

    @abstractmethod
    def recv(self, timeout: float) -> Message:
        """Take the next message, in the order sent.

        The tensor belongs to the caller, who may change it in place, until the next `recv` or `close`;
        after that its memory may hold another message.

        Raises:
            LinkTimeout: no message in time; the link can be used again.
            LinkClosed: the sender has ended. Messages that it sent before closing its end are delivered first.
        """

    @abstractmethod
    def waiting(self) -> int:
        """Approximate number of messages sent and not yet received; safe from any thread."""

    def peer_gone(self) -> bool:
        """Whether the sender is known to have ended, though messages of it may be left; does not block."""
        return False

    def accept_successor(self) -> None:
        """Let a restarted sender connect while the caller waits for others; links without restarts do nothing."""


def worker_name(process: str) -> str:
    """Name of a process in an RPC group: that of `stage 2` is `stage-2`."""
    return re.sub(r"[^A-Za-z0-9_:-]", "-", process)


def seconds(timeout: float) -> str:
    """A time limit as it is shown in messages."""
    return f"{timeout:g} s"
