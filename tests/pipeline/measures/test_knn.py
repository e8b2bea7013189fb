"""Nearest-neighbour accuracy, against the formula written out sample by sample."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.measures.knn import knn_accuracy


def samples(count: int, seed: int, classes: int = 7, width: int = 5) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=source)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    return centres[labels] + torch.randn(count, width, generator=source), labels


def by_hand(train: Tensor, classes: Tensor, test: Tensor, labels: Tensor, k: int, temperature: float) -> list[float]:
    """Top-1 and top-5, with nothing but Python's numbers."""
    right = [0, 0]
    for query, label in zip(test.double().tolist(), labels.tolist(), strict=True):
        cosines = []
        for number, row in enumerate(train.double().tolist()):
            dot = sum(a * b for a, b in zip(query, row, strict=True))
            cosines.append((-dot / math.hypot(*query) / math.hypot(*row), number))
        votes: dict[int, float] = defaultdict(float)
        for negative, number in sorted(cosines)[:k]:
            votes[int(classes[number])] += math.exp(-negative / temperature)
        ranking = sorted(votes, key=lambda c: (-votes[c], c))
        right[0] += ranking[0] == label
        right[1] += label in ranking[:5]
    return [count / len(labels) for count in right]


@pytest.mark.parametrize("memory", [1, 20_000, 2**28])
def test_it_is_the_formula_for_several_k_in_batches_of_any_size(memory: int) -> None:
    train, test = samples(90, 0), samples(60, 1)
    found = knn_accuracy(*train, *test, (1, 5, 20, 90), 0.07, memory)
    for k in (1, 5, 20, 90):
        assert found[k] == pytest.approx(by_hand(*train, *test, k, 0.07))
    assert len(set(found.values())) > 2


def test_training_samples_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = samples(90, 2), samples(60, 3)
    whole = knn_accuracy(*train, *test, (3, 40), 0.07)
    monkeypatch.setattr("pipeline.measures.knn._TRAIN_ROWS", 7)
    assert knn_accuracy(*train, *test, (3, 40), 0.07) == whole


@pytest.mark.parametrize("rows", [3, 4, 100])
def test_of_equal_neighbours_the_first_are_taken(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr("pipeline.measures.knn._TRAIN_ROWS", rows)
    train = torch.tensor([[0.0, 1.0]] + [[1.0, 0.0]] * 50)
    labels = torch.tensor([5, 2, 2, 1, 1, 1] + [0] * 45)
    test = torch.tensor([[1.0, 0.0]])
    for k, winner in ((1, 2), (3, 2), (4, 1), (5, 1), (51, 0)):  # with 4, two votes each: the lower class wins
        assert knn_accuracy(train, labels, test, torch.tensor([winner]), (k,), 0.07)[k][0] == 1.0, k


def test_a_class_without_a_vote_is_no_guess() -> None:
    train, labels = torch.eye(4), torch.arange(4)
    assert knn_accuracy(train, labels, torch.eye(4)[:1], torch.tensor([1]), (1, 2), 0.07) == {1: (0, 0), 2: (0, 1)}


def test_a_class_that_the_training_set_lacks_is_an_error() -> None:
    train, test = samples(50, 0, classes=3), samples(40, 1, classes=3)
    known = knn_accuracy(*train, *test, (5,), 0.07)[5]
    unknown = knn_accuracy(*train, test[0], test[1] + 10, (5,), 0.07)[5]
    assert known[0] > 0.5
    assert unknown == (0.0, 0.0)


def test_neither_scale_nor_a_very_low_temperature_matters_to_the_nearest() -> None:
    train, test = samples(80, 0), samples(50, 1)
    nearest = knn_accuracy(*train, *test, (1,), 0.07)[1][0]
    assert knn_accuracy(1000 * train[0], train[1], test[0] / 1000, test[1], (1,), 0.07)[1][0] == nearest
    assert knn_accuracy(*train, *test, (50,), 1e-9)[50][0] == nearest


def test_features_of_length_0_are_like_none() -> None:
    found = knn_accuracy(
        torch.zeros(6, 3), torch.tensor([1, 0, 0, 0, 0, 0]), torch.ones(1, 3), torch.tensor([1]), (1,), 1
    )
    assert found == {1: (1.0, 1.0)}


def test_more_neighbours_than_samples_are_refused() -> None:
    train, test = samples(10, 0), samples(5, 1)
    with pytest.raises(ConfigError, match=r"evaluation\.knn\.k: 11 neighbours are more than the 10 images") as error:
        knn_accuracy(*train, *test, (3, 11), 0.07)
    assert error.value.path == "evaluation.knn.k"
