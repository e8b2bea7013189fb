"""What the two ends of a link tell each other before the first message, and how they compare it.

Both ends see both statements, so that a disagreement is reported in the same words on both sides.
"""

from __future__ import annotations

import json

from workers.links.base import LinkAddress, LinkMismatch
from workers.messages import TensorSpec

MAX_HELLO_BYTES = 16 * 1024


def hello_bytes(address: LinkAddress, spec: TensorSpec) -> bytes:
    """The statement of one end: name of the link, depth, largest tensor."""
    return json.dumps({"link": address.name, "depth": address.depth, "spec": str(spec)}).encode()


def compare_hellos(address: LinkAddress, sender: bytes, receiver: bytes) -> None:
    """Raise `LinkMismatch`, naming both ends and what each of them stated, unless they agree."""
    theirs, ours = _parse(address, sender), _parse(address, receiver)
    for key, noun in (("link", "as links"), ("spec", "for tensors"), ("depth", "with depths")):
        if theirs.get(key) != ours.get(key):
            raise LinkMismatch(
                f"{address}: the two ends were opened {noun} that differ: {theirs.get(key)} by {address.sender}, "
                f"{ours.get(key)} by {address.receiver}. Both must run the same configuration"
            )


def _parse(address: LinkAddress, hello: bytes) -> dict[str, object]:
    try:
        values = json.loads(hello)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise LinkMismatch(f"{address}: the other end did not introduce itself. Both must run the same version")
    return values
