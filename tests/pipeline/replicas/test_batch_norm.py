"""Batch norm over the rows of several replicas is torch's batch norm over the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.replicas import SOLO, KeptMoments, ReplicaGroup, SynchronisedBatchNorm, synchronise_batch_norms
from tests.pipeline.replicas.batch_norm_cases import LAYERS, batch_norm
from tests.pipeline.replicas.replica_team import Replicas
from tests.pipeline.small import same

TWO = ReplicaGroup(0, 2)


def joined(found: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The rows of all replicas, and what all of them agree on."""
    for name in found[0]:
        rows = name.endswith(("output", "input gradient"))
        assert rows or all(torch.equal(found[0][name], other[name]) for other in found), f"replicas differ in {name}"
        found[0][name] = torch.cat([other[name] for other in found]) if rows else found[0][name]
    return found[0]


@pytest.mark.parametrize("evaluate", [False, True])
@pytest.mark.parametrize("layer", list(LAYERS))
def test_it_is_batch_norm_over_the_whole_batch(replicas: Replicas, layer: str, evaluate: bool) -> None:
    expected = batch_norm(SOLO, layer, evaluate=evaluate)
    found = joined(replicas.run(3, "batch_norm", layer=layer, evaluate=evaluate))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-12, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("layer", ["map", "not affine", "2-d"])
def test_half_precision_computes_in_float32_and_rounds_what_leaves_once(replicas: Replicas, layer: str) -> None:
    """One rounding to bf16 is at most 2^-8 of the value, on any processor; statistics in bf16 would be off by more."""
    dtypes = {name: value.dtype for name, value in batch_norm(SOLO, layer, "bfloat16").items()}
    expected = batch_norm(SOLO, layer, "float32")
    found = joined(replicas.run(2, "batch_norm", layer=layer, dtype="bfloat16"))
    assert {name: value.dtype for name, value in found.items()} == dtypes
    for name, value in expected.items():
        rounding = 2**-8 if dtypes[name] == torch.bfloat16 else 0.0
        torch.testing.assert_close(found[name].to(value.dtype), value, rtol=rounding + 2e-5, atol=2e-5)
    assert found["2/0.running_mean"].dtype == torch.float32


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4, affine=False)))


def test_parameters_buffers_and_names_stay() -> None:
    layers = network()
    before = dict(layers.named_parameters()) | dict(layers.named_buffers())
    state = {name: tensor.clone() for name, tensor in layers.state_dict().items()}
    synchronise_batch_norms([layers, None], TWO)
    after = dict(layers.named_parameters()) | dict(layers.named_buffers())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)
    assert same(state, dict(layers.state_dict()))
    assert [type(layers[1]), type(layers[2][0])] == [SynchronisedBatchNorm] * 2
    layers.double().load_state_dict(state)
    assert layers[1].running_var.dtype == torch.float64


def test_a_layer_that_stands_in_two_places_stays_one() -> None:
    norm = nn.BatchNorm2d(4)
    layers = nn.Sequential(norm, nn.Sequential(norm))
    synchronise_batch_norms([layers], TWO)
    assert layers[0] is layers[1][0]


def test_alone_torchs_own_stays() -> None:
    layers = network()
    synchronise_batch_norms([layers], SOLO)
    assert type(layers[1]) is nn.BatchNorm2d


class Own(nn.BatchNorm2d):
    """A layer of a user's own, of which nothing is known."""


@pytest.mark.parametrize("layer", [Own(4), nn.InstanceNorm2d(4, track_running_stats=True)], ids=["own", "instance"])
def test_other_statistics_of_the_batch_are_refused(layer: nn.Module) -> None:
    with pytest.raises(
        ConfigError, match=r"^replicas: '1\.0' of the network is a .*(Own|InstanceNorm2d), whose stat.*Give 1"
    ):
        synchronise_batch_norms([nn.Sequential(nn.ReLU(), nn.Sequential(layer))], TWO)


def test_instance_norm_without_running_statistics_is_left_alone() -> None:
    layers = nn.Sequential(nn.InstanceNorm2d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4))
    kinds = [type(layer) for layer in layers]
    synchronise_batch_norms([layers], TWO)
    assert [type(layer) for layer in layers] == kinds


def test_moments_that_were_kept_come_again_in_their_order_and_nobody_is_asked() -> None:
    group = KeptMoments.of(SOLO)
    first = [group.moments(lambda value=value: (torch.tensor(value), torch.tensor(0.0)))[0] for value in (1.0, 2.0)]
    for _ in range(2):
        group.rewind()
        assert [group.moments(lambda: pytest.fail("asked again"))[0] for _ in first] == first


class Mirrored(ReplicaGroup):
    """Of two replicas that have the same rows: what one gives, both give."""

    def all_gather(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.detach()] * 2)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (6, 5, 3, 4)])
def test_two_replicas_with_the_same_rows_compute_what_one_computes_of_both(shape: tuple[int, ...]) -> None:
    """The variance that is remembered is unbiased: it counts the numbers of a channel on all replicas."""
    layer = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    whole, shared = nn.Sequential(layer(5)).double(), nn.Sequential(layer(5)).double()
    synchronise_batch_norms([shared], Mirrored(0, 2))
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    part, both = rows.clone().requires_grad_(), torch.cat([rows, rows]).requires_grad_()
    output, expected = shared(part), whole(both)
    weights = torch.linspace(-1, 1, rows.numel(), dtype=torch.float64).view(shape)
    (output * weights).sum().backward()
    (expected * torch.cat([weights, weights])).sum().backward()
    tolerance = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(output, expected[:6], **tolerance)
    torch.testing.assert_close(part.grad, both.grad[:6], **tolerance)
    torch.testing.assert_close(dict(shared.state_dict()), dict(whole.state_dict()), **tolerance)
    torch.testing.assert_close(2 * shared[0].weight.grad, whole[0].weight.grad, **tolerance)
