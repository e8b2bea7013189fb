"""The step of a stage of lower precision, written out with the parts of one that computes in float32.

Low precision has no tolerance that holds on every processor: batch norm over eight images amplifies its rounding. But
whatever the processor, a stage must give to the bit what its parts give there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pipeline.objectives import Embeddings
from pipeline.replicas import gather_rows
from pipeline.stage.noise import add_noise
from pipeline.stage.stage import Stage

Layout = torch.memory_format


def forward_by_hand(
    parts: Stage, views: Iterable[Tensor], dtype: torch.dtype, layout: Layout, step: int, level: float = 0.0
) -> list[Tensor]:
    """Every view through the block under autocast to `dtype` (float32: none), with noise of kind `all`."""
    outputs = []
    for number, view in enumerate(views, 1):
        x = view if view.is_floating_point() else parts.inputs.prepared(view)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            output = parts.block(x.contiguous(memory_format=layout)).to(dtype)
        if level:
            draw = parts.noise.draw(parts.team.whole_like(output), step, parts.index, number)
            output = add_noise(output, parts.team.rows(draw), "all", level, team=parts.team)
        outputs.append(output)
    return outputs


def backward_by_hand(parts: Stage, outputs: list[Tensor], dtype: torch.dtype, scale: float = 1.0) -> float:
    """The loss, in float32, of the head under autocast; leaves the gradients of float32 weights, without `scale`."""
    embeddings = []
    for output in outputs:  # each view casts the weights for itself, so gradients are added up in float32
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            embeddings.append(parts.head(output))
    loss, _ = parts.objective(Embeddings(tuple(gather_rows(z.float(), parts.team) for z in embeddings)))
    parts.engine.zero_grad()
    parts.engine.backward(scale * loss)
    parts.engine.await_gradients()
    for parameter in parts.parameters():
        if parameter.grad is not None:
            parameter.grad /= scale
    return loss.item()


def step_by_hand(parts: Stage, step: int) -> None:
    parts.set_learning_rate(step)
    parts.optimizer.step()


def same_gradients(stage: Stage, parts: Stage) -> bool:
    pairs = zip(stage.parameters(), parts.parameters(), strict=True)
    return all((p.grad is None and q.grad is None) or torch.equal(p.grad, q.grad) for p, q in pairs)
