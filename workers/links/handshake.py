"""What the two ends of a link tell each other before the first message, and how they compare it.

Both ends see both statements, so that a disagreement is reported in the same words on both sides.
"""

from __future__ import annotations

import json

from workers.links.base import LinkAddress, LinkMismatch
from workers.links.messages import TensorSpec

MAX_HELLO_BYTES = 16 * 1024


AGREED = {"link": "as links", "kind": "as kinds", "codec": "with codecs", "spec": "for tensors", "depth": "with depths"}
"""What both ends must state alike, and how a message says that they did not."""


def hello_bytes(address: LinkAddress, spec: TensorSpec, kind: str, codec: str, **own: str) -> bytes:
    """The statement of one end: name and kind of the link, codec, largest tensor on the wire, depth.

    Args:
        address, spec, kind, codec: as the end was opened.
        own: what the ends need to know of each other and need not agree on.
    """
    agreed = {"link": address.name, "kind": kind, "codec": codec, "spec": str(spec), "depth": address.depth}
    return json.dumps({**own, **agreed}).encode()


def parse_hello(address: LinkAddress, hello: bytes) -> dict[str, object]:
    """A statement by its keys; raises `LinkMismatch` if it is none."""
    try:
        values = json.loads(hello)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise LinkMismatch(f"{address}: the other end did not introduce itself. Both must run the same version")
    return values


def compare_hellos(address: LinkAddress, sender: bytes, receiver: bytes) -> None:
    """Raise `LinkMismatch`, naming both ends and what each of them stated, unless they agree."""
    theirs, ours = parse_hello(address, sender), parse_hello(address, receiver)
    for key, noun in AGREED.items():
        if theirs.get(key) != ours.get(key):
            raise LinkMismatch(
                f"{address}: the two ends were opened {noun} that differ: {theirs.get(key)} by {address.sender}, "
                f"{ours.get(key)} by {address.receiver}. Both must run the same configuration"
            )
