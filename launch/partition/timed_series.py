"""Timed steps of a stage of one unit, as many as there is time for, and what follows for a step of the whole batch.

Where time or memory do not suffice for the batch of the run, steps of half of it are timed, or of a quarter, ..., and
steps of a few images. The whole is halfway between the straight line through both, as a part of the time is spent on
weights, for however many images, and the power of the images through both, as kernels reach more of the processor with
more of them: for a ResNet-50 of 96 pixels in batches of 32, the first is up to 25 % too much and the second up to 10 %
too little, by hand from 4 and 8 images.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median

import torch
from torch import Tensor

from launch.partition.timed_steps import TimedPart, TimedStage, repeated
from launch.plan.gpus import available_memory

FEW = 4
"""Images of the first steps, or a sixteenth of the batch if that is more: they show how many there is time for."""
LEAST, MOST = 1, 9
"""Timed steps of each kind."""
NOISE = 1.0
"""Level of the noise; where a stage has none the level has no effect."""
Seconds = Mapping[TimedPart, float]


@dataclass(frozen=True, kw_only=True)
class TimedSteps:
    """Timed steps of one kind.

    Args:
        batch: images of a step of the run.
        rows: images of these.
        steps: the seconds of their parts; where there are norms to be measured, the first step measured them.
        norms_every: steps from one of the run that measures its norms to the next; 0 for never.
        fewer: the same steps of fewer images, where `rows` is less than `batch`.
    """

    batch: int
    rows: int
    steps: Sequence[Seconds]
    norms_every: int = 0
    fewer: TimedSteps | None = None

    def of_image(self, *parts: TimedPart) -> float:
        """Seconds of these parts together for one image of a whole batch."""
        here = self._of_parts(self.steps, parts)
        less = 0.0 if self.fewer is None else self._of_parts(self.fewer.steps, parts)
        if self.fewer is None or not 0 < less < here:  # or what is measured is lost in what it varies by
            return here / self.rows
        line = here + (here - less) / (self.rows - self.fewer.rows) * (self.batch - self.rows)
        exponent = min(log(here / less) / log(self.rows / self.fewer.rows), 1.0)
        power = here * exp(exponent * log(self.batch / self.rows))
        return (line + power) / 2 / self.batch

    def of_step(self, *parts: TimedPart) -> float:
        """Seconds of parts that take as long for any number of images, with their share of the norms."""
        if not self.norms_every or len(self.steps) == 1:
            return self._of_parts(self.steps, parts)
        plain, due = self._of_parts(self.steps[1:], parts), self._of_parts(self.steps[:1], parts)
        return plain + max(due - plain, 0.0) / self.norms_every

    @staticmethod
    def _of_parts(steps: Sequence[Seconds], parts: Sequence[TimedPart]) -> float:
        return median(sum(step.get(part, 0.0) for part in parts) for step in steps)


class StepSeries:
    """Times steps of one stage.

    Args:
        timed: the stage.
        views: images, or activations, that enter it, `[B, ...]` each; they are repeated where they are too few.
        batch: images of a step of the run.
        norms_every: see `TimedSteps`.
        labelled: whether the objective is given labels.
        seconds: that all of it may take.
    """

    def __init__(
        self,
        timed: TimedStage,
        views: Sequence[Tensor],
        *,
        batch: int,
        norms_every: int,
        labelled: bool,
        seconds: float,
    ) -> None:
        self.timed, self._views, self._batch, self._norms_every = timed, views, batch, norms_every
        self._device, self._labelled, self._seconds = timed.stage.compute.device, labelled, seconds
        self._ends = time.monotonic() + seconds
        self.few = min(batch, max(FEW, batch // 16))
        few, many = self._kept(self.few), self._kept(2 * self.few)  # what they have in common is of no image
        self.kept_of_unit, self.kept_of_end = ((more - less) // self.few for less, more in zip(few, many, strict=True))
        """Bytes that autograd keeps for one image of the unit, its output included, and of what follows it but the
        loss."""

    def _kept(self, rows: int) -> tuple[int, int]:
        with self.timed.counting_kept() as kept:
            self._step(rows, 0, inside=True)
            return kept("unit"), kept("forward") + kept("head")

    def run(self, *kinds: bool) -> tuple[TimedSteps, ...]:
        """Steps with (`True`) and without the gradient of the input, by turns."""
        rows = self._rows(len(kinds))
        less = self._turns(kinds, self.few, ends=0.0) if self.few < rows < self._batch else None
        more = self._turns(kinds, rows, self._ends)
        return tuple(
            TimedSteps(
                batch=self._batch,
                rows=rows,
                steps=more[number],
                norms_every=self._norms_every,
                fewer=None if less is None else TimedSteps(batch=rows, rows=self.few, steps=less[number]),
            )
            for number in range(len(kinds))
        )

    def loss(self, rows: int) -> float:
        """Seconds of the loss of a whole batch.

        It need not be in proportion to the images; where it would take too long it is on the straight line through
        those of two smaller batches.

        Args:
            rows: images of the last step.
        """
        half = max(rows // 2, 2)
        if half < rows < self._batch:
            few, many = self._loss(half), self._loss(rows)
            line = many + (many - few) / (rows - half) * (self._batch - rows)
            if line * (LEAST + 1) > self._seconds:
                return max(line, many)
        return self._loss(self._batch)

    def _loss(self, rows: int) -> float:
        labels = self._labels(rows)
        return median([self.timed.loss(rows, labels) for _ in range(LEAST + 2)][1:])

    def _rows(self, kinds: int) -> int:
        """Images of a step of which there is room for one and time for `LEAST` of every kind; the last one computed."""

        def seconds(rows: int) -> float:
            began = time.monotonic()
            self._step(rows, 0, inside=True)
            return time.monotonic() - began

        of_image, rows = seconds(self.few) / self.few, self._batch  # more than of many
        room, steps = _room(self._device) // max(self.kept_of_unit + self.kept_of_end, 1), 1 + LEAST * kinds
        while rows > self.few and (steps * rows * of_image > self._seconds or rows > room):
            rows = max(rows // 2, self.few)
        while rows > self.few and LEAST * kinds * seconds(rows) > self._seconds:
            rows = max(rows // 2, self.few)
        return rows

    def _turns(self, kinds: Sequence[bool], rows: int, ends: float) -> list[list[Seconds]]:
        done: list[list[Seconds]] = [[] for _ in kinds]
        for turn in range(MOST):
            if turn >= LEAST and time.monotonic() > ends:
                break
            for steps, kind in zip(done, kinds, strict=True):
                steps.append(self._step(rows, turn, inside=kind))
        return done

    def _step(self, rows: int, turn: int, *, inside: bool) -> Seconds:
        number = max(self._norms_every, 1) * turn + bool(turn)  # the norms are due at the first turn alone
        batch = [repeated(view.to(self._device), rows) for view in self._views]
        while True:
            seconds = self.timed.step(batch, number, NOISE, labels=self._labels(rows), inside=inside)
            if not self.timed.skipped:  # else the scale of fp16 is still too large
                return seconds

    def _labels(self, rows: int) -> Tensor | None:
        return torch.zeros(rows, dtype=torch.int64, device=self._device) if self._labelled else None


def _room(device: torch.device) -> int:
    """Bytes that what autograd keeps may take: a third of what there is, as gradients and workspaces come to it."""
    if device.type != "cuda":
        return available_memory() // 3
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by the allocator
    return int(torch.cuda.mem_get_info(device)[0] + unused) // 3
