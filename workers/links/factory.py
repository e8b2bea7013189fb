"""Opens the two ends of a link of any kind; the only module that lists the kinds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch

from pipeline.stage.bit_flips import Exposed, untouched
from pipeline.stage.codecs import build_codec
from workers.links.base import LinkAddress, LinkBuffers, Receiver, Sender
from workers.links.checked import CheckedReceiver, CheckedSender
from workers.links.coded import CodedReceiver, CodedSender, encoded_spec, wire_spec
from workers.links.messages import TensorSpec

Kind = Literal["queue", "rpc", "p2p"]
CPU = torch.device("cpu")


def open_sender(
    kind: Kind,
    address: LinkAddress,
    spec: TensorSpec,
    timeout: float,
    codec: str = "none",
    device: torch.device = CPU,
    device_to_device: bool = True,
    *,
    lasting: Callable[[Callable[[], Sender]], Sender] | None = None,
    checksum: Literal["auto"] | bool = "auto",
) -> Sender:
    """Open the sending end; blocks until the receiving end is opened, too.

    Args:
        kind: `queue` for one host; `p2p` for any hosts; `rpc` for any hosts, after `rpc_agent.start_agent`.
        address: the same at both ends.
        spec: the largest tensor that will be sent.
        timeout: seconds.
        codec: encoding of activations (`pipeline.stage.codecs`); `none` for images.
        device: of the tensors that will be sent; a `p2p` or `queue` link between two GPUs does not copy them to the
            host.
        device_to_device: whether a `queue` may do so; else, as where it cannot, they go through pinned memory.
        lasting: makes of what opens the link, without its codec, an end that can open it again.
        checksum: whether messages carry one; `auto` if they are sent from a CPU.

    Raises:
        LinkTimeout: the other end was not opened in time.
        LinkMismatch: the two ends disagree on the kind, the codec, the spec, the depth or the key.
        LinkClosed: the other process ended meanwhile.
    """
    coder = build_codec(codec, spec.shape, spec.dtype)
    carried, codec = (spec, "none") if coder is None else (wire_spec(coder), codec)
    opening = partial(_open_sender, kind, address, carried, timeout, codec, device, device_to_device)
    sender = opening() if lasting is None else lasting(opening)
    if checksum is True or (checksum == "auto" and device.type == "cpu"):
        sender = CheckedSender(sender)
    return sender if coder is None else CodedSender(sender, coder)


def open_receiver(
    kind: Kind,
    address: LinkAddress,
    spec: TensorSpec,
    timeout: float,
    device: torch.device = CPU,
    codec: str = "none",
    device_to_device: bool = True,
    exposed: Exposed = untouched,
) -> Receiver:
    """Open the receiving end, which checks the messages that carry a checksum; see `open_sender`.

    Args:
        kind, address, spec, timeout, codec, device_to_device: as `open_sender`.
        device: that received tensors are moved to.
        exposed: see `CheckedReceiver`.
    """
    coder = build_codec(codec, spec.shape, spec.dtype)
    carried, codec = (spec, "none") if coder is None else (wire_spec(coder), codec)
    inner = _open_receiver(kind, address, carried, timeout, codec, device, device_to_device)
    receiver = CheckedReceiver(inner, exposed)
    return receiver if coder is None else CodedReceiver(receiver, coder)


def link_buffers(kind: Kind, spec: TensorSpec, depth: int, codec: str = "none", ring: bool = False) -> LinkBuffers:
    """What a link holds that carries tensors of `spec`; arguments as those of `open_sender`.

    Args:
        ring: the slots of a `queue` are on the receiver's GPU.
    """
    spec = encoded_spec(codec, spec)
    if kind == "rpc":
        from workers.links.rpc import rpc_buffers

        return rpc_buffers(spec, depth)
    if kind == "p2p":
        from workers.links.p2p import p2p_buffers

        return p2p_buffers(spec, depth)
    from workers.links.queue import queue_buffers

    return queue_buffers(spec, depth, ring)


# Each kind is imported when it is used, so that a run over shared memory does not load the RPC framework.
def _open_sender(
    kind: Kind,
    address: LinkAddress,
    spec: TensorSpec,
    timeout: float,
    codec: str,
    device: torch.device,
    device_to_device: bool,
) -> Sender:
    if kind == "rpc":
        from workers.links.rpc import open_rpc_sender

        return open_rpc_sender(address, spec, timeout, codec)
    if kind == "p2p":
        from workers.links.p2p import open_p2p_sender

        return open_p2p_sender(address, spec, timeout, codec, device)
    from workers.links.queue import open_queue_sender

    return open_queue_sender(address, spec, timeout, codec, device, device_to_device)


def _open_receiver(
    kind: Kind,
    address: LinkAddress,
    spec: TensorSpec,
    timeout: float,
    codec: str,
    device: torch.device,
    device_to_device: bool,
) -> Receiver:
    if kind == "rpc":
        from workers.links.rpc import open_rpc_receiver

        return open_rpc_receiver(address, spec, timeout, codec, device)
    if kind == "p2p":
        from workers.links.p2p import open_p2p_receiver

        return open_p2p_receiver(address, spec, timeout, codec, device)
    from workers.links.queue import open_queue_receiver

    return open_queue_receiver(address, spec, timeout, codec, device, device_to_device)
