"""Opens the two ends of a link of either kind; the only place that knows which kinds there are."""

from __future__ import annotations

from typing import Literal

import torch

from workers.links.base import LinkAddress, Receiver, Sender
from workers.messages import TensorSpec

Kind = Literal["queue", "rpc"]
CPU = torch.device("cpu")


def open_sender(kind: Kind, address: LinkAddress, spec: TensorSpec, timeout: float) -> Sender:
    """Open the sending end; blocks until the receiving end has been opened too.

    Args:
        kind: `queue` on one host; `rpc` on any, once `agent.start_agent` has returned.
        address: the same at both ends.
        spec: the largest tensor that will be sent.
        timeout: seconds.

    Raises:
        LinkTimeout: the other end was not opened in time.
        LinkMismatch: the two ends disagree on the spec, the depth or the key.
        LinkClosed: the other process ended meanwhile.
    """
    # Each kind is imported when it is used: a run over shared memory never loads the RPC framework.
    if kind == "rpc":
        from workers.links.rpc import open_rpc_sender

        return open_rpc_sender(address, spec, timeout)
    from workers.links.queue import open_queue_sender

    return open_queue_sender(address, spec, timeout)


def open_receiver(
    kind: Kind, address: LinkAddress, spec: TensorSpec, timeout: float, device: torch.device = CPU
) -> Receiver:
    """Open the receiving end; see `open_sender`.

    Args:
        device: where received tensors are wanted.
    """
    if kind == "rpc":
        from workers.links.rpc import open_rpc_receiver

        return open_rpc_receiver(address, spec, timeout, device)
    from workers.links.queue import open_queue_receiver

    return open_queue_receiver(address, spec, timeout, device)
