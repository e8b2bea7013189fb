"""A stage under DeepSpeed against the same under torch: what it learns, what its snapshots hold, what it skips."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.optim import build_optimizer
from pipeline.replicas.team import SOLO
from pipeline.validation.topology import check_topology
from tests.pipeline.engines.deepspeed_cases import (
    CASES,
    OFFLOADED,
    REFUSED,
    STAGES,
    STEPS,
    keep_masters,
    loss_of,
    make_module,
    set_rate,
    stage_config,
    stage_with_masters,
    state_of_masters,
    whole_stage,
)
from tests.pipeline.replicas.replica_team import LIMIT
from tests.runs import session_server

pytestmark = pytest.mark.processes
PEER = "tests.pipeline.engines.deepspeed_peer"
CPU = torch.device("cpu")
WAYS = ("resumed", "resumed_at_once", "skipping")
Results = dict[str, Tensor]


def run_team(folder: Path, size: int, *options: str, limit: float) -> Results:
    """Results of a team of `size`; kills it after `limit` seconds."""
    results, store = folder / f"{size}.safetensors", f"file://{folder / f'store{size}'}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = folder / f"{size}.log"
    with said.open("w") as log, Path(os.devnull).open() as nothing:
        streams = (nothing.fileno(), log.fileno(), log.fileno())
        sys.audit("tests.process", PEER)
        members = [
            session_server().run(PEER, (str(rank), str(size), store, str(results), *options), environment, streams)
            for rank in range(size)
        ]
    try:
        codes = [member.wait(limit) for member in members]
    finally:
        for member in members:
            member.kill()
    assert codes == [0] * size, said.read_text()
    return load_file(results)


@pytest.fixture(scope="module")
def teams(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Results]:
    """One replica, and two that also go on from what the one left."""
    folder = tmp_path_factory.mktemp("deepspeed")
    one = run_team(folder, 1, limit=LIMIT)
    return {1: one, 2: run_team(folder, 2, str(folder / "1.safetensors"), limit=LIMIT)}


@pytest.fixture(scope="module")
def offloaded(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Results]:
    folder = tmp_path_factory.mktemp("offloaded")
    one = run_team(folder, 1, "offload", limit=LIMIT)
    return {1: one, 2: run_team(folder, 2, "offload", str(folder / "1.safetensors"), limit=LIMIT)}


def part(results: Results, case: str, what: str) -> Results:
    prefix = f"{case}/{what}/"
    found = {name.removeprefix(prefix): value for name, value in results.items() if name.startswith(prefix)}
    assert found, prefix
    return found


def state(results: Results, case: str, what: str = "straight") -> Results:
    """What a snapshot holds, without the parameters as they were in the module."""
    return {name: value for name, value in part(results, case, what).items() if not name.startswith("live.")}


def torch_alone(case: str, shares: Sequence[int] = (1,) * STEPS) -> Results:
    """The state that torch's optimizer gives one process, with the mean gradient of so many shares of each batch."""
    config, half = stage_config({**CASES, **OFFLOADED}[case]), case.startswith("bf16")
    module = make_module(half)
    optimizer = build_optimizer(config.optimizer, module)
    moved = keep_masters(module, optimizer) if half else dict(module.named_parameters())
    for step, count in enumerate(shares):
        module.zero_grad()
        for share in range(count):
            loss_of(module, step, share, count, half).backward()
        for p in moved.values():
            p.grad /= count
        set_rate(optimizer, step)
        if config.optimizer.clip_norm is not None:
            assert clip_grad_norm_(moved.values(), config.optimizer.clip_norm) > config.optimizer.clip_norm
        optimizer.step()
    return {**dict(module.named_buffers()), **state_of_masters(moved, optimizer)}


def assert_equal(found: Results, wanted: Results) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def assert_near(found: Results, wanted: Results, **tolerance: float) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def assert_learned(found: Results, case: str, shares: Sequence[int]) -> None:
    """To the bit, but for the factor that clips: that is rounded otherwise, and changes the 7th digit."""
    wanted = torch_alone(case, shares)
    if case.startswith("clipped"):
        assert_near(found, wanted, rtol=1e-5, atol=1e-6)
    else:
        assert_equal(found, wanted)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("case", [name for name in CASES if not name.startswith("bf16")])
def test_it_learns_what_torch_learns_from_all_shares_of_the_batch(
    teams: dict[int, Results], case: str, size: int
) -> None:
    assert_learned(state(teams[size], case), case, (size,) * STEPS)


@pytest.mark.parametrize("size", [1, 2])
def test_two_runs_are_equal_to_the_bit(teams: dict[int, Results], size: int) -> None:
    assert_equal(state(teams[size], "adamw-2", "again"), state(teams[size], "adamw-2"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_stopped_or_skipped_goes_on_to_the_bit(
    teams: dict[int, Results], case: str, size: int, way: str
) -> None:
    assert_equal(state(teams[size], case, way), state(teams[size], case))


@pytest.mark.parametrize("case", CASES)
def test_two_replicas_take_over_what_one_left(teams: dict[int, Results], case: str) -> None:
    assert_equal(state(teams[2], case, "taken_over"), state(teams[1], case, "early"))


@pytest.mark.parametrize("case", [name for name in CASES if not name.startswith("bf16")])
def test_two_replicas_go_on_from_what_one_left(teams: dict[int, Results], case: str) -> None:
    assert_learned(state(teams[2], case, "regrouped"), case, (1, 1, 1, 2, 2))


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("case", ["adamw-1", "adamw-2", "clipped-1", "sgd-1", "bf16-0", "bf16-1", "bf16-2"])
def test_a_gradient_that_is_not_finite_moves_no_replica(teams: dict[int, Results], case: str, size: int) -> None:
    found = part(teams[size], case, "overflowing")
    assert not found["moved"]
    assert found["same"]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("case", ["bf16-0", "bf16-1", "bf16-2", "bf16-lars-0"])
def test_bf16_has_masters_in_fp32(teams: dict[int, Results], case: str, size: int) -> None:
    found, masters = part(teams[size], case, "straight"), state(teams[size], case)
    for name, _ in make_module(normalised=True).named_parameters():
        assert found[f"live.{name}"].dtype == torch.bfloat16
        assert masters[name].dtype == torch.float32
        assert torch.equal(masters[name].to(torch.bfloat16), found[f"live.{name}"]), name
    assert any(not torch.equal(v, v.to(torch.bfloat16).float()) for v in masters.values() if v.is_floating_point())
    assert masters["block.1.running_var"].dtype == torch.float32


@pytest.mark.parametrize("case", ["bf16-0", "bf16-1", "bf16-2", "bf16-lars-0"])
def test_bf16_learns_to_the_bit_what_torch_teaches_the_masters(teams: dict[int, Results], case: str) -> None:
    assert_equal(state(teams[1], case), torch_alone(case))


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("case", ["bf16-0", "bf16-1", "bf16-2"])
def test_bf16_begins_with_weights_that_were_not_rounded(teams: dict[int, Results], case: str, size: int) -> None:
    untrained = make_module(normalised=True).state_dict()
    assert_equal(part(teams[size], case, "untrained"), untrained)


@pytest.mark.parametrize("case", STAGES)
def test_a_stage_of_the_pipeline(teams: dict[int, Results], case: str) -> None:
    """With batch norm over all replicas, channels_last and the target of BYOL; against torch in one process.

    Before the weights move, other sums change a loss or norm in bf16 by 1e-3 of its size at most; rows, replicas or
    parameters that are left out, and clipping, by a third and more. What one replica learns is then known to the bit.
    """
    wanted = whole_stage({**STAGES[case], "engine": {"kind": "torch"}}, SOLO)
    gradient, update = wanted.pop("live.norms").tolist()
    exact = "precision" not in STAGES[case]
    for size in (1, 2):
        found = state(teams[size], case)
        norms = part(teams[size], case, "straight")["live.norms"].tolist()
        near = 1e-4 if exact else 0.03
        assert norms[0] == pytest.approx(gradient, rel=near), "of the whole stage, not clipped"
        assert norms[1] == (pytest.approx(update, rel=1e-4) if exact else -1), (
            "bf16 does not show what masters moved by"
        )
        assert found["same"]
        torch.testing.assert_close(found["losses"][:2], wanted["losses"][:2], rtol=near, atol=0)
    alone = state(teams[1], case)
    by_hand = wanted if exact else stage_with_masters(STAGES[case]) | {"same": alone["same"]}
    if STAGES[case]["optimizer"].get("clip_norm"):  # DeepSpeed rounds the factor otherwise
        assert torch.equal(alone["losses"][:2], by_hand["losses"][:2])
    else:
        assert_equal(alone, by_hand)


def test_lars_under_zero_would_scale_a_group_instead_of_a_layer(teams: dict[int, Results]) -> None:
    """Why the configuration refuses it: the ratio becomes that of all weights of a group as one vector."""
    found, layer_wise = state(teams[1], "lars-1"), torch_alone("lars-0")
    assert not torch.allclose(found["head.weight"], layer_wise["head.weight"], atol=1e-4)
    module = make_module()
    flat = flattened_lars(module)
    torch.testing.assert_close(found["head.weight"], flat["head.weight"])
    torch.testing.assert_close(found["block.0.weight"], flat["block.0.weight"])
    config = Config.model_validate({**REFUSED["lars-1"], "engine": {"kind": "deepspeed", "zero_stage": 1}})
    with pytest.raises(ConfigError, match="the norms of single layers, which LARS needs, would silently be lost"):
        check_topology(config)


def flattened_lars(module: nn.ModuleDict) -> Results:
    """Torch's LARS on one vector a group, which is what ZeRO makes of the parameters."""
    optimizer = build_optimizer(stage_config(REFUSED["lars-1"]).optimizer, module)
    groups = [list(group["params"]) for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["params"] = [nn.Parameter(torch.cat([p.detach().flatten() for p in group["params"]]))]
    for step in range(STEPS):
        module.zero_grad()
        loss_of(module, step, 0, 1).backward()
        set_rate(optimizer, step)
        for group, parameters in zip(optimizer.param_groups, groups, strict=True):
            group["params"][0].grad = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        optimizer.step()
        with torch.no_grad():
            for group, parameters in zip(optimizer.param_groups, groups, strict=True):
                pieces = group["params"][0].split([p.numel() for p in parameters])
                for parameter, piece in zip(parameters, pieces, strict=True):
                    parameter.copy_(piece.view_as(parameter))
    return dict(module.state_dict())


@pytest.mark.slow  # DeepSpeed compiles its Adam, most of a minute the first time, and both teams take 25 s each
@pytest.mark.timeout(400)
def test_adam_in_host_memory(offloaded: dict[int, Results]) -> None:
    for case in OFFLOADED:
        for size in (1, 2):
            assert_near(state(offloaded[size], case), torch_alone(case), rtol=1e-5, atol=1e-6)
            for way in WAYS:
                assert_equal(state(offloaded[size], case, way), state(offloaded[size], case))
            assert not part(offloaded[size], case, "overflowing")["moved"]
        assert_equal(state(offloaded[2], case, "taken_over"), state(offloaded[1], case, "early"))
