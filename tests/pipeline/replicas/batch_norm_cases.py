"""Batch norm over the rows of a team of replicas, and with `SOLO` torch's own over the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.replicas import ReplicaGroup, synchronise_batch_norms

BATCH = 12
LAYERS = {
    "2-d": (lambda: nn.BatchNorm1d(5), (BATCH, 5)),
    "tokens": (lambda: nn.BatchNorm1d(5, eps=1e-3), (BATCH, 5, 3)),
    "map": (lambda: nn.BatchNorm2d(5), (BATCH, 5, 3, 4)),
    "volume": (lambda: nn.BatchNorm3d(5), (BATCH, 5, 2, 3, 2)),
    "not affine": (lambda: nn.BatchNorm2d(5, affine=False), (BATCH, 5, 3, 4)),
    "cumulative": (lambda: nn.BatchNorm2d(5, momentum=None), (BATCH, 5, 3, 4)),
    "no running statistics": (lambda: nn.BatchNorm2d(5, track_running_stats=False), (BATCH, 5, 3, 4)),
}


def batch_norm(team: ReplicaGroup, layer: str, dtype: str = "float64", evaluate: bool = False) -> dict[str, Tensor]:
    """Three batches through a batch norm: outputs and gradients for the own rows, what is left in the layer.

    Inputs and gradients of outputs are the same numbers in every dtype.
    """
    make, shape = LAYERS[layer]
    source = torch.Generator().manual_seed(1)
    network = nn.Sequential(make()).to(torch.float32 if dtype == "bfloat16" else getattr(torch, dtype))
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=source, dtype=torch.float64) + 1)
    synchronise_batch_norms([network], team)
    results = {}
    for number in range(3):
        network.train(not (evaluate and number == 2))
        whole = 3 * torch.randn(shape, generator=source, dtype=torch.float64) + torch.arange(5).view(
            5, *[1] * (len(shape) - 2)
        )
        gradient = torch.randn(shape, generator=source, dtype=torch.float64)
        whole, gradient = (team.rows(t.to(torch.bfloat16)).to(getattr(torch, dtype)) for t in (whole, gradient))
        x = whole.requires_grad_()
        network.zero_grad()
        y = network(x)
        assert y.dtype == x.dtype
        y.backward(gradient * team.size)
        results |= {f"{number}/output": y, f"{number}/input gradient": x.grad / team.size}
        # What each replica has of a parameter's gradient is averaged, as an engine does.
        average = {name: team.total(p.grad) / team.size for name, p in network.named_parameters()}
        results |= {f"{number}/grad/{name}": value for name, value in average.items()}
        results |= {f"{number}/{name}": value.clone() for name, value in network.state_dict().items()}
    return results
