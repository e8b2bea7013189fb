"""What the replicas of a stage are made to do in tests; with `SOLO` the same functions are the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.config import Config
from pipeline.engines import TorchEngine
from pipeline.measures.online import online_measures
from pipeline.objectives import Embeddings, Objective
from pipeline.precision import LossScaler
from pipeline.replicas import ReplicaGroup, SynchronisedBatchNorm
from pipeline.serial import serial_step
from pipeline.stage.stage import Stage
from pipeline.stage.state import restore_stage, snapshot_tensors, stage_counters, stage_tensors
from tests.pipeline.by_hand import backward_by_hand, forward_by_hand, same_gradients, step_by_hand
from tests.pipeline.golden import Golden
from tests.pipeline.replicas.batch_norm_cases import BATCH
from tests.pipeline.replicas.batch_norm_cases import batch_norm as batch_norm
from tests.pipeline.small import STEPS_PER_EPOCH, image_views, same, small_config, views
from tests.pipeline.test_golden import trajectory_of
from workers.topology.replica_group import dissolve_team

ONE_BLOCK = {"cuts": []}


def replica_config(sections: dict[str, Any]) -> Config:
    return small_config(**{**sections, "data": {"batch_size": BATCH, **sections.get("data", {})}})


def batch(
    config: Config, step: int, team: ReplicaGroup, dtype: torch.dtype, poisoned: bool = False
) -> tuple[list[Tensor], Tensor | None]:
    """This replica's rows of every view, `[B / R, 3, S, S]`, and all labels."""
    whole = [view.permute(0, 3, 1, 2).to(dtype) / 255 - 0.5 for view in image_views(config, step, BATCH)]
    if poisoned:
        whole[0][0, 0, 0, 0] = float("inf")  # one pixel of one image, which only the first replica has
    rows = [team.rows(view).contiguous() for view in whole]
    return rows, (torch.arange(BATCH) % 4 if config.uses_labels else None)


def train(
    team: ReplicaGroup,
    sections: dict[str, Any],
    steps: int = 3,
    level: float = 0.25,
    dtype: str = "float64",
    poison: int = -1,
    overflow: int = -1,
    resume: str = "",
) -> dict[str, Tensor]:
    """Train all blocks: losses (-1 for none), skipped steps, state and gradients of every stage after the last step.

    At the step `overflow` a gradient of the second stage overflows, on the first replica alone; `resume` is a file that
    this case has written after as many steps as its name ends with.
    """
    config = replica_config(sections)
    stages = [
        Stage(config, index, STEPS_PER_EPOCH, dtype=getattr(torch, dtype), team=team)
        for index in range(1, config.num_stages + 1)
    ]
    first = _restore(stages, resume) if resume else 0
    losses, skipped = [], []
    for stage in stages:
        if stage.scaler is not None:  # a scale at which nothing overflows by itself
            stage.scaler = LossScaler(torch.device("cpu"), [stage.optimizer], initial_scale=16.0)
    for step in range(first, steps):
        if step == overflow and team.rank == 0:
            weight = next(stages[1].head.parameters())
            hook = weight.register_hook(lambda gradient: gradient * float("inf"))
        inputs, labels = batch(config, step, team, getattr(torch, dtype), step == poison)
        reports = list(serial_step(stages, inputs, step, [level] * len(stages), labels))
        if step == overflow and team.rank == 0:
            hook.remove()
        losses.append([-1.0 if r.loss is None else r.loss for r in reports])
        skipped.append([r.skipped for r in reports])
        terms = [value for r in reports for value in r.terms.values()]
    results = {"losses": torch.tensor([x for row in losses for x in row], dtype=torch.float64)}
    results |= {"skipped": torch.tensor([x for row in skipped for x in row]), "terms": torch.tensor(terms).double()}
    for stage in stages:
        results |= {f"{stage.index}/{name}": t for name, t in stage_tensors(stage).items()}
        gradients = {name: p.grad for name, p in stage.named_parameters() if p.grad is not None}
        results |= {f"{stage.index}/grad/{name}": t for name, t in gradients.items()}
        counters = stage_counters(stage)
        scale = (counters["scaler"] or {}).get("scale", 0.0)
        results[f"{stage.index}/counters"] = torch.tensor([counters["skipped_in_a_row"], scale], dtype=torch.float64)
    return results


def half(team: ReplicaGroup) -> dict[str, Tensor]:
    """Whether a stage in bf16 gives the bits that its parts give by hand: what it sends, loss, gradients, weights."""
    sections = {"noise": {"kind": "all"}, "model": ONE_BLOCK}
    config, bf16 = replica_config({**sections, "precision": {"dtype": "bf16"}}), torch.bfloat16
    stage, parts = (Stage(c, 1, STEPS_PER_EPOCH, team=team) for c in (config, replica_config(sections)))
    found: dict[str, list[bool]] = {"sent": [], "loss": [], "gradients": [], "weights": []}
    for step in range(3):
        inputs, _ = batch(config, step, team, torch.float32)
        outputs = forward_by_hand(parts, inputs, bf16, torch.contiguous_format, step, level=0.25)
        found["sent"].append(torch.equal(stage(inputs, step, 0.25), torch.stack(outputs)))
        found["loss"].append(backward_by_hand(parts, outputs, bf16) == stage.update(step).loss)
        found["gradients"].append(same_gradients(stage, parts))
        step_by_hand(parts, step)
        found["weights"].append(same(dict(stage.state_dict()), dict(parts.state_dict())))
    return {name: torch.tensor(equal) for name, equal in found.items()} | stage_tensors(stage)


def norms(team: ReplicaGroup, sections: dict[str, Any], steps: int = 3) -> dict[str, Tensor]:
    """Of gradient and update at every step, -1 for one that was not measured, `[steps, 2]`."""
    config = replica_config({**sections, "metrics": {"norms_every": 1}})
    stage = Stage(config, 1, STEPS_PER_EPOCH, dtype=torch.float64, team=team)
    found = []
    for step in range(steps):
        inputs, labels = batch(config, step, team, torch.float64)
        (report,) = serial_step([stage], inputs, step, [0.25], labels)
        found.append([-1.0 if norm is None else norm for norm in (report.gradient_norm, report.update_norm)])
    return {"norms": torch.tensor(found, dtype=torch.float64)}


def online(
    team: ReplicaGroup, sections: dict[str, Any], settings: dict[str, Any], steps: int = 6, dtype: str = "float64"
) -> dict[str, Tensor]:
    """Train with `evaluation.online`: what was said at every step, by stage and measure, and the state of everything.

    Weights are left out: those of replicas are compared where they train.
    """
    config = replica_config({**sections, "evaluation": {"online": settings}})
    stages = [
        Stage(config, index, STEPS_PER_EPOCH, dtype=getattr(torch, dtype), team=team)
        for index in range(1, config.num_stages + 1)
    ]
    results: dict[str, list[float]] = {}
    for stage in stages:
        stage.online = online_measures(config, stage.index, 4, STEPS_PER_EPOCH, stage.compute, team)
    for step in range(steps):
        inputs, labels = batch(config, step, team, getattr(torch, dtype))
        for stage, _ in zip(stages, serial_step(stages, inputs, step, [0.25] * len(stages), labels), strict=True):
            for name, value in stage.online.measure(step, labels).items():
                results.setdefault(f"{stage.index}/said/{name}", []).append(value)
    kept = {f"{s.index}/{n}": t for s in stages for n, t in snapshot_tensors(s).items() if n.startswith("online.")}
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in results.items()} | kept


def _restore(stages: list[Stage], path: str) -> int:
    saved = load_file(path)
    for stage in stages:
        mine = f"{stage.index}/"
        tensors = {name.removeprefix(mine): t for name, t in saved.items() if name.startswith(mine)}
        skipped = tensors.pop("counters")[0].item()
        tensors = {name: t for name, t in tensors.items() if not name.startswith("grad/")}
        restore_stage(stage, tensors, {"skipped_in_a_row": skipped, "scaler": None})
    return int(path.rpartition("_")[2])


class Whitened(Objective):
    """A loss of a user's own: it has a batch norm, compares images with one another, and draws numbers."""

    def __init__(self, width: int, drop: float = 0.0) -> None:
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(drop)

    def forward(self, embeddings: Embeddings) -> tuple[Tensor, dict[str, Tensor]]:
        first, second = (self.dropout(self.norm(z)) for z in embeddings.views[:2])
        agreement = F.mse_loss(first, second)
        contrast = F.softplus(first @ second.T / len(first)).mean() + F.softplus(first).mean()
        return agreement + contrast, {"agreement": agreement.detach()}


def dropping() -> nn.Module:
    """A network that draws numbers, and has a batch norm with a cumulative average."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, momentum=None), nn.ReLU(), nn.Dropout(0.5),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Dropout(0.5),
    )  # fmt: skip


def steady() -> nn.Module:
    """As `dropping`, without drawing."""
    network = dropping()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


class Watched(ReplicaGroup):
    """A team that notes when a sum begins."""

    events: list[str]

    def start_sum(self, x: Tensor) -> Any:
        self.events.append("sum")
        return super().start_sum(x)


def overlap(team: ReplicaGroup) -> dict[str, Tensor]:
    """How many sums a backward through eight layers begins, how many before it returns, and after which gradient."""
    torch.manual_seed(0)
    network = nn.Sequential(*[nn.Linear(64, 64) for _ in range(8)])
    watched = Watched(team.rank, team.size, team.group, team.gradient_group)
    object.__setattr__(watched, "events", events := [])
    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: events.append("gradient"))
    engine = TorchEngine(network, torch.optim.SGD(network.parameters(), lr=0.1), watched, bucket_bytes=2 * 64 * 65 * 4)
    engine.backward(network(torch.randn(4, 64)).square().sum())
    events.append("returned")
    engine.await_gradients()
    before_first = events[: events.index("sum")].count("gradient")
    during = events[: events.index("returned")].count("sum")
    counts = {"sums": events.count("sum"), "before first": before_first, "during": during}
    return {name: torch.tensor(count) for name, count in counts.items()}


def unused(team: ReplicaGroup) -> dict[str, Tensor]:
    """Gradients of parameters that all replicas use, that only the last one uses, and that none uses; two steps."""
    network = nn.ParameterDict({name: torch.ones(3) for name in ("all", "last", "none")})
    engine = TorchEngine(network, torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.5), team)
    for _ in range(2):
        engine.zero_grad()
        loss = ((team.rank + 1) * network["all"]).sum()
        if team.rank == team.size - 1:
            loss = loss + (6 * network["last"]).sum()
        engine.backward(loss)
        engine.await_gradients()
        engine.step()
    assert network["none"].grad is None
    return {"all": network["all"].grad, "last": network["last"].grad, "moved": network["none"] - 1}


def twice(team: ReplicaGroup) -> dict[str, Tensor]:
    """A second gradient for a parameter whose average is on its way."""
    network = nn.Linear(3, 3)
    engine = TorchEngine(network, torch.optim.SGD(network.parameters(), lr=0.1), team)
    for _ in range(2):
        engine.backward(network(torch.ones(2, 3)).sum())
    return {}


def leave(team: ReplicaGroup) -> dict[str, Tensor]:
    """The last replica leaves while the others wait for it."""
    if team.rank == team.size - 1:
        dissolve_team()
        return {}
    team.total(torch.ones(3))
    return {}


def converted(team: ReplicaGroup) -> dict[str, Tensor]:
    """Whether the batch norms of BYOL's target, and of its predictor, are over the rows of all replicas."""
    sections = {"model": ONE_BLOCK, "objective": {"kind": "byol", "predictor": [16, 16]}}
    stage = Stage(replica_config(sections), 1, STEPS_PER_EPOCH, team=team)
    assert stage.target is not None
    kinds = [{type(m) for m in part.modules() if isinstance(m, _BatchNorm)} for part in (stage.target, stage.objective)]
    return {
        "target": torch.tensor(kinds[0] == {SynchronisedBatchNorm}),
        "predictor": torch.tensor(kinds[1] == {nn.BatchNorm1d}),
    }


def dropped(team: ReplicaGroup, sections: dict[str, Any]) -> dict[str, Tensor]:
    """What the first stage sends onward of the same four images on every replica."""
    stage = Stage(replica_config(sections), 1, STEPS_PER_EPOCH, team=team)
    return {"output": stage(views(0, batch=4), 0, 0.0)}


def released(sections: dict[str, Any], ranks: int) -> Tensor:
    """The gradient of the first convolution as the released code gets it on so many ranks.

    Every rank sums the cross-correlation over all ranks without differentiating the sum, so its gradient is that of
    its own rows; DistributedDataParallel then averages what would have to be summed.
    """
    config = replica_config(sections)
    stage = Stage(config, 1, STEPS_PER_EPOCH, dtype=torch.float64)
    inputs, _ = batch(config, 0, ReplicaGroup(), torch.float64)
    stage(inputs, 0, 0.25)
    assert stage.head is not None
    z1, z2 = (F.batch_norm(stage.head(output), None, None, training=True) for output in stage.outputs)
    parts = [first.T @ second / len(z1) for first, second in zip(z1.chunk(ranks), z2.chunk(ranks), strict=True)]
    average = torch.zeros_like(stage.block.conv1.weight)
    for own in parts:
        c = own + sum(other.detach() for other in parts if other is not own)
        diagonal = c.diagonal()
        off_diagonal = c.square().sum() - diagonal.square().sum()
        loss = stage.config.objective.scale * (
            (diagonal - 1).square().sum() + stage.config.objective.lambd * off_diagonal
        )
        (gradient,) = torch.autograd.grad(loss, stage.block.conv1.weight, retain_graph=True)
        average += gradient / ranks
    return average


def golden(team: ReplicaGroup, folder: str, trajectory: str) -> dict[str, Tensor]:
    """The training steps that the released code was recorded at."""
    return dict(zip(("losses", "norms", "sums"), trajectory_of(Golden(Path(folder)), trajectory, team), strict=True))
