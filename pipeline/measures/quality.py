"""Label-free quality measures of an embedding: LiDAR, RankMe, alpha-ReQ and the collapse level.

All are computed in float64 on the device of the embeddings, and every value is finite for finite input: a collapsed
embedding has the least value of its measure. With fewer rows than dimensions, no matrix of dimensions by dimensions
is formed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DELTA, EPSILON = 1e-4, 1e-8
RANKS = (6, 100)


@dataclass(frozen=True)
class AlphaReq:
    """The power law `eigenvalue ~ rank^-alpha`, fitted to a spectrum.

    Args:
        alpha: its exponent; near 1 in representations that generalise, larger in those that collapse.
        r2: share of the (weighted) variance of the logarithms that the line explains, 0 to 1.
    """

    alpha: float
    r2: float


def lidar(embeddings: Tensor, delta: float = DELTA, epsilon: float = EPSILON) -> float:
    """LiDAR: the effective rank of the between-image covariance relative to the within-image covariance.

    Thilak et al., "LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL Architectures" (arXiv 2312.04000):
    the exponential of the entropy of the eigenvalues of `S_w^-1/2 S_b S_w^-1/2`, where S_b is the covariance of the
    images' means (over n - 1) and S_w that of the views around them (over n(q - 1)), plus `delta` on its diagonal.
    With a singular S_w and no `delta`, infinite eigenvalues are bounded by the resolution of float64.

    Args:
        embeddings: `[n, q, d]`: q augmented views of each of n images.
        delta: regularises S_w.
        epsilon: added to each normalised eigenvalue.

    Returns:
        From 1 (images are not separated, for example because all embeddings are equal) to min(d, n - 1), plus a
        little because of `epsilon`.

    Raises:
        ValueError: the tensor has not three axes, or fewer than two images or views.
    """
    if embeddings.dim() != 3 or embeddings.shape[0] < 2 or embeddings.shape[1] < 2:
        raise ValueError(f"embeddings must be [n >= 2, q >= 2, d], got {list(embeddings.shape)}")
    n, q, d = embeddings.shape
    rows = _relative(embeddings.flatten(0, 1))
    if n * q < d:
        rows = torch.linalg.qr(rows.T, mode="r").R.T  # the same points in coordinates of the space that they span
    points = rows.view(n, q, -1)
    means = points.mean(dim=1)
    within = (points - means.unsqueeze(1)).flatten(0, 1).div_((n * (q - 1)) ** 0.5)
    between = (means - means.mean(dim=0)) / (n - 1) ** 0.5
    values = _eigenvalues(_whiten(between, within.T @ within, delta))
    return _effective_rank(torch.cat([values, values.new_zeros(d - len(values))]), epsilon)


def rankme(embeddings: Tensor, epsilon: float = EPSILON) -> float:
    """RankMe: the effective rank of the embeddings, which are not centred.

    Garrido et al., "RankMe: Assessing the downstream performance of pretrained self-supervised representations by
    their rank" (arXiv 2210.02885), equation 1: the exponential of the entropy of the singular values.

    Args:
        embeddings: `[N, d]`.
        epsilon: added to each normalised singular value.

    Returns:
        From 1 (one direction, or all zeros) to min(N, d).
    """
    return _effective_rank(torch.linalg.svdvals(embeddings.double()), epsilon)


def spectrum(embeddings: Tensor) -> Tensor:
    """Eigenvalues of the covariance (over N - 1) of `[N, d]`: `[min(N, d)]`, float64, the largest first.

    Values below the resolution of float64 are 0.

    Raises:
        ValueError: there are fewer than two rows.
    """
    if embeddings.dim() != 2 or len(embeddings) < 2:
        raise ValueError(f"embeddings must be [N >= 2, d], got {list(embeddings.shape)}")
    rows = _relative(embeddings)
    centred = rows.sub_(rows.mean(dim=0)).div_((len(rows) - 1) ** 0.5)
    return _eigenvalues(centred)


def alpha_req(embeddings: Tensor, ranks: tuple[int, int] = RANKS) -> AlphaReq:
    """alpha-ReQ of `[N, d]`, as `alpha_of_spectrum` of its spectrum."""
    return alpha_of_spectrum(spectrum(embeddings), ranks)


def alpha_of_spectrum(eigenvalues: Tensor, ranks: tuple[int, int] = RANKS) -> AlphaReq:
    """The exponent at which a spectrum decays.

    Agrawal et al., "alpha-ReQ: Assessing representation quality in self-supervised learning by measuring eigenspectrum
    decay" (NeurIPS 2022): least squares of the logarithm of the eigenvalue on that of its rank, weighted by 1/rank.

    Args:
        eigenvalues: `[m]`, descending; zeros are ignored.
        ranks: first and last rank of the fit, counted from 1; the last is at most m.

    Returns:
        The fit; both values are 0 if fewer than two eigenvalues are above 0, because a collapsed spectrum has no slope.

    Raises:
        ValueError: fewer than two of `ranks` are in 1 to m.
    """
    first, last = ranks[0], min(ranks[1], len(eigenvalues))
    if first < 1 or last <= first:
        raise ValueError(f"ranks {list(ranks)} have fewer than two of the {len(eigenvalues)} eigenvalues")
    chosen = eigenvalues.double()[first - 1 : last]
    chosen = chosen[chosen > 0]
    if len(chosen) < 2:
        return AlphaReq(0.0, 0.0)
    rank = torch.arange(first, first + len(chosen), dtype=torch.float64, device=chosen.device)
    weight = 1 / rank / (1 / rank).sum()
    x, y = (values - (weight * values).sum() for values in (rank.log(), chosen.log()))
    slope = (weight * x * y).sum() / (weight * x * x).sum()
    total, left = (weight * y * y).sum().item(), (weight * (y - slope * x).square()).sum().item()
    return AlphaReq(-slope.item(), 1.0 - left / total if total > 0 else 1.0)


def collapse_level(embeddings: Tensor) -> float:
    """The spread of the directions of embeddings `[N, d]`: 0 if all are equal, near 1/sqrt(d) if they are uniform.

    The standard deviation (over N - 1) of each dimension of the embeddings scaled to length 1, averaged; Chen and He,
    "Exploring Simple Siamese Representation Learning" (arXiv 2011.10566), figure 2. Embeddings of length 0 stay 0.

    Raises:
        ValueError: there are fewer than two rows.
    """
    if embeddings.dim() != 2 or len(embeddings) < 2:
        raise ValueError(f"embeddings must be [N >= 2, d], got {list(embeddings.shape)}")
    rows = embeddings.double()
    directions = rows / _or_one(rows.norm(dim=1, keepdim=True))
    return (directions - directions[0]).std(dim=0).mean().item()


def _relative(embeddings: Tensor) -> Tensor:
    """`[N, d]` minus its first row, in float64, so that equal rows become exact zeros, unlike minus the mean."""
    return embeddings.to(torch.float64, copy=True).sub_(embeddings[0].double())


def _eigenvalues(rows: Tensor) -> Tensor:
    """The eigenvalues of `rows.T @ rows` that can differ from 0, by the smaller Gram matrix; the largest first."""
    small = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    values = torch.linalg.eigvalsh(small).flip(0)
    return torch.where(values > _resolution(values), values, 0.0)


def _whiten(between: Tensor, within: Tensor, delta: float) -> Tensor:
    """`between` `[n, d]` times a square root of the inverse of `within + delta I` `[d, d]`, which is overwritten.

    The root is Cholesky's, which gives the same spectrum as the symmetric root in a small part of its time. Where
    rounding makes the matrix indefinite, it is computed from eigenvectors, with eigenvalues bounded from below.
    """
    within.diagonal().add_(delta)
    triangle, failed = torch.linalg.cholesky_ex(within)
    if not failed.item() and triangle.diagonal().square().min() > _resolution(within.diagonal()):
        whitened: Tensor = torch.linalg.solve_triangular(triangle, between.T, upper=False).T
        return whitened
    values, vectors = torch.linalg.eigh(within)
    least = _resolution(values).clamp_min(delta)
    whitened = between @ vectors / _or_one(torch.maximum(values, least)).sqrt()
    return whitened


def _resolution(values: Tensor) -> Tensor:
    """The rounding error of the largest of `values`; smaller values are treated as 0."""
    return values.amax().clamp_min(0) * (torch.finfo(values.dtype).eps * len(values))


def _effective_rank(values: Tensor, epsilon: float) -> float:
    """The exponential of the entropy of `values`, all >= 0, scaled to the sum 1; 1 if they are all 0."""
    largest = values.amax()
    if largest == 0:
        return 1.0
    shares = values / largest
    rank: float = torch.special.entr(shares / shares.sum() + epsilon).sum().exp().item()
    return rank


def _or_one(values: Tensor) -> Tensor:
    """`values` with 1 in place of 0, for a division."""
    return torch.where(values == 0, 1.0, values)
