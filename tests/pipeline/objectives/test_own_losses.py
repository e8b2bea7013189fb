"""A loss of the user's own: its natural mistakes are accepted, or named in our words, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.objectives import Embeddings, build_objective
from pipeline.objectives.custom_losses import try_custom_losses
from pipeline.objectives.loss_result import checked_result
from tests.pipeline.small import small_config

LOSSES = """
import torch
from pipeline.objectives import Objective


class Own(Objective):
    def __init__(self, width, returns="pair"):
        super().__init__()
        self.returns = returns

    def forward(self, embeddings):
        one, other = embeddings.views[:2]
        loss = (one - other).square().mean()
        return {
            "pair": (loss, {"distance": loss.detach()}),
            "alone": loss,
            "numbers": (loss, {"x": 1.5, "n": 2}),
            "one number in a tensor": (loss.reshape(1, 1), {"x": torch.ones(1)}),
            "number": loss.item(),
            "vector": (one - other).square().mean(dim=1),
            "detached": (loss.detach(), {}),
            "no dict": (loss, 1.0),
            "vector for a term": (loss, {"x": one}),
            "text for a term": (loss, {"x": "low"}),
            "three": (loss, {}, 1),
        }[self.returns] if self.returns != "raises" else one @ other
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "losses_of_a_user.py").write_text(LOSSES)
    monkeypatch.syspath_prepend(str(tmp_path))


def config(returns: str, **sections: Any) -> Any:
    return small_config(objective={"kind": "losses_of_a_user:Own", "options": {"returns": returns}}, **sections)


@pytest.mark.parametrize(
    ("returns", "terms"),
    [
        ("pair", ["distance"]),
        ("alone", []),
        ("numbers", ["x", "n"]),
        ("one number in a tensor", ["x"]),
    ],
)
def test_what_can_be_meant_is_taken(returns: str, terms: list[str]) -> None:
    own = config(returns)
    try_custom_losses(own)
    objective = build_objective(own.objective, 16, 0, 1)
    loss, found = objective(Embeddings(tuple(torch.randn(8, 16, requires_grad=True) for _ in "ab")))
    assert loss.shape == ()
    assert loss.requires_grad
    assert list(found) == terms
    assert all(isinstance(term, torch.Tensor) and term.shape == () for term in found.values())


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ("number", r"returned a float\. It must return \(loss, \{name: number\}\), or the loss alone"),
        ("vector", r"returned a loss of shape \[8\]\. Take its mean or its sum|the mean or the sum"),
        ("detached", r"returned a loss that has no gradient: it is detached"),
        ("no dict", r"returned its terms as a float"),
        ("vector for a term", r"the term 'x' of '.*' is a tensor of shape \[8, 16\]\. Give a number"),
        ("text for a term", r"the term 'x' of '.*' is a str"),
        ("three", r"returned a tuple of 3"),
        ("raises", r"failed on 2 random embeddings of shape \[8, 16\] \(RuntimeError: .*\)\. Correct it"),
    ],
)
def test_a_mistake_is_named_before_anything_starts(returns: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^objective\.kind: '?.*{message}"):
        try_custom_losses(config(returns))


def test_every_stage_that_has_one_is_tried_and_no_other() -> None:
    try_custom_losses(small_config())
    try_custom_losses(config("pair", mode="end_to_end"))
    own = {"kind": "losses_of_a_user:Own", "options": {"returns": "vector"}}
    with pytest.raises(ConfigError, match=r"returned a loss of shape"):
        try_custom_losses(small_config(stages={"3": {"objective": own}}))


def test_without_gradients_a_loss_needs_none() -> None:
    with torch.no_grad():
        loss, terms = checked_result("own", (torch.tensor(2.0), {}))
    assert (loss.item(), terms) == (2.0, {})
