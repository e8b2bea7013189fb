"""The objectives as functions: tiny cases computed by hand, and what each loss must not notice."""

from __future__ import annotations

from math import cos, exp, log, pi, sqrt

import pytest
import torch
from torch import Tensor

from pipeline.config import objectives as settings
from pipeline.objectives.barlow_twins import barlow_twins_loss
from pipeline.objectives.byol import byol_loss
from pipeline.objectives.lejepa import lejepa_loss
from pipeline.objectives.simclr import nt_xent_loss, single_patch_loss
from pipeline.objectives.supervised import supervised_loss
from pipeline.objectives.vicreg import vicreg_loss


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draw(seed: int, batch: int, width: int = 5) -> Tensor:
    return torch.randn(batch, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_barlow_twins_by_hand() -> None:
    """Standardised columns are +-k with k^2 = 1 / (1 + 1e-5); the correlations are k^2, or -k^2 where signs differ."""
    k2 = 1 / (1 + 1e-5)
    loss, terms = barlow_twins_loss(rows([1, 1], [-1, -1]), rows([1, -1], [-1, 1]), lambd=0.1, scale=0.5)
    assert terms["on_diagonal"].item() == pytest.approx((k2 - 1) ** 2 + (k2 + 1) ** 2, rel=1e-12)
    assert terms["off_diagonal"].item() == pytest.approx(2 * k2**2, rel=1e-12)
    assert loss.item() == pytest.approx(0.5 * ((k2 - 1) ** 2 + (k2 + 1) ** 2 + 0.2 * k2**2), rel=1e-12)


def test_barlow_twins_is_blind_to_shift_and_scale_and_zero_when_perfect() -> None:
    z = draw(0, 64, 4)
    z = torch.linalg.qr(z - z.mean(dim=0))[0] * 8
    assert barlow_twins_loss(z, 3 * z + 5, 0.005, 1.0)[0].item() == pytest.approx(0, abs=1e-6)
    assert barlow_twins_loss(z, -z, 0.005, 1.0)[0].item() == pytest.approx(16, rel=1e-3)


def test_simclr_by_hand() -> None:
    """Two images at right angles: one positive at cosine 1 and two negatives at 0 for each of the four samples."""
    loss, terms = nt_xent_loss(rows([3, 0], [0, 1]), rows([1, 0], [0, 2]), temperature=0.5)
    assert loss.item() == pytest.approx(log(exp(2) + 2) - 2, rel=1e-12)
    assert terms["contrast_accuracy"].item() == 1.0


def test_simclr_accuracy_counts_the_samples_whose_positive_is_nearest() -> None:
    """Image 1 agrees with itself; the views of image 2 lie on opposite sides of it, nearer to image 1."""
    _, terms = nt_xent_loss(rows([1, 0], [1, 1]), rows([1, 0.1], [1, -1]), temperature=0.5)
    assert terms["contrast_accuracy"].item() == 0.5


def test_simclr_survives_half_precision() -> None:
    z1, z2 = draw(1, 6), draw(2, 6)
    expected = nt_xent_loss(z1, z2, 0.05)[0].item()
    assert nt_xent_loss(z1.half(), z2.half(), 0.05)[0].item() == pytest.approx(expected, rel=2e-2)
    zeros = torch.zeros(3, 2, dtype=torch.float16)
    assert nt_xent_loss(zeros, zeros, 0.05)[0].item() == pytest.approx(log(5), rel=1e-2)


def test_single_patch_by_hand() -> None:
    """Logits: view 1 of image 1 has cosine 1 with view 2 and 0 with the patch, and so on; T = 0.5."""
    z1, z2 = rows([1, 0], [1, 0]), rows([2, 0], [0, 1])
    patch = rows([0, 5], [1, 0])
    loss, terms = single_patch_loss(z1, z2, patch, temperature=0.5)
    against = [0 - 2, 2 - 0, 0 - 2, 0 - 0]  # patch minus positive: view 1 of both images, then view 2 of both
    assert loss.item() == pytest.approx(sum(log(1 + exp(d)) for d in against) / 4, rel=1e-12)
    assert terms["contrast_accuracy"].item() == 0.5


def test_single_patch_never_compares_two_images() -> None:
    """The gradient of image 1 stays what it is when all others change."""
    gradients = []
    for factor in (1.0, -3.0):
        leaf = draw(1, 4).requires_grad_()
        others = torch.ones(4, 1, dtype=torch.float64).index_fill(0, torch.arange(1, 4), factor)
        single_patch_loss(leaf, draw(2, 4) * others, draw(3, 4) * others, 0.5)[0].backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    assert not torch.allclose(gradients[0][1:], gradients[1][1:])


def test_vicreg_by_hand() -> None:
    """View 1 varies alike in both dimensions (variance 2, covariance 2), view 2 in the first alone."""
    z1, z2 = rows([0, 0], [2, 2]), rows([0, 0], [2, 0])
    for halved, variance in ((True, 0.99 / 4), (False, 0.99 / 2)):
        config = settings.VICRegConfig(invariance_weight=3, variance_weight=5, covariance_weight=7, std_halved=halved)
        loss, terms = vicreg_loss(z1, z2, config)
        assert {name: term.item() for name, term in terms.items()} == pytest.approx(
            {"invariance": 1.0, "variance": variance, "covariance": 4.0}, rel=1e-12
        )
        assert loss.item() == pytest.approx(3 * 1 + 5 * variance + 7 * 4, rel=1e-12)


def test_byol_by_hand() -> None:
    loss, terms = byol_loss((rows([2, 0]), rows([1, 1])), (rows([3, 0]), rows([0, 1])))
    assert loss.item() == pytest.approx(2 + (2 - 2 / sqrt(2)), rel=1e-12)
    assert terms["similarity"].item() == pytest.approx((0 + 1 / sqrt(2)) / 2, rel=1e-12)


def test_byol_ranges_from_agreement_over_zeros_to_opposition() -> None:
    z = draw(1, 6)
    losses = [byol_loss((sign * z, sign * z), (z, z))[0].item() for sign in (1, 0, -1)]
    assert losses == pytest.approx([0, 4, 8], abs=1e-12)


def test_lejepa_by_hand() -> None:
    """Two images at +-a and one direction: the sines cancel, and with two knots only that at t_max counts, half.

    The second view is the first, moved by 2 at right angles to the direction, which only the prediction sees.
    """
    a, t = 0.7, pi / 2
    z = torch.stack((rows([a, 0], [-a, 0]), rows([a, 2], [-a, 2])))
    config = settings.LeJEPAConfig(lambd=0.25, knots=2, t_max=t)
    loss, terms = lejepa_loss(z, rows([1], [0]), config, global_views=2)
    normal = exp(-t * t / 2)
    assert terms["sigreg"].item() == pytest.approx(2 * t * normal * (cos(t * a) - normal) ** 2, rel=1e-12)
    assert terms["prediction"].item() == pytest.approx(0.5, rel=1e-12)
    assert loss.item() == pytest.approx(0.25 * terms["sigreg"].item() + 0.75 * 0.5, rel=1e-12)
    assert lejepa_loss(z, rows([1], [0]), config, global_views=1)[1]["prediction"].item() == pytest.approx(1.0)


def test_sigreg_tells_a_normal_distribution_from_others_of_the_same_moments() -> None:
    """Mean 0 and variance 1 in every dimension: normal, two points, and one number in all dimensions."""
    directions = torch.nn.functional.normalize(draw(1, 2, 64), dim=0)
    normal = draw(2, 4096, 2)
    signs, repeated = normal.sign(), normal[:, :1].expand(-1, 2)
    config = settings.LeJEPAConfig(lambd=1.0)
    costs = [lejepa_loss(z[None], directions, config, global_views=1)[0].item() for z in (normal, signs, repeated)]
    assert costs[0] < 2, "of N normal samples it does not grow with N"
    assert min(costs[1:]) > 10


def test_supervised_by_hand() -> None:
    """Class probabilities 3/4 and 1/4, right in view 1 and wrong in view 2."""
    z1, z2, labels = rows([log(3), 0]), rows([0, log(3)]), torch.tensor([0])
    loss, terms = supervised_loss((z1, z2), labels, smoothing=0.0)
    assert loss.item() == pytest.approx((log(4 / 3) + log(4)) / 2, rel=1e-12)
    assert terms["accuracy"].item() == 0.5
    smoothed = supervised_loss((z1, z1), labels, smoothing=0.2)[0]
    assert smoothed.item() == pytest.approx(0.9 * log(4 / 3) + 0.1 * log(4), rel=1e-12)
