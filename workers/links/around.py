"""Ends of a link around another end: what they do not change, the end inside does."""

from __future__ import annotations

from torch import Tensor

from workers.links.base import Meter, Receiver, Sender
from workers.links.messages import Header, TensorSpec


class AroundSender(Sender):
    """Sends through `inner`.

    Args:
        inner: the end inside.
        spec: of the largest tensor that this end takes.
    """

    def __init__(self, inner: Sender, spec: TensorSpec) -> None:
        super().__init__(inner.address, spec)
        self._inner, self.way = inner, inner.way

    @property
    def reads_later(self) -> bool:
        """See `Sender.reads_later`."""
        return self._inner.reads_later

    def measure(self, meter: Meter) -> None:
        """See `Sender.measure`."""
        super().measure(meter)
        self._inner.measure(meter)

    def await_room(self, timeout: float) -> None:
        """See `Sender.await_room`."""
        self._inner.await_room(timeout)

    def peer_gone(self) -> bool:
        """See `Sender.peer_gone`."""
        return self._inner.peer_gone()

    def close(self) -> None:
        """See `Sender.close`."""
        self._inner.close()

    def _pass_on(self, header: Header, tensor: Tensor, timeout: float) -> None:
        self._inner.send(header, tensor, timeout)
        self.bytes_sent = self._inner.bytes_sent


class AroundReceiver(Receiver):
    """Receives through `inner`; arguments as those of `AroundSender`."""

    def __init__(self, inner: Receiver, spec: TensorSpec) -> None:
        super().__init__(inner.address, spec)
        self._inner, self.way = inner, inner.way

    def measure(self, meter: Meter) -> None:
        """See `Receiver.measure`."""
        super().measure(meter)
        self._inner.measure(meter)

    def waiting(self) -> int:
        """See `Receiver.waiting`."""
        return self._inner.waiting()

    def peer_gone(self) -> bool:
        """See `Receiver.peer_gone`."""
        return self._inner.peer_gone()

    def close(self) -> None:
        """See `Receiver.close`."""
        self._inner.close()
