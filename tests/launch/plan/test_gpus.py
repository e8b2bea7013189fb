"""How much memory a device has."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.plan.gpus import GIB, GPUS, parse_gpu, sizes_of
from launch.prepare import placement
from pipeline.errors import UserError


@pytest.mark.parametrize(
    ("text", "size", "count"),
    [("24GiB", 24 * 2**30, None), ("24GB", 24 * 10**9, None), ("2x512 MiB", 2**30, 2), ("4xH100", None, 4)],
)
def test_a_gpu_is_named_or_has_a_size(text: str, size: int | None, count: int | None) -> None:
    gpu = parse_gpu(text)
    assert gpu.bytes * (gpu.count or 1) == (size or 4 * int(GPUS["h100"] * GIB))
    assert gpu.count == count


def test_less_than_the_nominal_size_can_be_used() -> None:
    nominal = {"h100": 80, "h200": 141, "a100-80": 80, "a100-40": 40, "l4": 24, "rtx4090": 24}
    assert {name: GPUS[name] < size for name, size in nominal.items()} == dict.fromkeys(GPUS, True)


@pytest.mark.parametrize("text", ["h10", "", "0xh100", "0GiB", "24", "-1GiB", "4x"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--gpu: .*h100, h200.*24GiB"):
        parse_gpu(text)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("answer", "size"), [("81559, 600\n24564, 400\n", 24164 * 2**20), ("[N/A], 0\n24564, 0\n", None), ("", None)]
)
def test_gpus_are_asked_without_cuda(
    answer: str, size: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """CUDA may number them in another order, so that each is taken for the smallest."""
    for number in range(2):
        (tmp_path / f"nvidia{number}").touch()
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{answer}'\n")
    tool.chmod(0o755)
    monkeypatch.setattr(placement, "DEVICE_FILES", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    sizes = sizes_of({"cuda:0", "cuda:1"})
    assert sizes == (None if size is None else {"cuda:0": size, "cuda:1": size})
