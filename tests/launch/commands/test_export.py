"""`onward export` where the file cannot be read, or cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from launch.commands import export
from launch.commands.export import export_backbone
from pipeline.errors import UserError
from pipeline.validation.loading import dump_config
from tests.pipeline.small import small_config
from workers.run.files import RunDir
from workers.run.tensor_files import save_tensors


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run that nobody trained, with a backbone of one number."""
    run = RunDir(tmp_path / "run")
    run.backbone.parent.mkdir(parents=True)
    run.config.write_text(dump_config(small_config()))
    save_tensors(run.backbone, {"conv1.weight": torch.ones(1)})
    return run


def test_a_disk_that_is_full_is_one_sentence(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "save_tensors", fail)
    to = tmp_path / "backbone.safetensors"
    with pytest.raises(UserError, match=r"backbone\.safetensors' cannot be written \(No space left on device\)\. Give"):
        export_backbone(run.path, to)
    assert not to.exists()


def test_a_backbone_that_is_damaged_is_named(run: RunDir, tmp_path: Path) -> None:
    run.backbone.write_bytes(b"no tensors")
    with pytest.raises(UserError, match=rf"'{run.backbone}' is damaged \(.*\)\. Train the run to its end again"):
        export_backbone(run.path, tmp_path / "backbone.safetensors")
