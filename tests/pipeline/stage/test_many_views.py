"""Losses of more than two views: the mean over pairs of a large view with every other, against formulas written out."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.objectives import Embeddings, Objective, build_objective
from tests.pipeline.objectives.test_objectives import CASES, TERMS, WIDTH, draw

PAIRS = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
"""Of four views, the first two of which are large."""
BATCH = 6
KINDS = [kind for kind in CASES if kind != "simclr_single_patch"]
BY_PAIRS = [kind for kind in KINDS if kind not in ("byol", "lejepa", "supervised")]


def objective_of(kind: str) -> Objective:
    return build_objective(CASES[kind], WIDTH, seed=0, stage=1).double()


def four_views() -> Embeddings:
    views = tuple(draw(seed, BATCH) for seed in (1, 2, 11, 12))
    return Embeddings(views, (draw(4, BATCH), draw(5, BATCH)), torch.arange(BATCH) % WIDTH)


def assert_close(found: object, expected: object) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", BY_PAIRS)
def test_loss_and_terms_are_means_over_the_pairs(kind: str) -> None:
    objective, given = objective_of(kind), four_views()
    loss, terms = objective(given)
    of_two = [objective(replace(given, views=(given.views[a], given.views[b]))) for a, b in PAIRS]
    assert_close(loss, sum(value for value, _ in of_two) / len(PAIRS))
    assert set(terms) == TERMS[kind]
    for name, term in terms.items():
        assert_close(term, sum(own[name] for _, own in of_two) / len(PAIRS))


def test_byol_written_out() -> None:
    """Each view predicts the targets of the large views, never its own; twice the mean of six terms."""
    objective, given = objective_of("byol"), four_views()
    predictor = objective.get_submodule("predictor")
    predictions = [predictor(z) for z in given.views]
    ordered = [(0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]
    cosines = [F.cosine_similarity(predictions[b], given.targets[a]) for b, a in ordered]
    loss, terms = objective(given)
    assert_close(loss, 2 * sum((2 - 2 * c).mean() for c in cosines) / 6)
    assert_close(terms["similarity"], sum(c.mean() for c in cosines).detach() / 6)


def test_supervised_written_out() -> None:
    objective, given = objective_of("supervised"), four_views()
    loss, terms = objective(given)
    each = [F.cross_entropy(z, given.labels, label_smoothing=0.1) for z in given.views]
    assert_close(loss, sum(each) / 4)
    hits = [(z.argmax(dim=1) == given.labels).double().mean() for z in given.views]
    assert_close(terms["accuracy"], sum(hits) / 4)


def test_lejepa_written_out() -> None:
    """All views predict the mean of the large ones, and each has a distance from the normal distribution of its own."""
    objective, given = objective_of("lejepa"), four_views()
    centre = (given.views[0] + given.views[1]) / 2
    loss, terms = objective(given)
    assert_close(terms["prediction"], sum((z - centre).square().mean() for z in given.views) / 4)
    alone = [objective(replace(given, views=(z, z)))[1]["sigreg"] for z in given.views]
    assert_close(terms["sigreg"], sum(alone) / 4)
    assert_close(loss.detach(), 0.05 * terms["sigreg"] + 0.95 * terms["prediction"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_by_finite_differences(kind: str) -> None:
    objective, given = objective_of(kind), four_views()

    def loss_of(*views: Tensor) -> Tensor:
        loss: Tensor = objective(replace(given, views=views))[0]
        return loss

    assert torch.autograd.gradcheck(loss_of, tuple(view.requires_grad_() for view in given.views))


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_others_does_not_matter_nor_that_of_the_first_two(kind: str) -> None:
    objective, given = objective_of(kind), four_views()
    expected = objective(given)
    for first in permutations((0, 1)):
        for others in permutations((2, 3)):
            views = tuple(given.views[n] for n in (*first, *others))
            swapped = replace(given, views=views, targets=tuple(given.targets[n] for n in first))
            assert_close(objective(swapped), expected)


@pytest.mark.parametrize("kind", BY_PAIRS)
def test_small_views_are_not_compared_with_one_another(kind: str) -> None:
    """How a pair of small views differs has no influence beyond what each has with the large ones: the mixed second
    derivative by one number of each is zero, and by one of a large and one of a small view it is not."""
    objective, given = objective_of(kind), four_views()
    mixed = {pair: _mixed_derivative(objective, given, *pair) for pair in ((2, 3), (0, 1), (0, 2), (1, 3))}
    assert mixed[(2, 3)] == 0
    assert all(abs(value) > 1e-6 for pair, value in mixed.items() if pair != (2, 3)), mixed


def _mixed_derivative(objective: Objective, given: Embeddings, a: int, b: int) -> float:
    leaves = [view.detach().clone().requires_grad_() for view in given.views]
    (by_one,) = torch.autograd.grad(objective(replace(given, views=tuple(leaves)))[0], leaves[a], create_graph=True)
    (by_both,) = torch.autograd.grad(by_one[0, 0], leaves[b], allow_unused=True, materialize_grads=True)
    return float(by_both.abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_two_views_give_the_very_bits_of_the_loss_of_two(kind: str) -> None:
    """float32, where another order of the same sums would show."""
    views = (draw(1, 64).float(), draw(2, 64).float())
    given = Embeddings(views, (draw(4, 64).float(), draw(5, 64).float()), torch.arange(64) % WIDTH)
    objective = build_objective(CASES[kind], WIDTH, seed=0, stage=1)
    found, expected = objective(given)[0], _of_two(kind, objective, given)
    assert torch.equal(found, expected)


def _of_two(kind: str, objective: Objective, given: Embeddings) -> Tensor:
    from pipeline.objectives.barlow_twins import barlow_twins_loss
    from pipeline.objectives.base import unit_vectors
    from pipeline.objectives.lejepa import lejepa_loss
    from pipeline.objectives.simclr import nt_xent_loss
    from pipeline.objectives.vicreg import vicreg_loss

    z1, z2 = given.views
    if kind == "barlow_twins":
        return barlow_twins_loss(z1, z2, 0.3, 2.0)[0]
    if kind == "simclr":
        return nt_xent_loss(z1, z2, 0.5)[0]
    if kind == "vicreg":
        return vicreg_loss(z1, z2, CASES["vicreg"])[0]
    if kind == "lejepa":
        z = torch.stack((z1, z2))
        return lejepa_loss(z, objective.directions(z, step=0), CASES["lejepa"], 2)[0]
    if kind == "supervised":
        return F.cross_entropy(torch.cat((z1, z2)), given.labels.repeat(2), label_smoothing=0.1)
    predictor = objective.get_submodule("predictor")
    q1, q2, u1, u2 = (unit_vectors(z) for z in (predictor(z1), predictor(z2), *given.targets))
    return (4 - 2 * ((q1 * u2).sum(dim=1) + (q2 * u1).sum(dim=1))).mean()


def test_one_patch_as_the_negative_takes_two_views() -> None:
    with pytest.raises(ValueError, match="needs two views and the negative patch"):
        objective_of("simclr_single_patch")(replace(four_views(), patch=draw(3, BATCH)))
