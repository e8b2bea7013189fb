"""Calls every custom loss once before a run, so that its mistakes cost seconds and not a start."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.config.objectives import CustomConfig
from pipeline.errors import ConfigError, first_line
from pipeline.objectives import build_objective
from pipeline.objectives.base import Embeddings, Objective
from pipeline.objectives.loss_result import KEY
from pipeline.shapes import embedding_width


def try_custom_losses(config: Config) -> None:
    """Call every custom loss once on random embeddings, before anything starts.

    Raises:
        ConfigError: a loss cannot be built, fails, or returns something that cannot be trained on.
    """
    for index in range(1, config.num_stages + 1):
        stage = config.stage(index)
        if not isinstance(stage.objective, CustomConfig) or (config.mode == "end_to_end" and index < config.num_stages):
            continue
        width = embedding_width(config, stage)
        objective = build_objective(stage.objective, width, config.seed, index).train()
        _call(objective, stage.objective.kind, _random_embeddings(config, width))


def _random_embeddings(config: Config, width: int) -> Embeddings:
    source = torch.Generator().manual_seed(config.seed)

    def drawn() -> Tensor:
        return torch.randn(config.data.batch_size, width, generator=source).requires_grad_()

    views = tuple(drawn() for _ in range(config.num_views - config.has_patch))
    labels = torch.arange(config.data.batch_size) % 2 if config.uses_labels else None
    return Embeddings(views, labels=labels, patch=drawn() if config.has_patch else None)


def _call(objective: Objective, name: str, embeddings: Embeddings) -> None:
    try:
        loss, _ = objective(embeddings)
        loss.backward()
    except ConfigError:
        raise
    except Exception as error:
        shape = list(embeddings.views[0].shape)
        problem = f"'{name}' failed on {len(embeddings.views)} random embeddings of shape {shape} ({first_line(error)})"
        raise ConfigError(KEY, problem, "Correct it") from None
