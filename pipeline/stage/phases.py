"""Which blocks learn at which step: all of them, or in mode sequential one after the other."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import Config


@dataclass(frozen=True)
class Phases:
    """The steps of a run, by block.

    Args:
        count: phases; 1 unless blocks are trained one after the other.
        steps: of each phase.
        schedule_steps: steps that the schedules of a block span; more than `steps` where train.max_steps cuts it short.
    """

    count: int
    steps: int
    schedule_steps: int

    @classmethod
    def of(cls, config: Config, steps_per_epoch: int) -> Phases:
        """The phases of a run."""
        planned = config.train.epochs * steps_per_epoch
        steps = min(planned, config.train.max_steps or planned)
        return cls(config.num_stages if config.mode == "sequential" else 1, steps, planned)

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.count * self.steps

    def learner(self, step: int) -> int | None:
        """The one stage, from 1, that learns at `step`; None if all do."""
        return None if self.count == 1 else step // self.steps + 1

    def local(self, step: int, stage: int) -> int:
        """`step` counted from the first at which `stage` learns, and held at its last."""
        return step if self.count == 1 else min(max(step - (stage - 1) * self.steps, 0), self.steps - 1)
