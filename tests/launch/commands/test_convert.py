"""`onward convert`: what weights are in a file, whose names they have, and a copy of them under ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from launch.commands.convert import convert_weights
from pipeline.errors import UserError


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """A part of a ViT under timm's names, with what a training program adds."""
    path = tmp_path / "vit.safetensors"
    tensors = {
        "backbone.cls_token": torch.zeros(1, 1, 4),
        "backbone.patch_embed.proj.weight": torch.ones(4, 3, 2, 2),
        "backbone.blocks.0.attn.qkv.weight": torch.arange(48.0).reshape(12, 4).half(),
        "backbone.head.weight": torch.zeros(10, 4),
        "center": torch.zeros(5),
    }
    save_file(tensors, path)
    return path


def test_it_says_what_is_there_and_whose_names_it_has(vit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = convert_weights(str(vit), None)
    assert "5 tensors, 1 of them unknown, 145 numbers; vit, names of timm, after 'backbone.'; SHA-256 " in notes[0]
    table = capsys.readouterr().out
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in table.splitlines() if line.startswith("│")
    ]
    assert ["backbone.blocks.0.*", "backbone", "1", "48", "float16"] in rows
    assert [row[1] for row in rows if row[0].startswith(("center", "backbone.head"))] == ["classifier", "unknown"]


def test_a_copy_has_our_names_and_the_same_numbers(vit: Path, tmp_path: Path) -> None:
    to = tmp_path / "copy.safetensors"
    notes = convert_weights(str(vit), to)
    assert f"wrote 3 tensors to '{to}', without 2" in notes
    copied, given = load_file(to), load_file(vit)
    assert set(copied) == {
        "class_token", "conv_proj.weight", "encoder.layers.encoder_layer_0.self_attention.in_proj_weight",
    }  # fmt: skip
    assert torch.equal(
        copied["encoder.layers.encoder_layer_0.self_attention.in_proj_weight"],
        given["backbone.blocks.0.attn.qkv.weight"],
    )


def test_what_cannot_be_copied_is_said_before_or_leaves_nothing(vit: Path, tmp_path: Path) -> None:
    unknown = tmp_path / "unknown.safetensors"
    save_file({"a": torch.zeros(1)}, unknown)
    for source, to, problem in (
        (vit, tmp_path / "copy.pt", "should end with .safetensors"),
        (vit, vit, "already exists"),
        (vit, tmp_path / "no" / "copy.safetensors", "there is no folder"),
        (unknown, tmp_path / "copy.safetensors", "has no name that is known"),
    ):
        with pytest.raises(UserError, match=problem):
            convert_weights(str(source), to)
    assert not (tmp_path / "copy.safetensors").exists()
