"""Which settings of an evaluation change which of its numbers, so that a comparison can warn where they differ."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from launch.prepare.config_differences import flatten
from launch.results.measure_names import clean
from pipeline.evaluation.document import EvaluationResults
from pipeline.validation.pydantic_errors import shown

CHOICES = (
    "linear_probe", "batch_size", "workers", "places", "blocks", "checkpoint", "cache", "linear", "mlp", "knn.k",
    "few_labels.shares", "quality.enabled", "quality.places", "transfer", "online", "plots",
)  # fmt: skip
"""Settings that say what is measured and how fast, and change no number."""
_UNDRAWN = ("linear/quick", "knn/")
"""Measures that use no random numbers and have no epochs."""
_TRAINED = ("linear", "mlp", "few_labels")
_FAMILY_OF = {"corruptions": "corruption"}
"""Sections whose measures have another name."""


def other_settings(first: EvaluationResults, other: EvaluationResults, measures: Collection[str]) -> Iterator[str]:
    """The differences in settings and data that change one of the measures, as `KEY is X there, Y here`."""
    before, after = flatten(first.config), flatten(other.config)
    for key in dict.fromkeys((*before, *after)):
        if before.get(key) != after.get(key) and any(affects(key, measure) for measure in measures):
            yield f"evaluation.{clean(key)} is {shown(before.get(key))} there, {shown(after.get(key))} here"
    for name in ("name", "train_images", "test_images", "classes"):
        there, here = getattr(first.data, name), getattr(other.data, name)
        if there != here and there and here:  # 0: not known
            yield f"data: {name} is {shown(there)} there, {shown(here)} here"


def affects(key: str, measure: str) -> bool:
    """Whether a setting changes the numbers of a measure; a setting that is not listed here does.

    Args:
        key: dotted, below `evaluation`.
        measure: such as `linear/blockwise`.
    """
    section, _, below = key.partition(".")
    family = measure.split("/")[0]
    if any(key == choice or key.startswith(f"{choice}.") for choice in CHOICES):
        return False
    if section == "seed":
        return not measure.startswith(_UNDRAWN)
    if section in ("epochs", "augmented"):
        return family in _TRAINED and not measure.startswith(_UNDRAWN)
    return family == _FAMILY_OF.get(section, section) if below else True
