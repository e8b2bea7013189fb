"""Checks of frozen stages: which of them a run can train beside, and what they leave without effect."""

from __future__ import annotations

from pipeline.config import Config
from pipeline.errors import ConfigError


def check_frozen(config: Config) -> None:
    """Raises `ConfigError` where `stages.K.frozen` leaves nothing to train, or no way to train it."""
    frozen = [index for index in range(1, config.num_stages + 1) if config.is_frozen(index)]
    if not frozen:
        return
    last = f"stages.{config.num_stages}.frozen"
    if not config.learners:
        raise ConfigError(last, "all stages are frozen, so nothing is trained", "Let one of them learn")
    if config.mode != "simultaneous" and frozen[-1] == config.num_stages:
        why = "end to end the loss is at the last block" if config.mode == "end_to_end" else "no batch would reach it"
        raise ConfigError(last, f"in mode {config.mode} the last stage cannot be frozen: {why}", "Leave it out")
    if config.mode == "end_to_end" and config.stage(config.num_stages).objective.kind == "byol":
        problem = "in mode end_to_end the target of byol is a copy of all blocks that is always in training mode"
        raise ConfigError(f"stages.{frozen[0]}.frozen", problem, "Give another objective, or another mode")


def initial_notes(config: Config) -> list[str]:
    """A sentence for every stage that is frozen as it was drawn at random."""
    return [
        f"stage {index} is frozen with random weights: stages.{index}.init_from=FILE gives it others"
        for index in range(1, config.num_stages + 1)
        if config.is_frozen(index) and config.stage(index).init_from.path is None
    ]
