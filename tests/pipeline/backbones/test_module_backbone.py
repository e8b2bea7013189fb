"""Any module, cut: the blocks together are the network uncut, and hold nothing twice."""

from __future__ import annotations

import copy
import importlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from pipeline.backbones import TracedBlock, build_block
from pipeline.backbones.module import measure
from pipeline.config import Config
from pipeline.config.model import ModuleConfig
from pipeline.shapes import block_output, boundary_shapes, channels_of, check_model
from tests.pipeline.backbones.blocks import blocks_of, images, merged

pytestmark = pytest.mark.long

TORCHVISION = "torchvision.models:"
USERS = "networks_for_cutting:"


@pytest.fixture(autouse=True)
def _folder_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(Path(__file__).with_name("networks_for_cutting.py"), tmp_path)
    monkeypatch.chdir(tmp_path)


def config_of(backbone: str, output: str, cuts: Sequence[str] = (), size: int = 32, batch: int = 2) -> Config:
    options = {"init_weights": False} if "inception" in backbone else {}
    model = {"backbone": backbone, "options": options, "output": output, "cuts": list(cuts)}
    data = {"image_size": size, "batch_size": batch}
    return Config.model_validate_json(json.dumps({"seed": 4, "model": model, "data": data}))


def through(blocks: list[nn.Module], x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def output_of(network: nn.Module, name: str, x: Tensor) -> Tensor:
    """What the module `name` gives when the network runs."""
    seen: list[Tensor] = []
    handle = network.get_submodule(name).register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
    network(x)
    handle.remove()
    return seen[0]


FAMILIES = [
    ("mobilenet_v3_small", 32, "features", ["features.0", "features.3", "features.8"], ("classifier.",)),
    ("convnext_tiny", 32, "avgpool", ["features.1", "features.5.3", "features"], ("classifier.",)),
    (
        "densenet121",
        32,
        "features",
        ["features.norm0", "features.transition2"],
        ("classifier.",),
    ),
    ("inception_v3", 80, "Mixed_7c", ["Mixed_5d", "Mixed_6e"], ("fc.", "AuxLogits.")),
    ("shufflenet_v2_x0_5", 32, "conv5", ["maxpool", "stage2", "stage3.1"], ("fc.",)),
]
LARGE = ("convnext_tiny", "inception_v3")


@pytest.mark.parametrize(
    ("name", "size", "output", "cuts", "rest"),
    [pytest.param(*row, marks=[pytest.mark.slow] * (row[0] in LARGE), id=row[0]) for row in FAMILIES],
)
def test_the_blocks_together_are_torchvisions_network(
    name: str, size: int, output: str, cuts: list[str], rest: tuple[str, ...]
) -> None:
    config = config_of(TORCHVISION + name, output, cuts, size)
    assert isinstance(config.model, ModuleConfig)
    blocks = blocks_of(config)
    reference = torchvision.models.get_model(name, weights=None, **config.model.options)
    result = reference.load_state_dict(merged(blocks), strict=False)
    assert not result.unexpected_keys
    assert all(key.startswith(rest) for key in result.missing_keys)
    for module in (reference, *blocks):
        module.eval()
    with torch.inference_mode():
        assert torch.equal(through(blocks, images(size)), output_of(reference, output, images(size)))


USERS_NETWORKS = [
    ("plain", "5", ["0", "1", "2", "3", "4"]),
    ("Functional", "second", ["first"]),
    ("Constants", "b", ["a"]),
    ("InPlace", "c", ["a", "b"]),
    ("TokensOf", "norm", ["embed", "tokens", "mix"]),
]


@pytest.mark.parametrize(("name", "output", "cuts"), USERS_NETWORKS, ids=[row[0] for row in USERS_NETWORKS])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_blocks_together_are_the_users_network(name: str, output: str, cuts: list[str], training: bool) -> None:
    blocks = blocks_of(config_of(USERS + name, output, cuts))
    reference = getattr(importlib.import_module(USERS[:-1]), name)()
    result = reference.load_state_dict(merged(blocks), strict=False)
    assert not result.unexpected_keys
    assert all(key.startswith("head.") for key in result.missing_keys)
    for module in (reference, *blocks):
        module.train(training)
    assert torch.equal(through(blocks, images()), output_of(reference, output, images()))


@pytest.mark.parametrize(
    ("name", "output", "cuts"),
    [*((USERS + name, output, cuts) for name, output, cuts in USERS_NETWORKS)]
    + [(TORCHVISION + name, output, cuts) for name, _, output, cuts, _ in FAMILIES[:1]],
)
def test_the_cut_does_not_change_the_network(name: str, output: str, cuts: list[str]) -> None:
    whole, one, all_cuts = (blocks_of(config_of(name, output, some)) for some in ([], cuts[:1], cuts))
    expected, weights = through(whole, images()), merged(whole)
    for blocks in (one, all_cuts):
        assert torch.equal(through(blocks, images()), expected)
        again = merged(blocks)
        assert set(again) == set(weights)
        assert all(torch.equal(again[key], weights[key]) for key in weights)


def test_the_mode_of_a_block_is_the_mode_of_the_networks_own_forward() -> None:
    first, second = blocks_of(config_of(USERS + "Modes", "b", ["a"]))
    x = first(images()).detach()
    trained = second(x)
    torch.testing.assert_close(trained, second.get_submodule("b")(x * 3))
    torch.testing.assert_close(second.eval()(x), second.get_submodule("b")(x))
    assert torch.equal(second.train()(x), trained)
    assert set(merged([first, second])) == {"a.weight", "a.bias", "b.weight", "b.bias"}


def test_a_block_holds_its_own_part_alone() -> None:
    first, second = blocks_of(config_of(USERS + "Functional", "second", ["first"]))
    assert set(first.state_dict()) == {"first.weight", "first.bias"}
    assert set(second.state_dict()) == {"scale", "shift", "second.weight", "second.bias"}
    second(first(images()).detach()).sum().backward()
    assert all(parameter.grad is not None for parameter in second.parameters())


def test_constants_move_with_the_block_and_are_not_saved() -> None:
    first, second = blocks_of(config_of(USERS + "Constants", "b", ["a"]))
    assert set(first.state_dict()) == {"a.weight", "a.bias", "gain"}
    assert set(second.state_dict()) == {"b.c.weight", "b.c.bias"}
    assert {name for name, _ in second.named_buffers()} >= {"mean", "unsaved"}
    assert {buffer.dtype for buffer in second.double().buffers()} == {torch.float64}


def test_a_copy_of_a_block_is_independent_and_complete() -> None:
    block = build_block(config_of(USERS + "Constants", "b", ["a"]), 1)
    assert isinstance(block, TracedBlock)
    twin = copy.deepcopy(block)
    assert list(twin.state_dict()) == list(block.state_dict())
    x = images()
    before = block(x)
    with torch.no_grad():
        for tensor in [*block.parameters(), *block.buffers()]:
            tensor.zero_()
    assert torch.equal(twin(x), before)
    assert not torch.equal(block(x), before)


@pytest.mark.parametrize(
    ("name", "output", "cuts"),
    [("plain", "5", ["0", "1", "2", "3", "4"]), ("InPlace", "c", ["a", "b"]), ("Functional", "second", ["first"])],
)
def test_no_block_writes_into_its_input(name: str, output: str, cuts: list[str]) -> None:
    x = images()
    for block in blocks_of(config_of(USERS + name, output, cuts)):
        before = x.clone()
        after = block(x).detach()
        assert torch.equal(x, before)
        x = after


def test_only_the_block_that_would_write_copies() -> None:
    config = config_of(USERS + "plain", "5", ["0", "1", "2"])
    assert isinstance(config.model, ModuleConfig)
    assert [facts.overwrites_input for facts in measure(config.model, 32)] == [False, False, True, False]


def test_weights_come_from_the_seed_alone() -> None:
    def weights(seed: int) -> Tensor:
        config = config_of(USERS + "plain", "5", ["2"]).model_copy(update={"seed": seed})
        return build_block(config, 2).state_dict()["3.0.weight"]

    torch.manual_seed(1)
    one = weights(4)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), expected), "building drew from the global generator"
    assert torch.equal(weights(4), one)
    assert not torch.equal(weights(5), one)


def test_options_reach_the_function() -> None:
    config = config_of(USERS + "plain", "5")
    model = config.model.model_copy(update={"options": {"width": 7}})
    assert block_output(config.model_copy(update={"model": model}), 1) == (7, 15, 15)
    assert block_output(config, 1) == (4, 15, 15)


@pytest.mark.parametrize(("batch", "size"), [(1, 32), (7, 47)])
@pytest.mark.parametrize(
    ("name", "output", "cuts"),
    [
        (USERS + "Constants", "b", ["a"]),  # cannot run on the meta device
        (USERS + "TokensOf", "norm", ["embed", "tokens"]),
        (TORCHVISION + "mobilenet_v3_small", "features", ["features.0", "features.8"]),
    ],
)
def test_shapes_without_data_are_the_real_shapes(
    name: str, output: str, cuts: list[str], batch: int, size: int
) -> None:
    config = config_of(name, output, cuts, size, batch)
    check_model(config)
    shapes = boundary_shapes(config)
    assert shapes[0] == (2, batch, size, size, 3)
    x = torch.zeros(batch, 3, size, size)
    for index, block in enumerate(blocks_of(config), 1):
        x = block.eval()(x)
        assert (2, *x.shape) == shapes[index]
        assert channels_of(block_output(config, index)) == x.shape[1 if x.dim() == 4 else 2]


def test_the_path_of_python_is_left_as_it_was() -> None:
    before = list(sys.path)
    build_block(config_of(USERS + "plain", "5"), 1)
    assert sys.path == before
