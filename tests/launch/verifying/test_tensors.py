"""The state of a stage on two sides: which tensors differ, in how many elements, and by how much."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from launch.verifying.tensors import StateDifference, compare_states
from pipeline.errors import UserError
from workers.run.tensor_files import save_tensors
from workers.snapshots.manifest import MANIFEST, Manifest, StageFile


def compared(folder: Path, one: dict[str, Tensor], other: dict[str, Tensor]) -> StateDifference:
    for name, tensors in (("one", one), ("other", other)):
        save_tensors(folder / name / "stage_2.safetensors", tensors)
    found = compare_states(folder / "one", folder / "other", 2, folder, folder)
    assert found is not None
    return found


def state(**changed: Tensor) -> dict[str, Tensor]:
    whole = {
        "block.weight": torch.arange(6.0),
        "block.count": torch.tensor(3),
        "optimizer.m.w": torch.ones(4).bfloat16(),
    }
    return {**whole, **changed}


def test_equal_states_do_not_differ(tmp_path: Path) -> None:
    found = compared(tmp_path, state(), state())
    assert not found.differs
    assert (found.of, found.distance) == (11, 0.0)


def test_how_many_elements_differ_and_by_how_much(tmp_path: Path) -> None:
    weight, moment = torch.arange(6.0), torch.ones(4).bfloat16()
    weight[[1, 4]] += torch.tensor([0.5, -2.0])
    moment[0] = 1.5
    found = compared(tmp_path, state(), state(**{"block.weight": weight, "optimizer.m.w": moment}))
    assert found.tensors == ["block.weight", "optimizer.m.w"]
    assert (found.elements, found.of, found.largest, found.tensor, found.nan) == (3, 11, 2.0, "block.weight", 0)
    assert found.distance == pytest.approx(((0.25 + 4.0 + 0.25) / (55.0 + 4.0)) ** 0.5)
    assert str(found) == (
        "stage 2: block.weight and 1 more: 3 of 11 elements differ; the largest difference is 2, in block.weight"
    )


def test_bits_that_are_no_difference_of_numbers_count(tmp_path: Path) -> None:
    zero, minus = torch.zeros(2), torch.tensor([0.0, -0.0])
    found = compared(tmp_path, {"x": zero}, {"x": minus})
    assert (found.differs, found.elements, found.largest) == (True, 1, 0.0)
    assert "only bits differ" in str(found)


def test_numbers_that_are_none_are_counted_and_are_never_close(tmp_path: Path) -> None:
    found = compared(tmp_path, {"x": torch.ones(3)}, {"x": torch.tensor([1.0, float("nan"), 2.0])})
    assert (found.elements, found.nan, found.largest, found.distance) == (2, 1, 1.0, float("inf"))
    assert "1 of them are finite on one side only, or on none" in str(found)
    both = {"x": torch.tensor([float("nan"), 1.0])}
    assert not compared(tmp_path, both, both).differs


def test_other_shapes_and_names_are_named_and_online_measures_left_out(tmp_path: Path) -> None:
    assert "'block.weight' is float32 [6] there and float32 [5] here" in str(
        compared(tmp_path, state(), state(**{"block.weight": torch.ones(5)}))
    )
    assert "'more' is on one side only" in str(compared(tmp_path, state(), state(more=torch.ones(1))))
    assert not compared(tmp_path, state(**{"online.probe": torch.ones(1)}), state()).differs


def test_a_stage_that_no_batch_has_reached_by_then_is_not_compared(tmp_path: Path) -> None:
    for side, stages in (("one", (1,)), ("other", (1, 3))):
        manifest = Manifest(4, {k: StageFile(f"stage_{k}.safetensors", 1, "0" * 64, {}) for k in stages})
        folder = tmp_path / side / "step_4"
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(json.dumps(manifest.to_json()))
    one, other = (tmp_path / side / "step_4" for side in ("one", "other"))
    assert compare_states(one, other, 2, tmp_path, tmp_path) is None
    save_tensors(other / "stage_3.safetensors", state())
    alone = compare_states(one, other, 3, tmp_path, tmp_path)
    assert str(alone) == "stage 3: it has been reached on one side only"
    with pytest.raises(UserError, match=r"one/step_4/stage_1\.safetensors' is missing\. Bring it back, or move"):
        compare_states(one, other, 1, tmp_path, tmp_path)


def test_a_file_of_the_end_that_is_missing_is_no_state_that_is_equal(tmp_path: Path) -> None:
    save_tensors(tmp_path / "one" / "stage_2.safetensors", state())
    with pytest.raises(UserError, match=r"other/stage_2\.safetensors' is missing"):
        compare_states(tmp_path / "one", tmp_path / "other", 2, tmp_path, tmp_path)
