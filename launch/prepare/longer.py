"""Whether a run may be trained longer than was first planned: only if no step that is planned would change."""

from __future__ import annotations

from collections.abc import Collection

from pipeline.config import Config
from pipeline.config.objectives import BYOLConfig

LENGTH = ("train.epochs", "train.max_steps", "train.restarts")


def trains_longer(config: Config, earlier: Config) -> bool:
    """Whether `config` plans other steps than the run that it goes on with."""
    before, after = earlier.train, config.train
    return (before.epochs, before.max_steps) != (after.epochs, after.max_steps)


def why_not_longer(config: Config, earlier: Config, changed: Collection[str]) -> str | None:
    """Why `config` is not the `earlier` run, trained longer, and how it could be; None if it is.

    Args:
        config, earlier: of the run as it is wanted, and as it was begun.
        changed: the keys in which they differ; of those that decide the numbers.
    """
    if not set(changed) <= set(LENGTH):
        return "More than its length differs"
    before, after = earlier.train, config.train
    if config.mode == "sequential":
        return "In mode sequential every block has its turn, and a longer one would shift all that follow"
    no_limit = float("inf")
    if after.epochs < before.epochs or (after.max_steps or no_limit) < (before.max_steps or no_limit):
        return "It can become longer, not shorter: stop it (Ctrl-C) where it is to end"
    if after.epochs == before.epochs:
        return None if after.restarts == before.restarts else "The schedule of what is planned would be another"
    if after.restarts not in (before.restarts, (*before.restarts, before.epochs)):
        return "The schedule of what is planned would be another"
    begin_anew = ",".join(map(str, (*before.restarts, before.epochs)))
    for index in config.learners:
        stage = config.stage(index)
        if after.restarts == before.restarts and stage.optimizer.schedule == "cosine":
            epochs = max(after.epochs, before.epochs + int(stage.optimizer.warmup_epochs) + 1)
            return (
                f"The learning rate of stage {index} is a cosine that spans the {before.epochs} epochs. Let it begin "
                f"anew behind them: train.epochs={epochs} train.restarts=[{begin_anew}]"
            )
        if stage.noise.kind != "none" and stage.noise.schedule != "constant":
            return f"The noise of stage {index} changes over the {before.epochs} epochs (noise.schedule)"
        if isinstance(stage.objective, BYOLConfig) and stage.objective.momentum_schedule != "constant":
            return f"The target's momentum at stage {index} changes over the {before.epochs} epochs"
    return None
