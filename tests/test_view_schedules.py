"""Runs with more views, views of several sizes and views that grow: exact in every runtime, and after a restart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.marks import slow
from tests.recovery import killed
from tests.runs import report, train

pytestmark = pytest.mark.processes

FOUR = "data.views=[{count: 4}]"
SIZES = "data.views=[{count: 2}, {count: 2, size: 16, crop_scale: [0.05, 0.4], blur_p: 0.5}]"
GROWING = "data.progressive={start_size: 16, end_epoch: 2}"
MIXED = (
    "stages.1={objective: {kind: byol, predictor: [32]}}",
    "stages.2={objective: {kind: simclr}}",
    "stages.3={objective: {kind: vicreg}}",
    "stages.4={objective: {kind: supervised}, head: {projector: [10]}}",
)
NOISE = "noise={kind: all, std: 0.25}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A run of ten steps, four an epoch, so that a ramp of two epochs is passed; images are larger than the views."""
    root = tmp_path_factory.mktemp("images")
    source = np.random.Generator(np.random.Philox(7))
    for name in range(10):
        folder = root / "train" / f"class{name}"
        folder.mkdir(parents=True)
        for number in range(13):
            coarse = Image.fromarray(source.integers(0, 256, (5, 6, 3), dtype=np.uint8))
            coarse.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    data = "data.name=image_folder", f"data.root={root}", "data.batch_size=32", "data.image_size=28"
    return *data, "train.max_steps=10"


@pytest.fixture(scope="module")
def growing(images: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, ...], str]:
    """Views that grow and views of another size, with snapshots; and the digest of the run in one process."""
    method = (*images, GROWING, SIZES, "snapshots.every=3")
    return method, digest(tmp_path_factory.mktemp("whole"), *method, "runtime=serial")


def digest(folder: Path, *overrides: str) -> str:
    folder.mkdir(exist_ok=True)
    result = train(folder, *overrides)
    assert result.returncode == 0, result.stderr
    return str(report(folder)["final_digest"])


@pytest.mark.parametrize(
    ("method", "how"),
    [
        slow((FOUR, *MIXED), ("link.kind=queue",)),
        ((SIZES, *MIXED), ("link.kind=queue", "processes=2", "data.workers=2")),
        slow((SIZES, NOISE), ("link.kind=rpc",)),
        slow((SIZES, "link.codec=bf16"), ("link.kind=p2p",)),
        slow((GROWING, SIZES), ("link.kind=queue",)),
        slow((GROWING, "link.codec=int8"), ("link.kind=rpc", "data.workers=1")),
        slow((GROWING, NOISE), ("link.kind=p2p",)),
    ],
    ids=["four", "sizes", "sizes, noise, rpc", "sizes, codec, p2p", "both", "growing, codec, rpc", "growing, p2p"],
)
def test_the_pipeline_equals_the_serial_run(
    images: tuple[str, ...], tmp_path: Path, method: tuple[str, ...], how: tuple[str, ...]
) -> None:
    serial = digest(tmp_path / "serial", *images, *method, "runtime=serial")
    assert digest(tmp_path / "pipelined", *images, *method, *how) == serial


@pytest.mark.parametrize("method", [slow((FOUR,)), slow((GROWING, SIZES))], ids=["four", "both"])
def test_replicas_compute_what_one_does(images: tuple[str, ...], tmp_path: Path, method: tuple[str, ...]) -> None:
    """But for rounding, which training magnifies; and the same bits over another link."""
    method = (*images, *method, "train.max_steps=6")
    counts = ("stages.1.replicas=2", "stages.2.replicas=2")
    digest(tmp_path / "one", *method, "runtime=serial")
    first = digest(tmp_path / "two", *method, *counts)
    assert digest(tmp_path / "again", *method, *counts, "link.kind=p2p") == first
    for stage in range(1, 5):
        name = f"run/final/stage_{stage}.safetensors"
        one, two = (load_file(tmp_path / run / name) for run in ("one", "two"))
        for key, tensor in one.items():
            error = (two[key].double() - tensor.double()).norm() / tensor.double().norm().clamp(min=1e-2)
            assert error < 1e-2, (stage, key, error)


def test_stopped_in_the_middle_of_a_ramp_and_started_again(
    growing: tuple[tuple[str, ...], str], tmp_path: Path
) -> None:
    method, whole = growing
    killed(tmp_path, (2, 5), *method, snapshot=3)
    result = train(tmp_path, *method)
    assert result.returncode == 0, result.stderr
    assert "going on from the snapshot after 3 steps" in result.stdout
    assert report(tmp_path)["final_digest"] == whole


def test_a_single_stage_comes_back_while_views_grow(growing: tuple[tuple[str, ...], str], tmp_path: Path) -> None:
    """What the stage before it has kept on disk is of several sizes."""
    method, whole = growing
    assert digest(tmp_path, *method, "restart=stage", "faults=[{kind: kill, stage: 3, step: 5}]") == whole


def test_every_schedule_changes_what_is_trained(images: tuple[str, ...], tmp_path: Path) -> None:
    runs = [(), (FOUR,), (SIZES,), (GROWING,)]
    short = (*images, "train.max_steps=1", "runtime=serial")
    digests = {digest(tmp_path / str(number), *short, *method) for number, method in enumerate(runs)}
    assert len(digests) == len(runs)
