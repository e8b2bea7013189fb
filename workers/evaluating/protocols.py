"""How each classifier is fitted, with every number of it, for `evaluation.json`: a name would not reproduce it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipeline.config.evaluation import EvaluationConfig
from pipeline.evaluation import few_label, mlp
from pipeline.measures import linear
from pipeline.measures.protocols import INITIAL_STD, PROTOCOLS


def protocols_of(settings: EvaluationConfig) -> dict[str, dict[str, Any]]:
    """The protocol of each measure, by its name in the records; k-NN is left out, which `config` describes in full."""
    protocols: dict[str, dict[str, Any]] = {}
    for name in settings.linear:
        protocols[f"linear/{name}"] = _QUICK if name == "quick" else _of_papers(name, settings)
    if settings.mlp:
        protocols["mlp"] = _MLP | {"epochs": settings.epochs or mlp.EPOCHS}
    for share in settings.few_labels.shares:
        protocols[f"few_labels/{share:g}"] = _QUICK
        if settings.few_labels.unfrozen:
            protocols[f"few_labels/{share:g}/unfrozen"] = _FINE_TUNING
    return protocols


def _of_papers(name: str, settings: EvaluationConfig) -> dict[str, Any]:
    protocol = asdict(PROTOCOLS[name].with_epochs(settings.epochs))
    return {**protocol, "initial_std": INITIAL_STD, "augmented": settings.augmented}


_QUICK: dict[str, Any] = {
    "optimizer": "lbfgs",
    "iterations": linear.ITERATIONS,
    "l2": linear.L2,
    "features": "standardised",
}
_MLP: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": mlp.LEARNING_RATE,
    "weight_decay": mlp.WEIGHT_DECAY,
    "batch_size": mlp.BATCH_SIZE,
    "hidden": mlp.HIDDEN,
    "patience": mlp.PATIENCE,
    "held_out": mlp.HELD_OUT,
    "features": "standardised",
}
_FINE_TUNING: dict[str, Any] = {
    "optimizer": "sgd",
    "momentum": few_label.MOMENTUM,
    "batch_size": few_label.BATCH_SIZE,
    "schedule": "cosine_by_epoch",
    "initial_std": INITIAL_STD,
}
