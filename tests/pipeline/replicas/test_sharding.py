"""The torch engine over several replicas: sums beside the backward, a spread optimizer, and its state in one piece."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.engines import TorchEngine, build_engine
from pipeline.replicas import SOLO, ReplicaGroup
from tests.marks import slow
from tests.pipeline.replicas.replica_cases import ONE_BLOCK, replica_config, train
from tests.pipeline.replicas.replica_team import Failed, Replicas, errors
from tests.pipeline.small import same

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "lars": {"optimizer": {"kind": "lars", "bias_lr": 2.0}},
    "lars_clipped": {"optimizer": {"kind": "lars_clipped"}, "precision": {"channels_last": True}},
    "sgd": {"optimizer": {"kind": "sgd", "nesterov": True, "clip_norm": 0.5, "lr": 0.5}},
    "adamw": {"optimizer": {"kind": "adamw", "lr": 0.01, "exclude": "type"}},
    "fp16": {"optimizer": {"kind": "lars"}, "precision": {"dtype": "fp16"}},
}
MORE = ("lars_clipped", "fp16")


def sections_of(optimizer: dict[str, Any], shard: bool) -> dict[str, Any]:
    settings = {"warmup_epochs": 1, **optimizer["optimizer"]}
    return {"model": ONE_BLOCK, **optimizer, "optimizer": settings, "engine": {"shard_optimizer": shard}}


@pytest.mark.parametrize(
    "optimizer", [(slow if name in MORE else pytest.param)(OPTIMIZERS[name], id=name) for name in OPTIMIZERS]
)
def test_a_spread_optimizer_moves_parameters_by_the_same_bits(replicas: Replicas, optimizer: dict[str, Any]) -> None:
    whole, spread = (
        replicas.run(3, "train", sections=sections_of(optimizer, shard), dtype="float32", steps=4)
        for shard in (False, True)
    )
    assert same(spread[0], whole[0]), "the first has all of the state"
    weights = [name for name in whole[0] if "optimizer." not in name]
    for other in spread[1:]:
        assert sorted(other) == sorted(weights)
        assert all(torch.equal(other[name], whole[0][name]) for name in weights)
    assert len(weights) < len(whole[0])


@pytest.mark.parametrize("kind", ["lars", slow("adamw")])
def test_another_number_of_replicas_goes_on_from_a_snapshot(replicas: Replicas, kind: str, tmp_path: Path) -> None:
    sections = sections_of(OPTIMIZERS[kind], True)
    path = tmp_path / "after_2"
    save_file(replicas.run(2, "train", sections=sections, steps=2)[0], path)
    went_on = replicas.run(2, "train", sections=sections, steps=4, resume=str(path))[0]
    straight = replicas.run(2, "train", sections=sections, steps=4)[0]
    assert same({k: v for k, v in went_on.items() if k[0] == "1"}, {k: v for k, v in straight.items() if k[0] == "1"})
    for other in (
        train(SOLO, sections, 4, resume=str(path)),
        replicas.run(3, "train", sections=sections, steps=4, resume=str(path))[0],
    ):
        worst = errors(other, went_on)
        assert max(worst.values()) < 1e-9, worst


def test_sums_begin_while_the_backward_still_computes(replicas: Replicas) -> None:
    for counts in replicas.run(2, "overlap"):
        assert counts["sums"] == 4, "two layers a bucket"
        assert counts["before first"] == 4, "two layers have a weight and a bias each"
        assert counts["during"] == 4


def test_parameters_without_a_gradient(replicas: Replicas) -> None:
    for results in replicas.run(3, "unused"):
        assert results["all"].tolist() == [2.0] * 3, "the average of 1, 2 and 3"
        assert results["last"].tolist() == [2.0] * 3, "6 on one of three"
        assert results["moved"].tolist() == [0.0] * 3, "no weight decay where there is no gradient"


def test_a_gradient_that_comes_too_late_is_an_error(replicas: Replicas) -> None:
    with pytest.raises(Failed) as caught:
        replicas.run(2, "twice")
    kind, message = caught.value.args
    assert kind == "TrainingError"
    assert "a second gradient in one backward" in message
    assert "use_reentrant=False" in message


def test_one_replica_has_no_hooks_and_no_spread_optimizer() -> None:
    config = replica_config({"model": ONE_BLOCK, "engine": {"shard_optimizer": True}}).stage(1)
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    engine = build_engine(config, module, SOLO, torch.device("cpu"))
    assert isinstance(engine, TorchEngine)
    assert type(engine.optimizer).__name__ == "Lars"
    assert not any(p._post_accumulate_grad_hooks for p in module.parameters())


class Mirrored(ReplicaGroup):
    """Of two replicas that compute the same: every sum is twice what this one has."""

    def start_sum(self, x: torch.Tensor) -> Any:
        x.mul_(2)
        return SimpleNamespace(wait=lambda: None)


def test_two_replicas_that_see_the_same_get_the_gradients_of_one() -> None:
    found = []
    for team in (SOLO, Mirrored(0, 2)):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
        engine = TorchEngine(network, torch.optim.SGD(network.parameters(), lr=0.1), team, bucket_bytes=64)
        for _ in range(2):
            engine.zero_grad()
            engine.backward(network(torch.ones(3, 6)).square().sum())
            engine.await_gradients()
            engine.step()
        found.append(dict(network.named_parameters()) | {f"{n}.grad": p.grad for n, p in network.named_parameters()})
    assert same(*found)


def test_gradients_are_not_ready_before_they_are_awaited() -> None:
    """A sum that is on its way must be waited for: nobody may look at half of it."""
    waited: list[int] = []

    class Slow(Mirrored):
        def start_sum(self, x: torch.Tensor) -> Any:
            return SimpleNamespace(wait=lambda: waited.append(len(x)) or x.mul_(2))

    network = nn.Linear(2, 1, bias=False)
    engine = TorchEngine(network, torch.optim.SGD(network.parameters(), lr=0.1), Slow(0, 2))
    engine.backward(network(torch.ones(1, 2)).sum())
    assert waited == []
    engine.await_gradients()
    assert waited == [3]  # two numbers, and whether there are any
    assert network.weight.grad.tolist() == [[1.0, 1.0]]
