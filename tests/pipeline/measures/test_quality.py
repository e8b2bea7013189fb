"""LiDAR, RankMe, alpha-ReQ and the collapse level: the golden numbers, the formulas as written, and awkward input."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.measures.quality import AlphaReq, alpha_of_spectrum, alpha_req, collapse_level, lidar, rankme, spectrum
from tests.pipeline.golden import folders

GOLDEN = [folder for folder in folders() if (folder / "quality.json").is_file()]


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.parent.name)
def test_golden_numbers(folder: Path) -> None:
    golden = json.loads((folder / "quality.json").read_text())
    views = torch.from_numpy(np.load(folder / "quality.npz", allow_pickle=False)["embeddings"])
    rows = views.flatten(0, 1)
    assert lidar(views, golden["lidar_delta"], golden["lidar_eps"]) == pytest.approx(golden["lidar"], rel=1e-9)
    assert rankme(rows, golden["rankme_eps"]) == pytest.approx(golden["rankme"], rel=1e-9)
    first, last = golden["alpha_req_ranks"]
    assert alpha_req(rows, (first, last)).alpha == pytest.approx(golden["alpha_req"], rel=1e-9)
    assert collapse_level(rows) == pytest.approx(golden["collapse_level"], rel=1e-9)


def naive_entropy(values: np.ndarray, epsilon: float) -> float:
    shares = values / values.sum() + epsilon
    return math.exp(-(shares * np.log(shares)).sum())


def naive_lidar(embeddings: Tensor, delta: float = 1e-4, epsilon: float = 1e-8) -> float:
    """As the formula is written, with matrices of d x d."""
    points = embeddings.double().numpy()
    n, q, d = points.shape
    means = points.mean(axis=1)
    around, apart = (points - means[:, None]).reshape(n * q, d), means - means.mean(axis=0)
    values, vectors = np.linalg.eigh(around.T @ around / (n * (q - 1)) + delta * np.eye(d))
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return naive_entropy(np.linalg.eigvalsh(root @ (apart.T @ apart / (n - 1)) @ root).clip(0), epsilon)


def blobs(n: int, q: int, d: int, seed: int = 0, rank: int | None = None, scale: float = 1.0) -> Tensor:
    """Views around n points, float32 `[n, q, d]`, within a subspace if `rank` is given; dimensions differ in size."""
    source = torch.Generator().manual_seed(seed)
    width = rank or d
    sizes = torch.arange(1, width + 1) ** -0.5
    points = (torch.randn(n, 1, width, generator=source) + 0.3 * torch.randn(n, q, width, generator=source)) * sizes
    return scale * (points @ torch.randn(width, d, generator=source) if rank else points) + 2.0


SHAPES = {
    "more rows than dimensions": blobs(40, 6, 24),
    "fewer images than dimensions": blobs(10, 6, 40),
    "fewer rows than dimensions": blobs(6, 4, 100),
    "two of each": blobs(2, 2, 30),
    "one dimension": blobs(20, 3, 1),
    "within a subspace": blobs(40, 6, 24, rank=5),
    "within a subspace, few rows": blobs(5, 3, 64, rank=2),
    "small numbers": blobs(30, 5, 16, scale=1e-3),
    "large numbers": blobs(30, 5, 16, scale=1e3),
}


@pytest.mark.parametrize("embeddings", SHAPES.values(), ids=SHAPES.keys())
def test_lidar_is_its_formula(embeddings: Tensor) -> None:
    assert lidar(embeddings) == pytest.approx(naive_lidar(embeddings), rel=1e-8)
    assert lidar(embeddings, delta=1e-2, epsilon=1e-5) == pytest.approx(naive_lidar(embeddings, 1e-2, 1e-5), rel=1e-8)


@pytest.mark.parametrize("embeddings", SHAPES.values(), ids=SHAPES.keys())
def test_rankme_spectrum_and_collapse_are_their_formulas(embeddings: Tensor) -> None:
    rows = embeddings.flatten(0, 1)
    numbers = rows.double().numpy()
    assert rankme(rows) == pytest.approx(naive_entropy(np.linalg.svd(numbers, compute_uv=False), 1e-8), rel=1e-8)
    values = np.linalg.eigvalsh(np.atleast_2d(np.cov(numbers.T)))[::-1][: min(numbers.shape)]
    found = spectrum(rows)
    assert found.shape == (min(numbers.shape),)
    np.testing.assert_allclose(found.numpy(), values, rtol=1e-8, atol=1e-12 * values[0])
    directions = numbers / np.linalg.norm(numbers, axis=1, keepdims=True)
    assert collapse_level(rows) == pytest.approx(directions.std(axis=0, ddof=1).mean(), rel=1e-8, abs=1e-15)


def test_lidar_counts_the_directions_that_separate_images() -> None:
    """Images at the corners of a simplex with views close by: n - 1 directions; views as far apart as images: fewer."""
    corners = torch.eye(8).repeat_interleave(20, dim=0).unsqueeze(1)
    source = torch.Generator().manual_seed(0)
    views = corners + 0.01 * torch.randn(160, 10, 8, generator=source)
    assert lidar(views) == pytest.approx(7.0, rel=0.01)
    views[..., 0] += 100 * torch.randn(160, 10, generator=source)
    assert lidar(views) < 6.9


def test_views_of_one_image_belong_together() -> None:
    views = blobs(40, 6, 24)
    assert abs(lidar(views.transpose(0, 1).reshape(40, 6, 24)) - lidar(views)) > 0.1


def test_measures_of_a_known_spectrum() -> None:
    """Orthogonal columns of known length: every number follows by hand."""
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(5):
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)])
    columns = hadamard[:, 1:]  # the other columns sum to 0
    assert rankme(columns, 0.0) == pytest.approx(31.0)
    assert alpha_req(columns, (1, 31)).alpha == pytest.approx(0.0, abs=1e-12)
    assert collapse_level(columns) == pytest.approx((32 / 31 / 31) ** 0.5)
    decaying = columns * torch.arange(1, 32, dtype=torch.float64) ** -0.75
    found = alpha_req(decaying, (3, 100))
    assert found.alpha == pytest.approx(1.5)
    assert found.r2 == pytest.approx(1.0)
    torch.testing.assert_close(spectrum(decaying), 32 / 31 * torch.arange(1, 32, dtype=torch.float64) ** -1.5)


def test_alpha_is_a_weighted_fit_over_the_ranks_alone() -> None:
    source = torch.Generator().manual_seed(0)
    noisy = -1.2 * torch.arange(1, 41).double().log() + 0.3 * torch.randn(40, generator=source).double()
    values = noisy.exp()
    rank = np.arange(5, 31)
    slope, intercept = np.polyfit(np.log(rank), noisy[4:30].numpy(), 1, w=rank**-0.5)  # numpy squares the weights
    found = alpha_of_spectrum(values, (5, 30))
    assert found.alpha == pytest.approx(-slope, rel=1e-9)
    line = slope * np.log(rank) + intercept
    mean = np.average(noisy[4:30].numpy(), weights=1 / rank)
    left = ((noisy[4:30].numpy() - line) ** 2 / rank).sum() / ((noisy[4:30].numpy() - mean) ** 2 / rank).sum()
    assert found.r2 == pytest.approx(1 - left, rel=1e-9)
    values[30:] = 1e9
    assert alpha_of_spectrum(values, (5, 30)) == found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -7.7, 1e-30, 1e30])
def test_collapsed_embeddings_have_the_least_values(value: float, dtype: torch.dtype) -> None:
    views = torch.full((30, 7, 7), value, dtype=dtype)
    rows = views.flatten(0, 1)
    for delta in (1e-4, 0.0):
        assert lidar(views, delta=delta) == 1.0
    assert rankme(rows) == pytest.approx(1.0, abs=1e-5)
    assert alpha_req(rows, (2, 7)) == AlphaReq(0.0, 0.0)
    assert collapse_level(rows) == 0.0
    assert not spectrum(rows).any()


@pytest.mark.parametrize(
    "views",
    [
        blobs(30, 5, 16, scale=1e12),
        blobs(30, 5, 16, rank=3, scale=1e12),
        blobs(30, 5, 16, scale=1e-25),
        blobs(4, 3, 64, rank=2, scale=1e15),
        blobs(30, 1, 16).expand(30, 5, 16),
        torch.cat([torch.zeros(10, 5, 16), blobs(10, 5, 16)]),
    ],
    ids=["large", "large and flat", "tiny", "large, few rows", "equal views", "half are zero"],
)
def test_every_value_is_finite(views: Tensor) -> None:
    n, _, d = views.shape
    rows = views.flatten(0, 1)
    for delta in (1e-4, 0.0):
        assert 1.0 <= lidar(views, delta=delta) <= 1.001 * min(n - 1, d)
    assert 1.0 <= rankme(rows) <= 1.001 * min(rows.shape)
    found = alpha_req(rows, (2, 10))
    assert math.isfinite(found.alpha)
    assert 0.0 <= found.r2 <= 1.0
    assert 0.0 <= collapse_level(rows) <= 1.0


def test_what_float64_cannot_resolve_is_no_eigenvalue() -> None:
    rows = blobs(40, 6, 24, rank=5).double().flatten(0, 1) - 2.0
    values = spectrum(rows)
    assert (values[:5] > 0).all()
    exact = spectrum(torch.cat([rows[:, :3], rows[:, :3] @ torch.ones(3, 21).double()], dim=1))  # of rank 3
    assert not exact[3:].any()
    assert alpha_of_spectrum(exact, (1, 24)) == alpha_of_spectrum(exact, (1, 3))


def test_embeddings_are_left_as_they_are() -> None:
    views = blobs(10, 4, 6).double()
    before = views.clone()
    lidar(views)
    rankme(views.flatten(0, 1))
    spectrum(views.flatten(0, 1))
    collapse_level(views.flatten(0, 1))
    assert torch.equal(views, before)


def test_wrong_shapes_are_refused() -> None:
    for shape in [(1, 5, 4), (5, 1, 4), (5, 4)]:
        with pytest.raises(ValueError, match=r"\[n >= 2, q >= 2, d\]"):
            lidar(torch.ones(shape))
    for measure in (spectrum, collapse_level):
        with pytest.raises(ValueError, match=r"\[N >= 2, d\]"):
            measure(torch.ones(1, 4))
    with pytest.raises(ValueError, match="fewer than two of the 6 eigenvalues"):
        alpha_of_spectrum(torch.ones(6), (6, 100))
