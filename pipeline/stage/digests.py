"""Digests of a stage's steps: of what came in, the loss, the gradient and the weights, and a chain of all of them.

    input      the batch as it came, all views; of stage 1 the images
    loss       its bits
    gradient   of every parameter that has one, as the optimizer takes it: of the whole batch, unscaled and clipped
    weights    after the step: parameters and buffers, those of a target network too
    chain      of the chain of the step that was recorded before and these four

Two runs whose chains are equal after a step have had equal bits at every recorded step until then. Replicas record
what one process would: of its rows of the input each adds a part, and what all of them have the first one records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipeline.replicas import ReplicaGroup
from pipeline.stage.fold import WORD, Fold, as_text, integers_of

Digested = Literal["input", "loss", "gradient", "weights"]
DIGESTED: tuple[Digested, ...] = get_args(Digested)
"""In the order in which a step has them."""
DigestName = Digested | Literal["chain"]


class StepDigests:
    """Of one stage; a step that is not recorded costs nothing, and one that is waits for its device once.

    Args:
        every: steps from one that is recorded to the next; 0 for none.
        team: the replicas of the stage.
        device: of the stage.
    """

    def __init__(self, every: int, team: ReplicaGroup, device: torch.device) -> None:
        self._every, self._team = every, team
        self._fold = Fold(device) if every else None
        self._sums: dict[Digested, Tensor] = {}
        self._position = 0
        self.due = False
        """Whether the step that has begun is recorded."""
        self.chain = ""
        """Of the last step that was recorded, also in the run that this one goes on with; empty before the first."""

    def begin(self, step: int) -> None:
        """A step has begun, counted from 0; the last one of each `every` is recorded."""
        self.due = bool(self._every) and (step + 1) % self._every == 0
        self._sums, self._position = {}, 0

    def add_view(self, view: Tensor) -> None:
        """This replica's rows of the next view of the input, `[B, ...]`."""
        if not self.due or self._fold is None:
            return
        rows = _whole_words(view)
        words = rows.nbytes // WORD
        sums = self._fold.of([rows], self._position + self._team.rank * words)
        self._sums["input"] = self._sums["input"] + sums if "input" in self._sums else sums
        self._position += self._team.size * words

    def add(self, what: Digested, tensors: Iterable[Tensor] | None) -> None:
        """What all replicas have; None where no replica has the whole."""
        if self.due and self._fold is not None and tensors is not None and self._team.rank == 0:
            self._sums[what] = self._fold.of(list(tensors))

    def taken(self, step: int) -> dict[DigestName, str]:
        """The digests of the step that ends, each of 32 hexadecimal digits, and the chain with it.

        Empty where it is not recorded, and for all replicas but the first. Of a stage that does not learn at this step
        there are neither loss nor gradient; of a step that was skipped there is no gradient.

        Raises:
            ReplicaLost: another replica does not answer.
        """
        if not self.due:
            return {}
        self.due = False
        self._sums["input"] = self._team.total(self._sums["input"])
        if self._team.rank:
            return {}
        names = [name for name in DIGESTED if name in self._sums]
        read = torch.stack([self._sums[name] for name in names]).tolist()
        found: dict[DigestName, str] = dict(zip(names, map(as_text, read), strict=True))
        said = f"{self.chain} {step} " + " ".join(found.get(name, "-") for name in DIGESTED)
        self.chain = hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
        return {**found, "chain": self.chain}


def _whole_words(view: Tensor) -> Tensor:
    """The view, or its bits with zeros after each row where a row is no whole number of words: its sum is then that of
    parts which have some of its rows each."""
    missing = -(view.nbytes // len(view)) % WORD
    if not missing:
        return view
    return pad(integers_of(view).view(len(view), -1).view(torch.uint8), (0, missing))
