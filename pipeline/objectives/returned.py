"""What a loss of the user's own returns, made regular or named in our words; and a first try of it before a run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.config.objectives import Custom
from pipeline.config_checks import embedding_width
from pipeline.errors import ConfigError
from pipeline.importing import first_line
from pipeline.objectives.base import Embeddings, Objective

KEY = "objective.kind"
FORM = "It must return (loss, {name: number}), or the loss alone"


def regular(name: str, returned: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, a scalar, and its terms, detached scalars.

    Args:
        name: of the class, for messages.
        returned: by its `forward`: a loss alone, or with a dict of terms, which may be numbers.

    Raises:
        ConfigError: it is something else, or the loss does not depend on what is trained.
    """
    loss, terms = returned if isinstance(returned, tuple | list) and len(returned) == 2 else (returned, {})
    if not isinstance(loss, Tensor):
        raise ConfigError(KEY, f"'{name}' returned {_kind(returned)}", FORM)
    if loss.numel() != 1:
        raise ConfigError(
            KEY, f"'{name}' returned a loss of shape {list(loss.shape)}", "Take the mean or the sum of it"
        )
    if torch.is_grad_enabled() and not loss.requires_grad:
        problem = f"'{name}' returned a loss that has no gradient: it is detached, or computed without the embeddings"
        raise ConfigError(KEY, problem, "Compute it of embeddings.views, without .detach(), .item() or torch.no_grad()")
    if not isinstance(terms, dict):
        raise ConfigError(KEY, f"'{name}' returned its terms as {_kind(terms)}", FORM)
    return loss.reshape(()), {str(key): _number(name, key, value) for key, value in terms.items()}


def _number(name: str, key: object, value: Any) -> Tensor:
    if isinstance(value, int | float):
        return torch.tensor(float(value))
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.detach().reshape(())
    raise ConfigError(KEY, f"the term '{key}' of '{name}' is {_kind(value)}", "Give a number, or a tensor of one")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def try_own_losses(config: Config) -> None:
    """Call every loss of the user's own once on random embeddings, before anything starts.

    Raises:
        ConfigError: it cannot be made, fails, or returns what cannot be trained on.
    """
    from pipeline.objectives import build_objective

    for index in range(1, config.num_stages + 1):
        stage = config.stage(index)
        if not isinstance(stage.objective, Custom) or (config.mode == "end_to_end" and index < config.num_stages):
            continue
        width = embedding_width(config, stage)
        own = build_objective(stage.objective, width, config.seed, index).train()
        _call(own, stage.objective.kind, _random_embeddings(config, width))


def _random_embeddings(config: Config, width: int) -> Embeddings:
    source = torch.Generator().manual_seed(config.seed)

    def drawn() -> Tensor:
        return torch.randn(config.data.batch_size, width, generator=source).requires_grad_()

    views = tuple(drawn() for _ in range(config.num_views - config.has_patch))
    labels = torch.arange(config.data.batch_size) % 2 if config.uses_labels else None
    return Embeddings(views, labels=labels, patch=drawn() if config.has_patch else None)


def _call(own: Objective, name: str, embeddings: Embeddings) -> None:
    try:
        loss, _ = own(embeddings)
        loss.backward()
    except ConfigError:
        raise
    except Exception as error:
        shape = list(embeddings.views[0].shape)
        problem = f"'{name}' failed on {len(embeddings.views)} random embeddings of shape {shape} ({first_line(error)})"
        raise ConfigError(KEY, problem, "Correct it") from None
