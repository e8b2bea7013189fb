"""Every classifier that the configuration asks for, at every place, as records in a fixed order.

The numbers of a place depend on its features, the settings and `evaluation.seed`, not on what else is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config.places import Place
from pipeline.evaluation.document import Record
from pipeline.evaluation.few_label import few_label_indices
from pipeline.evaluation.mlp import EPOCHS, fit_mlp
from pipeline.evaluation.task import Task
from pipeline.measures.knn import knn_accuracy
from pipeline.measures.linear import linear_probe_accuracy
from pipeline.measures.probes import LinearProbe, ProbeScore, fit, fit_augmented, steps
from pipeline.measures.protocols import PROTOCOLS
from pipeline.randomness import derive_seed
from workers.evaluating.context import Context
from workers.evaluating.fine_tuning import fine_tuned_accuracy
from workers.run.compute import cpu_threads

Scores = Mapping[tuple[Place, str], ProbeScore]


def measure_probes(context: Context) -> list[Record]:
    """Linear probes, the MLP, nearest neighbours and few labels, place by place.

    Raises:
        UserError: there is nothing to fit or to test on: no labels, no test images, a single class; or features are
            not finite.
    """
    if not _any_probe(context):
        return []
    task = Task(context.train, context.test, context.data_name)
    too_many = [k for k in context.settings.knn.k if k > len(task.train_rows)]
    if too_many:
        context.note(f"no k-NN with k={too_many}: {context.data_name} has {len(task.train_rows)} training images")
    if task.unknown:
        context.note(
            f"{task.unknown} of {len(task.test_rows)} test images of {context.data_name} are of classes that its "
            "training images lack: they count as errors"
        )
    measures = _Measures(context, task)
    with cpu_threads(context.config.threads):
        augmented = measures.augmented() if context.settings.augmented else {}
        records = []
        for number, place in enumerate(context.places):
            context.progress(f"probes: {place}", number, len(context.places))
            records += measures.at(place, augmented)
    context.progress("probes", len(context.places), len(context.places))
    return records


@dataclass(frozen=True)
class _Measures:
    """The measures of one place."""

    context: Context
    task: Task

    def at(self, place: Place, augmented: Scores) -> list[Record]:
        """The records of every probe that the settings ask for."""
        settings = self.context.settings
        by_probe = [self._linear(place, name, augmented) for name in settings.linear]
        by_probe += [self._mlp(place)] if settings.mlp else []
        by_probe += [self._neighbours(place)]
        by_probe += [self._few_labels(place, share) for share in settings.few_labels.shares]
        return [record for records in by_probe for record in records]

    def augmented(self) -> Scores:
        """The papers' linear probes of all places, fitted in one pass on features that are new in every epoch."""
        names = [name for name in self.context.settings.linear if name in PROTOCOLS]
        probes: dict[tuple[Place, str], LinearProbe]
        probes = {(place, name): self._probe(place, name) for place in self.context.places for name in names}
        if not probes:
            return {}
        count = max(probe.protocol.epochs for probe in probes.values())
        test = {place: self.task.test_features(place) for place in self.context.places}
        epochs = (self._labelled_epoch(epoch, count) for epoch in range(count))
        return fit_augmented(probes, epochs, test, self.task.test_labels)

    def _labelled_epoch(self, epoch: int, count: int) -> Iterator[tuple[Mapping[Place, Tensor], Tensor]]:
        self.context.progress("probes on augmented images", epoch, count)
        for features, labels in self.context.augmented_epoch(epoch):
            rows = (labels >= 0).nonzero().squeeze(1)
            if len(rows):
                labelled = {place: values.index_select(0, rows) for place, values in features.items()}
                yield labelled, self.task.numbered(labels[rows])

    def _linear(self, place: Place, name: str, augmented: Scores) -> list[Record]:
        if name == "quick":
            all_rows = torch.arange(len(self.task.train_rows))
            return self._records(place, "linear/quick", {"top1": (self._quick(place, all_rows), None)})
        score = augmented.get((place, name)) or self._fitted(place, name)
        values = {"top1": (score.top1, score.best_top1), "top5": (score.top5, score.best_top5)}
        return self._records(place, f"linear/{name}", values)

    def _fitted(self, place: Place, name: str) -> ProbeScore:
        task = self.task
        # Thousands of tiny steps: threads gain nothing there, and lose much where cores are shared.
        with cpu_threads(1):
            features = task.train_features(place), task.test_features(place)
            return fit(self._probe(place, name), features[0], task.train_labels, features[1], task.test_labels)

    def _probe(self, place: Place, name: str) -> LinearProbe:
        protocol, task = PROTOCOLS[name].with_epochs(self.context.settings.epochs), self.task
        width, per_epoch = self.context.train.features[place].shape[1], steps(len(task.train_rows), protocol)
        return LinearProbe(width, task.classes, protocol, per_epoch, self._seed(place, name), self.context.device)

    def _quick(self, place: Place, rows: Tensor) -> float:
        """The quick probe, fitted on some of the labelled training images, with the data set's own classes."""
        train, test = self.context.train.labels, self.context.test.labels
        with cpu_threads(1):
            return linear_probe_accuracy(
                self.task.train_features(place).index_select(0, rows),
                train[self.task.train_rows][rows],
                self.task.test_features(place),
                test[self.task.test_rows],
            )

    def _mlp(self, place: Place) -> list[Record]:
        task, context = self.task, self.context
        epochs = context.settings.epochs or EPOCHS
        data = task.train_features(place), task.train_labels, task.test_features(place), task.test_labels
        score = fit_mlp(*data, self._seed(place, "mlp"), context.device, epochs)
        return self._records(place, "mlp", {"top1": (score.top1, None), "top5": (score.top5, None)})

    def _neighbours(self, place: Place) -> list[Record]:
        task, knn = self.task, self.context.settings.knn
        possible = [k for k in knn.k if k <= len(task.train_rows)]
        if not possible:
            return []
        data = task.train_features(place), task.train_labels, task.test_features(place), task.test_labels
        accuracies = knn_accuracy(*data, possible, knn.temperature, device=self.context.device)
        return [
            record
            for k, (top1, top5) in accuracies.items()
            for record in self._records(place, f"knn/{k}", {"top1": (top1, None), "top5": (top5, None)})
        ]

    def _few_labels(self, place: Place, share: float) -> list[Record]:
        settings, name = self.context.settings.few_labels, f"few_labels/{share:g}"
        rows = few_label_indices(self.task.train_labels, share, self.context.settings.seed)
        records = self._records(place, name, {"top1": (self._quick(place, rows), None)})
        if settings.unfrozen:
            top1, top5 = fine_tuned_accuracy(self.context, self.task, place, rows, self._seed(place, name))
            records += self._records(place, f"{name}/unfrozen", {"top1": (top1, None), "top5": (top5, None)})
        return records

    def _seed(self, place: Place, measure: str) -> int:
        return derive_seed("evaluation", self.context.settings.seed, place.key, measure)

    def _records(self, place: Place, measure: str, values: Mapping[str, tuple[float, float | None]]) -> list[Record]:
        data = self.context.data_name
        return [Record(data, place.block, place.feature, measure, name, *pair) for name, pair in values.items()]


def _any_probe(context: Context) -> bool:
    settings = context.settings
    return bool(settings.linear or settings.mlp or settings.knn.k or settings.few_labels.shares)
