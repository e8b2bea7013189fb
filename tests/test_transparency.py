"""Exactness: however the network is run, the trained weights are the same to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.runs import report, train


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serial")
    result = train(folder, "runtime=serial")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize("overrides", [("queue", 1), ("queue", 5), ("rpc", 1), ("rpc", 3)], ids=str)
def test_the_pipeline_equals_the_serial_run(serial: Path, tmp_path: Path, overrides: tuple[str, int]) -> None:
    kind, depth = overrides
    result = train(tmp_path, f"link.kind={kind}", f"link.depth={depth}")
    assert result.returncode == 0, result.stderr
    assert report(tmp_path)["final_digest"] == report(serial)["final_digest"]
    assert report(tmp_path)["link"] == kind


def test_the_digest_sees_the_noise_and_the_seed(serial: Path, tmp_path: Path) -> None:
    digests = {report(serial)["final_digest"]}
    for number, override in enumerate(["seed=2", "noise.kind=none", "stages.4.noise.std=0.26"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert train(folder, "runtime=serial", override).returncode == 0
        digests.add(report(folder)["final_digest"])
    assert len(digests) == 4


def test_noise_in_the_last_block_leaves_the_others_alone(serial: Path, tmp_path: Path) -> None:
    assert train(tmp_path, "runtime=serial", "stages.4.noise.std=0.5").returncode == 0
    same = {index: _same(serial, tmp_path, index) for index in range(1, 5)}
    assert same == {1: True, 2: True, 3: True, 4: False}


def _same(one: Path, other: Path, stage: int) -> bool:
    first, second = (load_file(folder / "run" / "final" / f"stage_{stage}.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)
