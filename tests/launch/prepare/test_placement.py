"""Where stages go, as a table: stages x GPUs x what was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

import launch.prepare.placement
from launch.prepare.placement import Placement, count_gpus, place
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.validation.loading import parse_config

CUTS = ["layer1.0", "layer1", "layer2.0", "layer2", "layer3.0", "layer3", "layer4.0"]


def settings(stages: int, device: str = "auto", overrides: dict[int, str] | None = None) -> Config:
    cuts = ["layer1", "layer2", "layer3"] if stages == 4 else CUTS[: stages - 1]
    per_stage = {index: {"device": name} for index, name in (overrides or {}).items()}
    return parse_config({"device": device, "model": {"backbone": "resnet18", "cuts": cuts}, "stages": per_stage})


@pytest.mark.parametrize(
    ("stages", "device", "gpus", "overrides", "expected"),
    [
        (4, "auto", 0, {}, "cpu cpu cpu cpu"),
        (4, "auto", 1, {}, "cuda:0 cuda:0 cuda:0 cuda:0"),
        (4, "auto", 2, {}, "cuda:0 cuda:0 cuda:1 cuda:1"),
        (4, "auto", 3, {}, "cuda:0 cuda:0 cuda:1 cuda:2"),
        (4, "auto", 4, {}, "cuda:0 cuda:1 cuda:2 cuda:3"),
        (4, "auto", 8, {}, "cuda:0 cuda:1 cuda:2 cuda:3"),
        (8, "auto", 3, {}, "cuda:0 cuda:0 cuda:0 cuda:1 cuda:1 cuda:1 cuda:2 cuda:2"),
        (1, "auto", 2, {}, "cuda:0"),
        (4, "cpu", 4, {}, "cpu cpu cpu cpu"),
        (4, "cuda", 4, {}, "cuda:0 cuda:1 cuda:2 cuda:3"),
        (4, "cuda:1", 2, {}, "cuda:1 cuda:1 cuda:1 cuda:1"),
        (4, "cuda", 2, {3: "cuda:0", 4: "cpu"}, "cuda:0 cuda:1 cuda:0 cpu"),
        (4, "cpu", 4, {2: "cuda"}, "cpu cuda:1 cpu cpu"),
        (4, "cuda:0", 2, {2: "auto"}, "cuda:0 cuda:0 cuda:0 cuda:0"),
        (4, "auto", 0, {1: "cpu"}, "cpu cpu cpu cpu"),
    ],
)
def test_devices(stages: int, device: str, gpus: int, overrides: dict[int, str], expected: str) -> None:
    placements = place(settings(stages, device, overrides), gpus)
    assert " ".join(placement.device for placement in placements) == expected


def test_a_placement_names_stage_and_units() -> None:
    assert place(settings(2, "cpu"), 0) == (
        Placement(1, ("stem", "layer1.0"), "cpu"),
        Placement(2, ("layer1.1", *(f"layer{i}.{j}" for i in (2, 3, 4) for j in (0, 1))), "cpu"),
    )


@pytest.mark.parametrize(
    ("device", "gpus", "overrides", "message"),
    [
        ("cuda", 0, {}, r"^device: got 'cuda', and this machine has 0 GPUs .*Give device=cpu or device=auto"),
        ("cuda:0", 0, {}, r"^device: got 'cuda:0', .*device=cpu"),
        ("cuda", 3, {}, r"^device: .*4 processes and 3 GPUs.*device=auto.*device=cuda:0.*device=cpu.*model\.cuts"),
        ("cuda:2", 2, {}, r"^device: got 'cuda:2' .*2 GPUs.*cuda:0, cuda:1, cpu or auto"),
        ("cpu", 2, {3: "cuda:7"}, r"^stages\.3\.device: got 'cuda:7' for stage 3, .*2 GPUs"),
        ("cpu", 2, {3: "cuda"}, r"^stages\.3\.device: got 'cuda' for stage 3, .*2 GPUs"),
        ("auto", 0, {2: "cuda"}, r"^stages\.2\.device: got 'cuda', .*0 GPUs.*stages\.2\.device=cpu"),
    ],
)
def test_a_gpu_that_is_not_there(device: str, gpus: int, overrides: dict[int, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        place(settings(4, device, overrides), gpus)


@pytest.mark.parametrize(
    ("files", "visible", "expected"),
    [
        (["null", "nvidiactl", "nvidia-uvm", "nvidia-caps"], None, 0),
        (["nvidiactl", "nvidia0", "nvidia1", "nvidia12"], None, 3),
        (["nvidia0", "nvidia1"], "", 0),
        (["nvidia0", "nvidia1"], "1", 1),
        (["nvidia0", "nvidia1"], " 1, 0 ", 2),
        (["nvidia0", "nvidia1"], "0,-1,1", 1),
        (["nvidia0", "nvidia1"], "0,5,1", 1),
        (["nvidia0", "nvidia1"], "GPU-8932f937,MIG-1", 2),
        (["nvidia0", "nvidia1"], "none", 0),
        (["nvidiactl"], "0,1", 0),
    ],
)
def test_counting_gpus(
    files: list[str], visible: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setattr(launch.prepare.placement, "DEVICE_FILES", tmp_path)
    assert count_gpus({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) == expected


def test_counting_gpus_without_a_device_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.prepare.placement, "DEVICE_FILES", tmp_path / "missing")
    assert count_gpus({}) == 0


def test_the_count_agrees_with_cuda() -> None:
    """On a machine with GPUs this compares numbers above 0; without one, that no GPU is made up."""
    import torch

    assert count_gpus() == torch.cuda.device_count()
