"""The bank of the last samples: what it holds, when it overwrites, and that its state is all of it."""

from __future__ import annotations

import pytest
import torch

from pipeline.measures.feature_bank import Bank

CPU = torch.device("cpu")


def rows(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.arange(first, first + count)
    return numbers.float().unsqueeze(1).expand(-1, 3).contiguous(), numbers


@pytest.mark.parametrize("sizes", [[2, 2], [3, 3, 3], [5], [12], [4, 4, 4, 1], [7, 2, 30, 1]])
def test_it_holds_the_last_samples_with_their_labels(sizes: list[int]) -> None:
    bank, total = Bank(5, (3,), CPU, torch.float32), 0
    for size in sizes:
        bank.add(*rows(total, size))
        total += size
    expected = list(range(max(0, total - 5), total))
    assert (len(bank), bank.full) == (len(expected), total >= 5)
    assert sorted(bank.labels.tolist()) == expected
    assert torch.equal(bank.features[:, 1].long(), bank.labels)
    bank.clear()
    assert len(bank) == 0
    bank.add(*rows(0, 2))
    assert bank.labels.tolist() == [0, 1]


@pytest.mark.parametrize("before", [0, 3, 5, 8])
def test_its_state_is_all_of_it(before: int) -> None:
    bank, other = (Bank(5, (3,), CPU, torch.float32) for _ in range(2))
    if before:
        bank.add(*rows(0, before))
    assert other.load({name: tensor.clone() for name, tensor in bank.tensors().items()})
    for each in (bank, other):
        each.add(*rows(100, 3))
    assert torch.equal(bank.features, other.features)
    assert torch.equal(bank.labels, other.labels)


@pytest.mark.parametrize(("capacity", "width", "fits"), [(5, 3, True), (9, 3, False), (4, 3, False), (5, 2, False)])
def test_the_state_of_another_bank_is_not_taken(capacity: int, width: int, fits: bool) -> None:
    bank, other = Bank(5, (3,), CPU, torch.float32), Bank(capacity, (width,), CPU, torch.float32)
    bank.add(*rows(0, 4))
    bank.add(*rows(4, 3))
    assert other.load(bank.tensors()) == fits
    assert len(other) == (5 if fits else 0)
    assert not other.load({})


def test_samples_without_labels_are_unknown() -> None:
    bank = Bank(5, (3,), CPU, torch.float64)
    bank.add(rows(0, 2)[0])
    assert bank.labels.tolist() == [-1, -1]
    assert bank.features.dtype == torch.float64
