"""The hellos that the two ends of a link exchange before the first message, and their comparison.

Both ends see both hellos, so that both report a disagreement in the same words.
"""

from __future__ import annotations

import json

from workers.links.base import LinkAddress, LinkMismatch
from workers.links.messages import TensorSpec
from workers.run.json_lines import parse_object

MAX_HELLO_BYTES = 16 * 1024


AGREED = {"link": "as links", "kind": "as kinds", "codec": "with codecs", "spec": "for tensors", "depth": "with depths"}
"""Settings that must be equal at both ends, and how an error message names each."""


def hello_bytes(address: LinkAddress, spec: TensorSpec, kind: str, codec: str, **own: str) -> bytes:
    """The hello of one end: name and kind of the link, codec, largest tensor on the wire, depth.

    Args:
        address, spec, kind, codec: with which the end was opened.
        own: further values for the other end, which may differ.
    """
    agreed = {"link": address.name, "kind": kind, "codec": codec, "spec": str(spec), "depth": address.depth}
    return json.dumps({**own, **agreed}).encode()


def parse_hello(address: LinkAddress, hello: bytes) -> dict[str, object]:
    """The values of a hello by key; raises `LinkMismatch` if the bytes are none."""
    values = parse_object(hello)
    if values is None:
        raise LinkMismatch(f"{address}: the other end did not introduce itself. Both must run the same version")
    return values


def compare_hellos(address: LinkAddress, sender: bytes, receiver: bytes) -> None:
    """Raise `LinkMismatch`, which names both ends and their settings, unless the settings are equal."""
    theirs, ours = parse_hello(address, sender), parse_hello(address, receiver)
    for key, noun in AGREED.items():
        if theirs.get(key) != ours.get(key):
            raise LinkMismatch(
                f"{address}: the two ends were opened {noun} that differ: {theirs.get(key)} by {address.sender}, "
                f"{ours.get(key)} by {address.receiver}. Both must run the same configuration"
            )
