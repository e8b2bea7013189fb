"""Every classifier on every place: which records there are and in which order, what they are of, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.config.evaluation import EvaluationConfig, FewLabelsConfig
from pipeline.config.places import Place
from pipeline.errors import UserError
from pipeline.evaluation.document import Record
from pipeline.evaluation.feature_set import FeatureSet
from pipeline.evaluation.few_label import few_label_indices
from pipeline.evaluation.task import Task
from pipeline.measures.knn import knn_accuracy
from pipeline.measures.linear import linear_probe_accuracy
from pipeline.serial import build_stages
from tests.pipeline.small import small_config
from workers.evaluating.context import Context
from workers.evaluating.feature_source import FeatureSource
from workers.evaluating.probes import measure_probes
from workers.evaluating.protocols import protocols_of

pytestmark = pytest.mark.long

CPU = torch.device("cpu")
TRAIN, TEST = 12, 6
"""Images of each of four classes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose brightness and stripes say, not too clearly, of which class they are."""
    root, source = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("val", TEST)):
        for label in range(4):
            place = root / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = 60 + 30.0 * (label % 2) + source.normal(0, 40, (16, 16, 3))
                pixels[:: 1 + label] += 35
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number}.png")
    return root


def context(folder: Path, notes: list[str] | None = None, **settings: Any) -> Context:
    """A network of four blocks as it is initialised, and small images; only what `settings` say is measured."""
    nothing = {"linear": [], "knn": {"k": []}, "batch_size": 20, "cache": False, "blocks": [1, 3]}
    data = {"name": "image_folder", "root": str(folder), "batch_size": 8, "image_size": 16}
    config = small_config(data=data, evaluation={**nothing, **settings})
    stages = [stage.eval() for stage in build_stages(config, 1)]
    said: list[str] = [] if notes is None else notes
    source = FeatureSource(config, stages, CPU, None, note=said.append)
    return Context(config, stages, CPU, folder, source, data=config.data, data_name="photographs", note=said.append)


ALL: dict[str, Any] = {
    "linear": ["lidar", "quick", "blockwise"],
    "epochs": 3,
    "mlp": True,
    "knn": {"k": [1, 5], "temperature": 0.1},
    "few_labels": {"shares": [0.2, 0.5], "unfrozen": True, "epochs": 1},
}
MEASURES = [
    *(("linear/lidar", "top1"), ("linear/lidar", "top5"), ("linear/quick", "top1")),
    *(("linear/blockwise", "top1"), ("linear/blockwise", "top5"), ("mlp", "top1"), ("mlp", "top5")),
    *(("knn/1", "top1"), ("knn/1", "top5"), ("knn/5", "top1"), ("knn/5", "top5")),
    *(("few_labels/0.2", "top1"), ("few_labels/0.2/unfrozen", "top1"), ("few_labels/0.2/unfrozen", "top5")),
    *(("few_labels/0.5", "top1"), ("few_labels/0.5/unfrozen", "top1"), ("few_labels/0.5/unfrozen", "top5")),
]


def value(records: list[Record], place: Place, measure: str, metric: str = "top1") -> float:
    (found,) = [r.value for r in records if (r.place, r.measure, r.metric) == (place, measure, metric)]
    return found


def test_everything_of_every_place_in_an_order_that_stays(folder: Path) -> None:
    measured = context(folder, **ALL)
    records = measure_probes(measured)
    places = [Place(block, feature) for block in (1, 3) for feature in ("trunk", "expansion")]
    assert [(r.place, r.measure, r.metric) for r in records] == [(p, *m) for p in places for m in MEASURES]
    assert {r.data for r in records} == {"photographs"}
    assert all(0 <= r.value <= 1 for r in records)
    with_epochs = {r.measure for r in records if r.best is not None}
    assert with_epochs == {"linear/lidar", "linear/blockwise"}
    assert all(r.best is None or r.best >= r.value for r in records)
    train, test = measured.train, measured.test
    for place in places:
        data = train.features[place], train.labels, test.features[place], test.labels
        assert value(records, place, "linear/quick") == linear_probe_accuracy(*data)
        assert value(records, place, "knn/5") == knn_accuracy(*data, (5,), 0.1)[5][0]
        some = few_label_indices(train.labels, 0.5, 0)
        few = train.features[place][some], train.labels[some], test.features[place], test.labels
        assert value(records, place, "few_labels/0.5") == linear_probe_accuracy(*few)
    assert measure_probes(context(folder, **ALL)) == records


def test_a_place_has_its_numbers_whatever_else_is_measured(folder: Path) -> None:
    keys = {"linear": ["lidar", "byol"], "epochs": 3, "mlp": True}
    together = measure_probes(context(folder, **keys))
    alone = measure_probes(context(folder, **{**keys, "linear": ["byol"], "blocks": [3], "places": ["expansion"]}))
    assert alone == [r for r in together if r.place == Place(3, "expansion") and r.measure != "linear/lidar"]
    other = measure_probes(context(folder, **keys, seed=1))
    assert [r.value for r in other] != [r.value for r in together]


def test_augmented_images_go_through_the_network_once_for_all_probes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: dict[str, Any] = {"linear": ["lidar", "quick", "blockwise"], "epochs": 12}
    plain = measure_probes(context(folder, **keys))
    measured, asked = context(folder, **keys, augmented=True), []
    make = Context.augmented_epoch

    def counted(self: Context, epoch: int) -> Iterator[tuple[dict[Place, Tensor], Tensor]]:
        asked.append(epoch)
        return make(self, epoch)

    monkeypatch.setattr(Context, "augmented_epoch", counted)
    augmented = measure_probes(measured)
    assert asked == list(range(12))
    assert [(r.place, r.measure) for r in augmented] == [(r.place, r.measure) for r in plain]
    quick = [r for r in plain if r.measure == "linear/quick"]
    assert [r for r in augmented if r.measure == "linear/quick"] == quick
    assert augmented != plain
    assert measure_probes(context(folder, **keys, augmented=True)) == augmented


def test_nothing_asked_for_needs_no_features(folder: Path) -> None:
    assert measure_probes(context(folder / "that is not there")) == []


def with_features(
    measured: Context, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], where: tuple[Place, ...] = ()
) -> Context:
    """The same with features of our own at every place."""
    for name, (features, labels) in (("train", train), ("test", test)):
        measured.__dict__[name] = FeatureSet(dict.fromkeys(where or measured.places, features), labels)
    return measured


def samples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=source)
    centres = torch.randn(4, 6, generator=torch.Generator().manual_seed(9))
    return centres[labels] + torch.randn(count, 6, generator=source), labels


KEYS: dict[str, Any] = {
    "linear": ["quick", "lidar"],
    "epochs": 3,
    "mlp": True,
    "knn": {"k": [3]},
    "few_labels": {"shares": [0.1]},
    "blocks": [1],
    "places": ["trunk"],
}


def test_images_without_a_label_are_left_out(folder: Path) -> None:
    train, test = samples(80, 0), samples(40, 1)
    expected = measure_probes(with_features(context(folder, **KEYS), train, test))

    def mixed(known: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        junk = torch.full((len(known[0]), 6), 1e6)
        features = torch.stack([junk, known[0]], dim=1).flatten(0, 1)
        return features, torch.stack([torch.full_like(known[1], -1), known[1]], dim=1).flatten()

    assert measure_probes(with_features(context(folder, **KEYS), mixed(train), mixed(test))) == expected


def test_augmented_images_without_a_label_are_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test, keys = samples(80, 0), samples(40, 1), {**KEYS, "linear": ["lidar"], "augmented": True}
    found = []
    for junk in (False, True):

        def epoch_of(self: Context, epoch: int, junk: bool = junk) -> Iterator[tuple[Mapping[Place, Tensor], Tensor]]:
            for rows in torch.arange(80).split(9):
                place = self.places[0]
                yield {place: train[0][rows]}, train[1][rows]
                if junk:
                    yield {place: torch.full((4, 6), 1e6)}, torch.full((4,), -1)

        monkeypatch.setattr(Context, "augmented_epoch", epoch_of)
        found.append(measure_probes(with_features(context(folder, **keys), train, test)))
    assert found[0] == found[1]


def test_a_class_that_the_training_images_lack_is_said_once_and_counts_as_an_error(folder: Path) -> None:
    notes: list[str] = []
    train, test = samples(80, 0), samples(40, 1)
    kept = train[1] != 1
    measured = with_features(context(folder, notes, **KEYS), (train[0][kept], train[1][kept]), test)
    records = measure_probes(measured)
    lacking = int((test[1] == 1).sum())
    assert notes == [
        f"{lacking} of 40 test images of photographs are of classes that its training images lack: they count as errors"
    ]
    assert all(r.value <= 1 - lacking / 40 + 1e-6 for r in records)
    assert value(records, Place(1, "trunk"), "linear/lidar", "top5") == pytest.approx(1 - lacking / 40)


def test_classes_are_numbered_without_gaps() -> None:
    features = {Place(1, "trunk"): torch.zeros(4, 2)}
    train = FeatureSet(features, torch.tensor([7, 2, -1, 7]))
    task = Task(train, FeatureSet(features, torch.tensor([2, 9, 0, 7])), "these")
    assert (task.classes, task.train_labels.tolist()) == (2, [1, 0, 1])
    assert (task.test_labels.tolist(), task.unknown) == ([0, 2, 2, 1], 2)
    assert task.train_features(Place(1, "trunk")).shape == (3, 2)
    assert task.test_features(Place(1, "trunk")) is features[Place(1, "trunk")]


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ([3, 3, 3, -1], [3, 1, 0, 2], "all training images of photographs are of one class"),
        ([-1] * 4, [0, 1, 0, 1], "no training image of photographs has a label"),
        ([0, 1, 0, 1], [-1] * 4, "no test image of photographs has a label"),
    ],
)
def test_what_no_classifier_can_be_fitted_to_is_refused(
    folder: Path, train: list[int], test: list[int], said: str
) -> None:
    features = torch.randn(4, 6)
    measured = with_features(context(folder, **KEYS), (features, torch.tensor(train)), (features, torch.tensor(test)))
    with pytest.raises(UserError, match=said):
        measure_probes(measured)


def test_more_neighbours_than_images_are_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = context(folder, linear=[], knn={"k": [5, 49]})
    notes: list[str] = []
    monkeypatch.setattr(found, "note", notes.append)
    assert {record.measure for record in measure_probes(found)} == {"knn/5"}
    assert notes == [f"no k-NN with k=[49]: {found.data_name} has 48 training images"]
    assert measure_probes(context(folder, linear=[], knn={"k": [49]})) == []


def test_features_that_are_no_numbers_are_refused_by_name(folder: Path) -> None:
    measured = context(folder, **ALL)
    with torch.no_grad():
        next(measured.stages[2].block.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match=r"the features of block 3 \w+ hold NaN"):
        measure_probes(measured)


def test_protocols_are_said_with_every_number() -> None:
    few = FewLabelsConfig(shares=(0.1,), unfrozen=True)
    settings = EvaluationConfig(linear=("quick", "byol"), mlp=True, epochs=7, few_labels=few)
    found = protocols_of(settings)
    assert list(found) == ["linear/quick", "linear/byol", "mlp", "few_labels/0.1", "few_labels/0.1/unfrozen"]
    byol = {"optimizer": "sgd", "lr": 0.2, "nesterov": True, "weight_decay": 0.0, "schedule": "cosine_by_step"}
    assert found["linear/byol"].items() >= {**byol, "epochs": 7, "augmented": False}.items()
    assert (found["mlp"]["epochs"], found["mlp"]["hidden"]) == (7, 2048)
    json.dumps(found)
