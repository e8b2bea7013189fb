"""Which weights are evaluated, and what is said where there are none, or others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.serial import build_stages
from tests.workers.evaluating.evaluating_runs import make_run, network, small_config, snapshot
from workers.evaluating.checkpoints import load_network
from workers.run.files import RunDir


@pytest.fixture
def config() -> Config:
    return small_config(Path("nowhere"))


def loaded(run: RunDir, config: Config, steps: int | None = None, notes: list[str] | None = None) -> torch.Tensor:
    stages = build_stages(config, 1)
    load_network(run, stages, steps, (notes if notes is not None else []).append)
    return torch.cat([parameter.flatten() for stage in stages for parameter in stage.parameters()])


def weights(config: Config, seed: int) -> torch.Tensor:
    return torch.cat([parameter.flatten() for stage in network(config, seed) for parameter in stage.parameters()])


def test_the_trained_network_or_a_snapshot(tmp_path: Path, config: Config) -> None:
    run = make_run(tmp_path, config, snapshots=(4, 8))
    assert torch.equal(loaded(run, config), weights(config, 0))
    assert torch.equal(loaded(run, config, 4), weights(config, 4))
    assert torch.equal(loaded(run, config, 8), weights(config, 8))


def test_blocks_that_had_not_begun_to_learn_are_named(tmp_path: Path, config: Config) -> None:
    run = make_run(tmp_path, config, trained=False)
    snapshot(run, network(config, 5)[:1], 5)
    notes: list[str] = []
    stages = build_stages(config, 1)
    load_network(run, stages, 5, notes.append)
    assert notes == ["after 5 steps block 2 had not begun to learn: measured as initialised"]
    untouched = build_stages(config, 1)[1].state_dict()
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in stages[1].state_dict().items())


@pytest.mark.parametrize(
    ("trained", "snapshots", "steps", "message"),
    [
        (False, (), None, r"stage_1\.safetensors' does not exist: .*, and it has no snapshots\. Train it first"),
        (False, (4, 12), None, r"^evaluation\.checkpoint: '.*stage_1.*' does not exist: this run has not been trained "
                               r"to its end\. Its newest snapshot is after 12 steps: give evaluation\.checkpoint=12$"),
        (True, (4, 12), 5, r"has no snapshot after 5 steps\. There are snapshots after 4, 12 steps; leave it out for"),
        (False, (4, 12), 5, r"has no snapshot after 5 steps\. There are snapshots after 4, 12 steps$"),
        (True, (), 5, r"has no snapshot after 5 steps\. It has no snapshots; leave it out for the trained network$"),
    ],
)  # fmt: skip
def test_weights_that_are_not_there(
    tmp_path: Path, config: Config, trained: bool, snapshots: tuple[int, ...], steps: int | None, message: str
) -> None:
    run = make_run(tmp_path, config, trained=trained, snapshots=snapshots)
    with pytest.raises(UserError, match=message):
        loaded(run, config, steps)


def without_one(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["block.layer1.0.conv1.weight"]


def wider(tensors: dict[str, torch.Tensor]) -> None:
    tensors["block.layer1.0.conv1.weight"] = torch.zeros(5, 4, 3, 3)


def with_another(tensors: dict[str, torch.Tensor]) -> None:
    tensors["block.layer9.weight"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_one, r"stage_1\.safetensors' does not fit .*\.yaml: it has no 'block\.layer1\.0\.conv1\.weight'\."),
        (wider, r"'block\.layer1\.0\.conv1\.weight' is \[5, 4, 3, 3\] in the file and \[4, 4, 3, 3\] in the network\."),
        (with_another, r"the network has no 'block\.layer9\.weight'\."),
    ],
)  # fmt: skip
def test_weights_of_another_network_name_the_tensor(
    tmp_path: Path, config: Config, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    run = make_run(tmp_path, config)
    tensors = load_file(run.stage(1))
    change(tensors)
    save_file(tensors, run.stage(1))
    with pytest.raises(UserError, match=message):
        loaded(run, config)


def test_damaged_weights(tmp_path: Path, config: Config) -> None:
    run = make_run(tmp_path, config, snapshots=(4, 8))
    run.stage(2).write_bytes(run.stage(2).read_bytes()[:50])
    with pytest.raises(UserError, match=r"stage_2\.safetensors' cannot be read \(.*\)\. Train the run again$"):
        loaded(run, config)
    part = run.snapshot(4) / "stage_2.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged: its digest is not the manifest's\. Give evaluation\.checkpoint=8$"):
        loaded(run, config, 4)
