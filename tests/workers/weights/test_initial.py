"""Which weights a run begins with: those of a file by its names, and a table of what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.serial import build_stages
from pipeline.validation.loading import dump_config
from tests.pipeline.small import same, small_config, state
from workers.run.files import RunDir
from workers.snapshots.initial import begin
from workers.snapshots.weights import save_stage
from workers.weights.fitting import MisfitError
from workers.weights.initial_main import initial_weights

FULL = {"backbone": "resnet18", "stem": "imagenet"}


def run_in(folder: Path) -> RunDir:
    folder.mkdir(exist_ok=True)
    return RunDir(folder)


def initialised(config: Config, run: RunDir) -> tuple[list[str], list[dict[str, torch.Tensor]]]:
    """What is said of the source, and the stages' states when they begin."""
    notes = initial_weights(config, run)
    stages = build_stages(config, 4)
    begin(run, stages)
    return notes, [state(stage) for stage in stages]


@pytest.fixture(scope="module")
def torchvisions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    torch.manual_seed(3)
    save_file(torchvision.models.resnet18().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, torch.Tensor]]]:
    """A run of another seed that has been trained to its end, as far as its files say."""
    run, config = RunDir(tmp_path_factory.mktemp("trained")), small_config(seed=5)
    run.config.write_text(dump_config(config))
    stages = build_stages(config, 4)
    for stage in stages:
        save_stage(run, stage)
    return run.path, [state(stage) for stage in stages]


def test_torchvisions_weights_are_the_backbones(torchvisions: Path, tmp_path: Path) -> None:
    config = small_config(model=FULL, data={"image_size": 32}, init_from=str(torchvisions))
    notes, states = initialised(config, run_in(tmp_path / "run"))
    assert "stages 1 to 4 begin with" in notes[0]
    assert "names of torchvision and timm; no heads; without the classifier (fc.weight, fc.bias)" in notes[0].replace(
        "(fc.bias, fc.weight)", "(fc.weight, fc.bias)"
    )
    given = load_file(torchvisions)
    blocks = {n.removeprefix("block."): t for each in states for n, t in each.items() if n.startswith("block.")}
    assert same(blocks, {name: tensor for name, tensor in given.items() if not name.startswith("fc.")})
    drawn = [state(stage) for stage in build_stages(config, 4)]
    heads = [{n: t for n, t in each.items() if n.startswith("head.")} for each in states]
    assert all(same(head, {n: drawn[k][n] for n in head}) for k, head in enumerate(heads))


def test_a_run_gives_its_heads_too_and_no_state_of_an_optimizer(trained: Any, tmp_path: Path) -> None:
    path, before = trained
    notes, states = initialised(small_config(init_from=str(path)), run_in(tmp_path / "run"))
    assert "heads of stages 1 to 4" in notes[0]
    assert all(same(one, other) for one, other in zip(states, before, strict=True))
    _, without = initialised(small_config(init_from={"path": str(path), "heads": False}), run_in(tmp_path / "other"))
    assert not same(without[0], before[0])


def test_another_cut_takes_the_backbone_and_says_why_no_head(trained: Any, tmp_path: Path) -> None:
    path, before = trained
    config = small_config(
        model={**small_config().model.model_dump(mode="json"), "cuts": ["layer2"]}, init_from=str(path)
    )
    notes, states = initialised(config, run_in(tmp_path / "run"))
    assert "heads of stage 2; not the head of stage 1" not in notes[0]
    assert "not the head of stage 1 (stages.1.head." in notes[0]
    joined = {n: t for each in before for n, t in each.items() if n.startswith("block.")}
    ours = {n: t for each in states for n, t in each.items() if n.startswith("block.")}
    assert same(ours, joined)


def test_each_stage_may_begin_with_other_weights(trained: Any, torchvisions: Path, tmp_path: Path) -> None:
    path, before = trained
    config = small_config(stages={2: {"init_from": str(path)}})
    _, states = initialised(config, run_in(tmp_path / "run"))
    drawn = [state(stage) for stage in build_stages(config, 4)]
    assert [same(a, b) for a, b in zip(states, before, strict=True)] == [False, True, False, False]
    assert [same(a, b) for a, b in zip(states, drawn, strict=True)] == [True, False, True, True]


def test_the_released_checkpoint_is_taken_by_its_names(tmp_path: Path) -> None:
    from tests.pipeline.test_golden import released_name

    config = small_config(seed=9)
    tensors = {f"module.{released_name(stage.index, n)}": t.clone() for stage in build_stages(config, 4)
               for n, t in stage.state_dict().items() if not n.endswith("num_batches_tracked")}  # fmt: skip
    file = tmp_path / "released.safetensors"
    save_file(tensors, file)
    notes, states = initialised(small_config(init_from=str(file)), run_in(tmp_path / "run"))
    assert "names of released blockwise code, after 'module.'; heads of stages 1 to 4" in notes[0]
    expected = [state(stage) for stage in build_stages(config, 4)]
    assert all(same(one, other) for one, other in zip(states, expected, strict=True))


def test_what_does_not_fit_is_a_table_unless_it_is_allowed_by_name(torchvisions: Path, tmp_path: Path) -> None:
    tensors = load_file(torchvisions)
    del tensors["layer2.0.conv1.weight"]
    tensors["bn1.weight"] = torch.ones(63)
    tensors["layer9.extra"] = torch.ones(1)
    tensors["bn1.bias"] = torch.ones(64, dtype=torch.int32)
    file = tmp_path / "odd.safetensors"
    save_file(tensors, file)
    config = small_config(model=FULL, data={"image_size": 32}, init_from=str(file))
    with pytest.raises(
        MisfitError, match=r"^init_from: 4 tensors do not fit between .* and the network\. Give"
    ) as caught:
        initial_weights(config, None)
    assert dict(caught.value.rows) == {
        "layer2.0.conv1.weight": "missing",
        "bn1.weight": "[63] in the source, [64] in the network",
        "bn1.bias": "int32 [64] in the source, float32 [64] in the network",
        "layer9.extra": "the network has no such tensor",
    }
    allow = ["layer2.0.*", "bn1.*", "layer9.extra"]
    config = small_config(model=FULL, data={"image_size": 32}, init_from={"path": str(file), "allow": allow})
    _, states = initialised(config, run_in(tmp_path / "run"))
    drawn = state(build_stages(config, 4)[0])
    assert torch.equal(states[0]["block.bn1.weight"], drawn["block.bn1.weight"])
    assert torch.equal(states[0]["block.conv1.weight"], tensors["conv1.weight"])


def test_position_embeddings_of_another_image_size_say_which(tmp_path: Path) -> None:
    vit = {"backbone": "vit_b_16", "patch_size": 8, "hidden_dim": 16, "num_layers": 2, "num_heads": 2, "mlp_dim": 32}
    model, file = {**vit, "cuts": []}, tmp_path / "vit.safetensors"
    (stage,) = build_stages(small_config(model=model, data={"image_size": 24}), 4)
    save_file({name[6:]: value for name, value in state(stage).items() if name.startswith("block.")}, file)
    assert initial_weights(small_config(model=model, data={"image_size": 24}, init_from=str(file)), None)
    config = small_config(model=model, data={"image_size": 32}, init_from=str(file))
    with pytest.raises(MisfitError, match=r"are not resized: give the data\.image_size=24 of the source, or name what"):
        initial_weights(config, None)


def test_heads_that_are_asked_for_must_be_there(torchvisions: Path) -> None:
    settings = {"path": str(torchvisions), "heads": True}
    config = small_config(model=FULL, data={"image_size": 32}, init_from=settings)
    with pytest.raises(MisfitError) as caught:
        initial_weights(config, None)
    assert ("stages.1.head.expansion.0.weight", "missing") in caught.value.rows


def test_byol_begins_with_a_target_that_is_a_copy(trained: Any, tmp_path: Path) -> None:
    config = small_config(init_from=str(trained[0]), objective={"kind": "byol", "predictor": [16, 16]})
    _, states = initialised(config, run_in(tmp_path / "run"))
    for each in states:
        for name, tensor in each.items():
            if name.startswith("target."):
                assert torch.equal(tensor, each[name.removeprefix("target.")]), name


def test_weights_that_were_changed_afterwards_are_refused(trained: Any, tmp_path: Path) -> None:
    run, config = run_in(tmp_path / "run"), small_config(init_from=str(trained[0]))
    initial_weights(config, run)
    file = run.initial / "stage_2.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        UserError, match=r"stage_2\.safetensors' is damaged: it has the weights that the run begins with"
    ):
        begin(run, build_stages(config, 4))
