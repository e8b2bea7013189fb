"""Errors of linear classifiers, fitted on clean images, on corrupted ones: of every block, in one pass per corruption.

The corrupted images are computed, keyed by (`evaluation.seed`, corruption, severity, image), or read from
`evaluation.corruptions.folder`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config.places import Place
from pipeline.data.sets.datasets import ImageDataset
from pipeline.errors import ConfigError
from pipeline.evaluation.corrupted_sets import CorruptedSets
from pipeline.evaluation.corruptions.corrupt import corrupt
from pipeline.evaluation.corruptions.errors import CorruptionLevel, PlaceErrors, corruption_records, errors_of
from pipeline.evaluation.corruptions.names import resolve
from pipeline.evaluation.corruptions.parameters import edition_for
from pipeline.evaluation.document import EvaluationResults, Record
from pipeline.evaluation.task import Task
from pipeline.measures.linear import LinearClassifier, fit_linear_probe
from workers.evaluating.context import Context
from workers.evaluating.extraction import Batch, evaluation_load, whole_batches
from workers.run.compute import cpu_threads

PIECE = 64
"""Clean views that are made at once, for all corruptions of them."""
DOCUMENT = "evaluation.json"
Baseline = Mapping[Place, PlaceErrors]
Corrupted = Iterator[tuple[CorruptionLevel, Tensor, Mapping[Place, Tensor]]]
"""For one batch: corruption and severity, the labels int64 `[B]`, and the features `[B, D]` at each place."""


@dataclass(frozen=True)
class CorruptionPlan:
    """The corruptions that are to be measured, after all checks.

    Args:
        names, severities: of the corruptions; without names nothing is measured.
        sets: where the images are read from; None computes them.
        baseline: errors that the mean corruption error is relative to.
    """

    names: tuple[str, ...]
    severities: tuple[int, ...]
    sets: CorruptedSets | None
    baseline: Baseline | None

    @property
    def pairs(self) -> list[CorruptionLevel]:
        """Every corruption at every severity."""
        return [(name, severity) for name in self.names for severity in self.severities]


def plan_corruptions(context: Context) -> CorruptionPlan:
    """Check everything that can be wrong, before anything is measured.

    Raises:
        ConfigError: no such corruption, a folder without the images asked for, or a baseline that lacks their errors.
        UserError: the test images or the baseline cannot be read.
    """
    settings = context.settings.corruptions
    names, severities = resolve(settings.names), tuple(sorted(set(settings.severities)))
    if not names:
        return CorruptionPlan((), severities, None, None)
    if not severities:
        raise ConfigError("evaluation.corruptions.severities", "no severity is given", "Give some of 1 to 5")
    sets = None
    if settings.folder is not None:
        sets = CorruptedSets(settings.folder, names, severities, context.test_images)
    plan = CorruptionPlan(names, severities, sets, None)
    if settings.baseline is None:
        return plan
    return CorruptionPlan(names, severities, sets, _baseline(Path(settings.baseline).expanduser(), context, plan))


def measure_corruptions(context: Context) -> list[Record]:
    """The corruption benchmark at every place; see `pipeline.evaluation.corruptions.errors` for its records.

    Its settings go to `context.corruptions`.

    Raises:
        ConfigError, UserError: as `plan_corruptions`; also if there are no labels, an image cannot be read, or features
            are not finite.
    """
    plan = plan_corruptions(context)
    if not plan.names:
        return []
    task = Task(context.train, context.test, context.data_name)
    classifiers = _classifiers(context, task)
    errors_at = {place: PlaceErrors(_clean_error(context, task, place, one)) for place, one in classifiers.items()}
    for pair, errors in _errors(context, plan, classifiers).items():
        for place, error in errors.items():
            errors_at[place].corrupted[pair] = error
    _describe(context, plan)
    return [
        record
        for place, errors in errors_at.items()
        for record in corruption_records(
            context.data_name, place, errors, (plan.baseline or {}).get(place), plan.names, plan.severities
        )
    ]


def _describe(context: Context, plan: CorruptionPlan) -> None:
    settings = context.settings.corruptions
    context.corruptions.update(
        names=list(plan.names),
        severities=list(plan.severities),
        images=settings.folder or f"computed with the parameters of {edition_for(context.data.image_size)}",
        baseline=settings.baseline,
    )
    alone = [str(place) for place in context.places if plan.baseline is not None and place not in plan.baseline]
    if alone:
        context.note(f"no errors relative to '{settings.baseline}' for {', '.join(alone)}: it was not measured there")


def _baseline(run: Path, context: Context, plan: CorruptionPlan) -> Baseline:
    path = run / DOCUMENT
    document = EvaluationResults.read(path)
    measured = errors_of(document.results, context.data_name)
    shared = {place: errors for place, errors in measured.items() if place in context.places}
    if not shared:
        raise ConfigError(
            "evaluation.corruptions.baseline",
            f"'{path}' has no corruption errors of {context.data_name} at any of {', '.join(map(str, context.places))}",
            "Evaluate that run first, with the same evaluation.corruptions and evaluation.places",
        )
    for place, errors in shared.items():
        missing = [f"{name}/{severity}" for name, severity in plan.pairs if (name, severity) not in errors.corrupted]
        if missing:
            raise ConfigError(
                "evaluation.corruptions.baseline",
                f"'{path}' has no errors of {', '.join(missing[:5])} at {place}",
                "Evaluate that run with the same evaluation.corruptions.names and .severities",
            )
    return shared


def _classifiers(context: Context, task: Task) -> dict[Place, LinearClassifier]:
    labels = context.train.labels[task.train_rows]
    classifiers: dict[Place, LinearClassifier] = {}
    with cpu_threads(1):  # the same numbers as those of the quick probe, which is fitted so
        for number, place in enumerate(context.places):
            context.progress("classifiers for corrupted images", number, len(context.places))
            classifiers[place] = fit_linear_probe(task.train_features(place), labels).to(context.device)
    return classifiers


def _clean_error(context: Context, task: Task, place: Place, classifier: LinearClassifier) -> float:
    labels, rows = context.test.labels[task.test_rows], task.test_features(place)
    step = context.settings.batch_size
    wrong = sum(
        _wrong(classifier, rows[start : start + step], labels[start : start + step], context.device)
        for start in range(0, len(rows), step)
    )
    return wrong / len(labels)


def _wrong(classifier: LinearClassifier, features: Tensor, labels: Tensor, device: torch.device) -> int:
    return int((classifier.classify(features.to(device)).cpu() != labels).sum())


def _errors(
    context: Context, plan: CorruptionPlan, classifiers: Mapping[Place, LinearClassifier]
) -> dict[CorruptionLevel, dict[Place, float]]:
    wrong = {pair: dict.fromkeys(classifiers, 0) for pair in plan.pairs}
    images = dict.fromkeys(plan.pairs, 0)
    batches = _computed(context, plan.pairs) if plan.sets is None else _read(context, plan.pairs, plan.sets)
    for pair, labels, features in batches:
        images[pair] += len(labels)
        for place, classifier in classifiers.items():
            wrong[pair][place] += _wrong(classifier, features[place], labels, context.device)
    return {pair: {place: count / images[pair] for place, count in counts.items()} for pair, counts in wrong.items()}


def _read(context: Context, pairs: Sequence[CorruptionLevel], sets: CorruptedSets) -> Corrupted:
    for number, pair in enumerate(pairs):
        context.progress(f"corrupted images: {pair[0]}, severity {pair[1]}", number, len(pairs))
        images = context.readable(sets.open(*pair), f"images of {pair[0]}, severity {pair[1]}")
        batches = whole_batches(len(images), context.settings.batch_size)
        labels = torch.from_numpy(np.array(images.labels, np.int64))
        embeddings = context.embedded(batches, evaluation_load(images, context.data), context.places)
        for batch, features in zip(batches, embeddings, strict=True):
            yield pair, labels[batch[0] : batch[0] + len(batch)], features


def _computed(context: Context, pairs: Sequence[CorruptionLevel]) -> Corrupted:
    """A batch of images under all corruptions, then the next batch, so that each image is decoded once."""
    images, size = context.test_images, context.settings.batch_size
    count = len(images)
    labels = torch.from_numpy(np.array(images.labels, np.int64))
    # A batch is one corruption of some images; image i under corruption p has the number p * count + i.
    batches = [
        range(number * count + start, number * count + min(start + size, count))
        for start in range(0, count, size)
        for number in range(len(pairs))
    ]
    embeddings = context.embedded(batches, _corrupted_load(context, images, pairs), context.places)
    for done, (batch, features) in enumerate(zip(batches, embeddings, strict=True)):
        number, start = divmod(batch.start, count)
        context.progress("batches of corrupted images", done, len(batches))
        yield pairs[number], labels[start : start + len(batch)], features


def _corrupted_load(
    context: Context, images: ImageDataset, pairs: Sequence[CorruptionLevel]
) -> Callable[[Batch], NDArray[np.uint8]]:
    count, seed = len(images), context.settings.seed

    @lru_cache(maxsize=2 * (context.settings.batch_size // PIECE + 2))
    def clean(piece: int) -> list[NDArray[np.uint8]]:
        numbers = range(piece * PIECE, min((piece + 1) * PIECE, count))
        images.prefetch(numbers)
        return [_clean_view(context, images, index) for index in numbers]

    def load(batch: Batch) -> NDArray[np.uint8]:
        views = []
        for key in batch:
            number, index = divmod(int(key), count)
            view = corrupt(clean(index // PIECE)[index % PIECE], *pairs[number], seed, index)
            views.append(view if view.ndim == 3 else np.repeat(view[:, :, np.newaxis], 3, axis=2))
        return np.stack(views)

    return load


def _clean_view(context: Context, images: ImageDataset, index: int) -> NDArray[np.uint8]:
    """`[S, S, 3]`; `[S, S]` of a gray image, so that it is corrupted as one."""
    image = images.image(index)
    view = context.view(image)
    return np.ascontiguousarray(view[:, :, 0]) if image.mode == "L" else view
