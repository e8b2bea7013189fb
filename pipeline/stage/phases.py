"""Which blocks learn at which step: all of them, or in mode sequential one after the other."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import Config


@dataclass(frozen=True)
class Phases:
    """The steps of a run, by block.

    Args:
        order: the stage that learns in each phase, from 1; empty where all that are not frozen learn at every step.
        steps: of each phase.
        schedule_steps: steps that the schedules of a block span; more than `steps` where train.max_steps cuts it short.
    """

    order: tuple[int, ...]
    steps: int
    schedule_steps: int

    @classmethod
    def of(cls, config: Config, steps_per_epoch: int) -> Phases:
        """The phases of a run."""
        planned = config.train.epochs * steps_per_epoch
        steps = min(planned, config.train.max_steps or planned)
        return cls(config.learners if config.mode == "sequential" else (), steps, planned)

    @property
    def count(self) -> int:
        """Phases; 1 unless blocks are trained one after the other."""
        return len(self.order) or 1

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.count * self.steps

    def learner(self, step: int) -> int | None:
        """The one stage, from 1, that learns at `step`; None if all do."""
        return self.order[step // self.steps] if self.order else None

    def first(self, stage: int) -> int:
        """The first step at which `stage` learns; of a frozen one, that of the next which does not stay as it is."""
        return sum(learner < stage for learner in self.order) * self.steps

    def local(self, step: int, stage: int) -> int:
        """`step` counted from the first at which `stage` learns, and held at its last."""
        return min(max(step - self.first(stage), 0), self.steps - 1) if self.order else step
