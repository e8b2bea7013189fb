"""What LiDAR, RankMe and the spectrum of one embedding take, beside the same formulas as they are written.

    python tests/benchmarks/quality_speed.py [--dims 2048 8192] [--samples 1000] [--views 10] [--device cpu]

The formulas as written form d x d matrices and take their symmetric roots. The naive LiDAR at 8192 dimensions takes a
quarter of an hour on one core, so that each is measured once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from common.runs import machine
from torch import Tensor

from pipeline.measures.quality import lidar, rankme, spectrum


def naive_lidar(points: Tensor, delta: float = 1e-4, epsilon: float = 1e-8) -> float:
    """The formula, in float64, with matrices of d x d and the symmetric root."""
    points = points.double()
    n, q, d = points.shape
    means = points.mean(dim=1)
    around, apart = (points - means.unsqueeze(1)).flatten(0, 1), means - means.mean(dim=0)
    within = around.T @ around / (n * (q - 1)) + delta * torch.eye(d, dtype=torch.float64, device=points.device)
    values, vectors = torch.linalg.eigh(within)
    root = (vectors / values.sqrt()) @ vectors.T
    found = torch.linalg.eigvalsh(root @ (apart.T @ apart / (n - 1)) @ root).clamp_min(0)
    return torch.special.entr(found / found.sum() + epsilon).sum().exp().item()


def naive_spectrum(rows: Tensor) -> Tensor:
    """Eigenvalues of the d x d covariance."""
    return torch.linalg.eigvalsh(torch.cov(rows.double().T))


def seconds(work: Callable[[], object], device: torch.device) -> tuple[float, object]:
    """How long it took, and what it gave."""
    started = time.perf_counter()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--views", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--without-naive", action="store_true", help="measure ours only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    print(machine())
    print(f"{arguments.samples} images, {arguments.views} views, {arguments.threads} threads, {device}")
    print("| measure | dimensions | rows | ours, s | as written, s | ratio | relative difference |\n|" + "---|" * 7)
    for dimensions in arguments.dims:
        source = torch.Generator().manual_seed(0)
        images = torch.randn(arguments.samples, 1, dimensions, generator=source)
        views = images + 0.5 * torch.randn(arguments.samples, arguments.views, dimensions, generator=source)
        views = (views * torch.arange(1, dimensions + 1) ** -0.5).to(device)
        rows = views.flatten(0, 1)
        torch.linalg.eigvalsh(views[0, :2].double() @ views[0, :2].double().T)  # loads the library
        cases: dict[str, tuple[Callable[[], object], Callable[[], object] | None]] = {
            "LiDAR": (lambda v=views: lidar(v), lambda v=views: naive_lidar(v)),
            "spectrum": (
                lambda r=rows: spectrum(r).sum().item(),
                lambda r=rows: naive_spectrum(r).sum().item(),
            ),
            "RankMe": (lambda r=rows: rankme(r), None),
        }
        for name, (ours, naive) in cases.items():
            took, found = seconds(ours, device)
            cells = ["-", "-", "-"]
            if naive is not None and not arguments.without_naive:
                longer, expected = seconds(naive, device)
                cells = [f"{longer:.2f}", f"{longer / took:.1f}", f"{abs(found / expected - 1):.1e}"]
            print(f"| {name} | {dimensions} | {len(rows)} | {took:.2f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
