"""Weights that a network of the user's own uses more than once in one pass, found in the graph of a pass with no data.

Autograd adds up the gradients of all uses of a weight one by one. Where each view has a backward pass of its own, those
of one view are added up first, which rounds differently; so such a network is not computed again view by view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn
from torch.func import functional_call

from pipeline.backbones.module import PROBE_BATCH, build_traced_block, measure
from pipeline.config.model import ModuleConfig
from pipeline.randomness import seeded_initialisation


def repeated_weight(model: ModuleConfig, index: int, image_size: int) -> str | None:
    """The name of a parameter that block `index`, counted from 1, uses more than once; None if there is none.

    Raises:
        ConfigError: the network cannot be built or cut as asked for.
    """
    shape = measure(model, image_size)[index - 2].output if index > 1 else (3, image_size, image_size)
    block = build_traced_block(model, index, image_size, seed=0)
    with seeded_initialisation("probe"):
        try:
            return _repeated_on("meta", block, shape)
        except Exception:  # makes tensors or decisions of its own
            return _repeated_on("cpu", block, shape)


def _repeated_on(device: str, block: nn.Module, shape: tuple[int, ...]) -> str | None:
    weights = {name: p.detach().to(device).requires_grad_() for name, p in block.named_parameters()}
    buffers = {name: b.detach().to(device) for name, b in block.named_buffers()}
    output = functional_call(block, {**weights, **buffers}, (torch.zeros(PROBE_BATCH, *shape, device=device),))
    names = {id(weight): name for name, weight in weights.items()}
    uses = Counter(_leaves(output.grad_fn))
    return next((names[leaf] for leaf, count in uses.items() if count > 1 and leaf in names), None)


def _leaves(root: torch.autograd.graph.Node | None) -> Iterator[int]:
    """The identity of a leaf for every edge of the graph that leads to it."""
    seen, waiting = {root}, [root]
    while waiting:
        node = waiting.pop()
        for following, _ in node.next_functions if node is not None else ():
            if following is None:
                continue
            if hasattr(following, "variable"):
                yield id(following.variable)
            elif following not in seen:
                seen.add(following)
                waiting.append(following)
