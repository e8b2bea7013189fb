"""The classifier with a hidden layer: what it sees and never sees, and when it stops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.evaluation.mlp import fit_mlp, hold_out
from pipeline.measures.linear import linear_probe_accuracy

CPU = torch.device("cpu")


def rings(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two classes that no line separates: inside of a circle and outside."""
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return 100 + 10 * points, (points.norm(dim=1) > 1.18).long()


TRAIN, TEST = rings(600, 0), rings(300, 1)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.mlp.HIDDEN", 64)


def test_it_separates_what_no_line_does() -> None:
    assert linear_probe_accuracy(*TRAIN, *TEST) < 0.7
    score = fit_mlp(*TRAIN, *TEST, 0, CPU)
    assert score.top1 > 0.9
    assert score.top5 == 1.0
    assert score.held_out > 0.9


def test_the_test_set_decides_nothing() -> None:
    first = fit_mlp(*TRAIN, *TEST, 0, CPU, epochs=30)
    source = torch.Generator().manual_seed(5)
    wrong = fit_mlp(*TRAIN, torch.randn(300, 2, generator=source), 1 - TEST[1], 0, CPU, epochs=30)
    assert (wrong.epoch, wrong.epochs, wrong.held_out) == (first.epoch, first.epochs, first.held_out)
    assert wrong.top1 != first.top1
    both = fit_mlp(*TRAIN, torch.cat([TEST[0], TEST[0]]), torch.cat([TEST[1], 1 - TEST[1]]), 0, CPU, epochs=30)
    assert both.top1 == 0.5


def test_it_stops_when_the_held_out_part_gets_no_better_and_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.randn(600, 2, generator=torch.Generator().manual_seed(3)), TRAIN[1]
    score = fit_mlp(*noise, *TEST, 0, CPU, epochs=100, patience=3)
    assert score.epochs == score.epoch + 3 < 100
    shorter = fit_mlp(*noise, *TEST, 0, CPU, epochs=score.epoch, patience=3)
    assert (shorter.top1, shorter.held_out, shorter.epoch) == (score.top1, score.held_out, score.epoch)
    patient = fit_mlp(*noise, *TEST, 0, CPU, epochs=12, patience=100)
    assert patient.epochs == 12


def test_the_numbers_are_keyed() -> None:
    first = fit_mlp(*TRAIN, *TEST, 0, CPU, epochs=3)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    assert fit_mlp(*TRAIN, *TEST, 0, CPU, epochs=3) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert fit_mlp(*TRAIN, *TEST, 1, CPU, epochs=3) != first


def test_every_class_gives_a_tenth_and_keeps_a_part() -> None:
    labels = torch.tensor([0] * 100 + [1] * 2 + [2] + [5] * 30)
    kept, held = hold_out(labels, 0)
    assert labels[held].bincount(minlength=6).tolist() == [10, 1, 0, 0, 0, 3]
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(133))
    assert not torch.equal(hold_out(labels, 1)[1], held)


def test_single_images_leave_nothing_to_hold_out() -> None:
    with pytest.raises(UserError, match=r"no class has two images\. Set evaluation\.mlp=false"):
        hold_out(torch.arange(7), 0)


def test_a_feature_that_never_changes_does_no_harm() -> None:
    def padded(points: Tensor) -> Tensor:
        return torch.cat([points, torch.full((len(points), 1), 0.1)], dim=1)

    assert fit_mlp(padded(TRAIN[0]), TRAIN[1], padded(TEST[0]), TEST[1], 0, CPU).top1 > 0.9
