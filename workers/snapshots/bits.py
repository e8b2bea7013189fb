"""Which versions of Onward compute the same bits: a run that goes on across a change says so. No torch here.

CHANGELOG has the table of the changes, with the reason for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import Config


@dataclass(frozen=True)
class Change:
    """Something after which a run computes other bits.

    Args:
        what: in words.
        concerns: whether a run is one of those.
    """

    what: str
    concerns: Callable[[Config], bool]


CHANGES = {
    2: Change(
        "each view's head casts its weights for itself",
        lambda config: any(config.stage(k).precision.dtype != "fp32" for k in range(1, config.num_stages + 1)),
    ),
}
"""By the version of the bits that it led to."""
BITS = max(CHANGES)
"""The version of the bits that this code computes; 1 is that of snapshots which say nothing."""


def bits_note(config: Config, written: int) -> str | None:
    """A sentence for a run that goes on from a snapshot of other bits; None where they are the same for this run."""
    if written > BITS:
        return f"the snapshot is of a later version (bits {written}, here {BITS}): the run may go on to other bits"
    changes = [change.what for number, change in CHANGES.items() if number > written and change.concerns(config)]
    if not changes:
        return None
    return (
        f"the snapshot is of an earlier version (bits {written}, here {BITS}), so the run goes on to other bits than "
        f"that version would: {'; '.join(changes)}"
    )
