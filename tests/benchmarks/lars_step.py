"""A step of the layer-wise optimizers on lists of parameters, beside one with a loop over them.

    python tests/benchmarks/lars_step.py [--backbone resnet50] [--rounds 7] [--device cpu]

All parameters of a network, regular ones scaled, biases and norms not. Operations are those that torch dispatches, on
lists as long as a GPU has them; there each is a kernel or a few, whatever the number of parameters, but for the product
with the ratios, which is one for each parameter that is scaled. In every round both ways take one step; the ratios of
their seconds are of the same round. The weights after the last step are compared.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from statistics import median
from typing import Any

import torch
import torchvision
from common.runs import machine
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.config import optimizers as settings
from pipeline.optim import build_optimizer, foreach

KINDS = (settings.LarsConfig(), settings.LarsLrInMomentumConfig(), settings.LarsClippedConfig())
WAYS = {"loop": 0, "lists": None}
"""Bytes of the parameters that are worked on at once."""


class Operations(TorchDispatchMode):
    """Counts all that computes something, and the products with the ratios apart."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[bool] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if name == "aten._foreach_mul_.List":
            self.count[True] += len(args[0])
        elif name.startswith("aten.") and not name.startswith("aten.unbind"):
            self.count[False] += 1
        return func(*args, **(kwargs or {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    for config in KINDS:
        prepared = {name: build(config, given, bytes_) for name, bytes_ in WAYS.items()}
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for number in range(given.rounds + 1):
            for name in list(WAYS) if number % 2 else list(WAYS)[::-1]:
                seconds[name].append(timed(prepared[name][1], given.device))
        counts = {name: counted(optimizer, WAYS[name]) for name, (_, optimizer) in prepared.items()}
        ratio = median(a / b for a, b in zip(seconds["loop"][1:], seconds["lists"][1:], strict=True))
        pairs = zip(prepared["loop"][0].parameters(), prepared["lists"][0].parameters(), strict=True)
        equal = all(torch.equal(a, b) for a, b in pairs)
        print(
            f"{config.kind:20} operations + products with ratios: loop {counts['loop']}, lists {counts['lists']}; "
            f"seconds loop / lists {ratio:.2f}; weights {'equal' if equal else 'DIFFERENT'}",
            flush=True,
        )


def build(config: Any, given: argparse.Namespace, piece_bytes: int | None) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(0)
    module = getattr(torchvision.models, given.backbone)().to(given.device)
    for p in module.parameters():
        p.grad = torch.randn_like(p)
    optimizer = build_optimizer(config, module)
    optimizer.piece_bytes = piece_bytes  # type: ignore[attr-defined]
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    return module, optimizer


def counted(optimizer: Optimizer, piece_bytes: int | None) -> str:
    """Operations of a step, and products with ratios apart."""
    optimizer.piece_bytes = foreach.PIECE_BYTES if piece_bytes is None else piece_bytes  # type: ignore[attr-defined]
    with Operations() as operations:
        optimizer.step()
    return f"{operations.count[False]} + {operations.count[True]}"


def timed(optimizer: Optimizer, device: str) -> float:
    began = time.perf_counter()
    optimizer.step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
