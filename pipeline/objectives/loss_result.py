"""Checks and normalises the return value of a custom loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.errors import ConfigError

KEY = "objective.kind"
FORM = "It must return (loss, {name: number}), or the loss alone"


def checked_result(name: str, returned: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, a scalar, and its terms, detached scalars.

    Args:
        name: of the class, for messages.
        returned: the return value of `forward`: a loss alone, or with a dict of terms, which may be numbers.

    Raises:
        ConfigError: the value is something else, or the loss has no gradient.
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
        raise ConfigError(
            KEY, problem, "Compute it from embeddings.views, without .detach(), .item() or torch.no_grad()"
        )
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
