"""What the replicas of a stage are made to do in tests of what is computed again; see `replica_cases`."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.engines import TorchEngine
from pipeline.replicas import ReplicaGroup
from pipeline.serial import serial_step
from pipeline.stage.stage import Stage
from tests.pipeline.replicas.replica_cases import Watched, batch, replica_config
from tests.pipeline.small import STEPS_PER_EPOCH


def by_view(team: ReplicaGroup) -> dict[str, Tensor]:
    """Two views that are computed again, the last first: when sums begin, and whether they are of both views."""
    torch.manual_seed(0)
    network = nn.Sequential(*[nn.Linear(16, 16) for _ in range(8)])
    goal = nn.Parameter(torch.randn(16))  # of the loss, so only the first backward pass comes to it
    parts = nn.ModuleDict({"network": network, "objective": nn.ParameterList([goal])})
    watched = Watched(team.rank, team.size, team.group, team.gradient_group)
    object.__setattr__(watched, "events", events := [])
    for parameter in parts.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: events.append("gradient"))
    engine = TorchEngine(parts, torch.optim.SGD(parts.parameters(), lr=0.1), watched, bucket_bytes=2 * 16 * 17 * 4)
    rows = [team.rows(torch.randn(6, 16)) for _ in range(2)]
    with torch.no_grad():
        embeddings = [network(x).requires_grad_() for x in rows]
    engine.backward(sum((z - goal).square().sum() for z in embeddings))
    for number in (1, 0):
        events.append(f"view {number + 1}")
        engine.backward_again(network(rows[number]), embeddings[number].grad, last=number == 0)
    events.append("returned")
    engine.await_gradients()
    found = [p.grad.clone() for p in parts.parameters()]
    engine.zero_grad()
    engine.backward(sum((network(x) - goal).square().sum() for x in rows))
    engine.await_gradients()
    early = events[events.index("view 2") : events.index("view 1")].count("sum")
    late = events[events.index("view 1") : events.index("returned")].count("sum")
    same_bits = [torch.equal(p.grad, gradient) for p, gradient in zip(parts.parameters(), found, strict=True)]
    return {"early": torch.tensor(early), "late": torch.tensor(late), "same": torch.tensor(same_bits)}


def gathered(team: ReplicaGroup, sections: dict[str, Any]) -> dict[str, Tensor]:
    """How often one step of all blocks asks the other replicas for statistics, rows or sums."""
    config, asked = replica_config(sections), 0
    stages = [Stage(config, index, STEPS_PER_EPOCH, team=team) for index in range(1, config.num_stages + 1)]
    all_gather = dist.all_gather

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        return all_gather(*arguments, **options)

    inputs, labels = batch(config, 0, team, torch.float32)
    dist.all_gather = counting
    try:
        list(serial_step(stages, inputs, 0, [0.25] * len(stages), labels))
    finally:
        dist.all_gather = all_gather
    return {"asked": torch.tensor(asked)}
