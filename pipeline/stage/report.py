"""The report of a stage about one step, with the norms of its gradient and update, which not every step measures."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from math import isfinite

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from pipeline.engines import Engine
from pipeline.stage.digests import DigestName


@dataclass(frozen=True)
class StageReport:
    """One step of one stage.

    Args:
        loss: of this block, as it was minimised; None where it has none (a frozen block, or end to end).
        terms: the named parts of the loss.
        learning_rate: of this step; 0 where nothing moved.
        skipped: the loss or a gradient was not finite, and nothing moved.
        frozen: the stage keeps its weights throughout the run.
        gradient_norm, update_norm: see `StepNorms`; None where they were not measured.
        digests: see `StepDigests.taken`.
    """

    loss: float | None = None
    terms: dict[str, float] = field(default_factory=dict)
    _: KW_ONLY
    learning_rate: float = 0.0
    skipped: bool = False
    frozen: bool = False
    gradient_norm: float | None = None
    update_norm: float | None = None
    digests: dict[DigestName, str] = field(default_factory=dict)


class StepNorms:
    """Euclidean norms over all parameters of a stage together; what is only read here changes no bit of the training.

    The gradient is the average over the replicas, of the loss without the scale of fp16, and not clipped yet. The
    update is what the optimizer's step changed. To take it, a second copy of the parameters exists while it steps.
    Every replica has all gradients and all parameters, so each could measure for the whole stage, and the first does.

    Args:
        engine: of the stage.
        every: steps from one measurement to the next; 0 for never.
    """

    def __init__(self, engine: Engine, every: int) -> None:
        self._engine, self._every = engine, every
        self._due = False
        self._gradient: float | None = None
        self._before: list[Tensor] | None = None

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        """The gradients of `step` are there, and nothing has been done with them."""
        self._due = self._every > 0 and step % self._every == 0
        if self._due:
            self._gradient = self._engine.gradient_norm()
            parameters = self._engine.parameters()
            self._before = None if parameters is None else [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def after_step(self, moved: bool) -> tuple[float | None, float | None]:
        """Norms of gradient and update; None for what was not measured, was not finite, or did not happen."""
        if not self._due:
            return None, None
        gradient = self._gradient if self._gradient is not None else self._engine.stepped_gradient_norm()
        before, self._before, self._gradient, self._due = self._before, None, None, False
        if not moved:
            return None, None
        update = None
        if before is not None:
            torch._foreach_sub_(before, self._engine.parameters() or [])
            update = get_total_norm(before).item()
        return finite_or_none(gradient), finite_or_none(update)


def finite_or_none(value: float | None) -> float | None:
    """`value` where it is a finite number; JSON has no other."""
    return value if value is not None and isfinite(value) else None
