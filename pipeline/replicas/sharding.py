"""The optimizer's state sharded over the replicas of a stage, and gathered for a snapshot.

Torch's ZeroRedundancyOptimizer gives whole parameters to the replicas, so an optimizer that looks at whole layers, as
LARS does, computes the same numbers. Its own way to gather the state pickles it; here named tensors are sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import Optimizer

from pipeline.replicas.team import ReplicaGroup

if TYPE_CHECKING:
    from torch.distributed.optim import ZeroRedundancyOptimizer


def shard_optimizer(optimizer: Optimizer, team: ReplicaGroup) -> ZeroRedundancyOptimizer:
    """An optimizer as `optimizer`, which has not made a step, each replica of the team with a part of the state.

    Its groups have all that the groups of `optimizer` have, and are set in the same way.
    """
    from torch.distributed.optim import ZeroRedundancyOptimizer  # takes most of a second, and few runs spread

    groups = [dict(group) for group in optimizer.param_groups]
    # Every setting is in the groups; what the constructor gets is a default that nothing falls back on.
    return ZeroRedundancyOptimizer(groups, type(optimizer), process_group=team.group, lr=0.0)


def held_by(optimizer: Optimizer) -> Optimizer:
    """The optimizer whose `state` and groups are this replica's part."""
    held: Optimizer = getattr(optimizer, "optim", optimizer)  # of a ZeroRedundancyOptimizer
    return held


def on_first(tensors: Mapping[str, Tensor], team: ReplicaGroup, device: torch.device) -> dict[str, Tensor]:
    """The tensors of all replicas, which have different names, on the first; nothing on the others.

    Every replica must call it.

    Args:
        tensors: of this replica, on any device.
        team: of two replicas or more.
        device: that the team's group can send from and receive on. The first replica keeps what it receives on the CPU.

    Raises:
        ReplicaLost: another replica does not answer.
    """
    whole = dict(tensors) if team.rank == 0 else {}
    for source, listing in enumerate(_listings(tensors, team, device)):
        if source == 0:
            continue
        for name, dtype, shape in listing:
            travelling = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
            if source == team.rank:
                travelling.copy_(tensors[name])
            team.broadcast(travelling, source)
            if team.rank == 0:
                whole[name] = travelling.cpu()
    return whole


def _listings(
    tensors: Mapping[str, Tensor], team: ReplicaGroup, device: torch.device
) -> list[list[tuple[str, str, list[int]]]]:
    """Name, dtype and shape of everything that each replica holds."""
    listing = [(name, str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in tensors.items()]
    text = torch.tensor(list(json.dumps(listing).encode()), dtype=torch.uint8, device=device)
    lengths = team.all_gather(torch.tensor(len(text), device=device)).tolist()
    padded = torch.zeros(max(lengths), dtype=torch.uint8, device=device)
    padded[: len(text)] = text
    every = team.all_gather(padded).tolist()
    return [json.loads(bytes(line[:length])) for line, length in zip(every, lengths, strict=True)]
