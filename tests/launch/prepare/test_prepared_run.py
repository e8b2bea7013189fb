"""From a configuration to a run that may start in one way, on which nothing is looked at twice."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launch.prepare.prepared_run import RELEASE_SECONDS, prepare_run
from launch.prepare.recompute import undecided, with_recompute
from launch.prepare.run_dir import read_config
from launch.prepare.run_lock import Claim
from pipeline.config import Config
from pipeline.errors import UserError

Onward = Callable[..., Any]
_looked_at: Counter[str] | None = None


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if _looked_at is not None and event in ("os.scandir", "os.listdir", "open") and isinstance(arguments[0], str):
        _looked_at[f"{event.removeprefix('os.')} {os.path.relpath(arguments[0])}"] += 1


sys.addaudithook(_count)


@pytest.fixture
def looked_at() -> Iterator[Counter[str]]:
    """How often this process lists each folder and opens each file, by its path from here."""
    global _looked_at
    _looked_at = Counter()
    yield _looked_at
    _looked_at = None


def listings(looked_at: Counter[str]) -> dict[str, int]:
    """Of the folders of images."""
    return {what.removeprefix("scandir "): count for what, count in looked_at.items() if "dir images" in what}


ALL_ONCE = dict.fromkeys(
    ["images", *(f"images/{part}{name}" for part in ("train", "val") for name in ("", "/class0", "/class1"))], 1
)


@pytest.fixture
def split_folder(folder: Path, make_image_folder: Callable[..., Path]) -> Path:
    """`folder` with a test set."""
    (make_image_folder(folder / "more", per_class=2, classes=2) / "train").rename(folder / "images" / "val")
    return folder


@pytest.mark.usefixtures("split_folder")
def test_every_folder_of_images_is_listed_once(
    onward: Onward, fake_training: list[Path], looked_at: Counter[str]
) -> None:
    for command in (["train"], ["train"], ["check"], ["check", "--headers"]):  # begun, gone on with, only checked
        looked_at.clear()
        assert onward(*command, "config.yaml", "run_dir=run").code == 0
        assert listings(looked_at) == ALL_ONCE, command
    assert len(fake_training) == 2


def test_a_folder_of_classes_alone_is_listed_once_too(
    folder: Path, onward: Onward, fake_training: list[Path], looked_at: Counter[str]
) -> None:
    assert onward("train", "config.yaml", "data.root=images/train").code == 0
    assert listings(looked_at) == {"images/train": 1, "images/train/class0": 1, "images/train/class1": 1}


@pytest.mark.usefixtures("folder")
def test_the_configuration_of_the_run_that_goes_on_is_read_once(
    onward: Onward, fake_training: list[Path], looked_at: Counter[str]
) -> None:
    assert onward("train", "config.yaml", "run_dir=run").code == 0
    (Path("config.yaml")).rename("mine.yaml")
    looked_at.clear()
    assert onward("train", "mine.yaml", "run_dir=run").code == 0
    assert looked_at["open config.yaml"] == 1


@pytest.mark.usefixtures("folder")
def test_what_is_left_open_is_decided_once_and_written(
    onward: Onward, fake_training: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on takes what is written, wherever it does, also where it is begun again with the same file."""
    asked: list[tuple[tuple[int, ...], bool]] = []

    def decide(config: Config, placements: Any, resumed: bool, force: bool) -> tuple[Config, list[str]]:
        asked.append((undecided(config), resumed))
        return with_recompute(config, dict.fromkeys(undecided(config), "units")), ["decided"]

    monkeypatch.setattr("onward.here.fit", decide)
    started = onward("train", "config.yaml", "run_dir=run", "memory.recompute=auto")
    assert "decided" in started.out
    assert read_config(Path("run")).memory.recompute == "units"
    count = read_config(Path("run")).num_stages
    for command in (["train", "config.yaml", "run_dir=run", "memory.recompute=auto"], ["resume", "run"]):
        assert onward(*command).code == 0
        assert read_config(Path("run")).memory.recompute == "units"
    assert asked == [(tuple(range(1, count + 1)), False), ((), True), ((), True)]


@pytest.mark.usefixtures("folder")
def test_a_run_that_cannot_fit_leaves_no_trace(
    onward: Onward, fake_training: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: Config, placements: Any, resumed: bool, force: bool) -> tuple[Config, list[str]]:
        if not force:
            raise UserError("too large")
        return config, []

    monkeypatch.setattr("onward.here.fit", refuse)
    refused = onward("train", "config.yaml", "run_dir=run")
    assert (refused.code, refused.err.strip()) == (2, "error: too large")
    assert not Path("run", "config.yaml").exists()
    assert onward("train", "config.yaml", "run_dir=run", "--force").code == 0
    assert len(fake_training) == 1


@pytest.mark.parametrize(
    ("environment", "patience"),
    [
        ({}, 0.0),
        ({"SLURM_RESTART_COUNT": "1"}, RELEASE_SECONDS),
        ({"TORCHELASTIC_RESTART_COUNT": "2"}, RELEASE_SECONDS),
    ],
    ids=["a start", "a job that was requeued", "torchrun's restart"],
)
def test_a_restart_waits_for_the_end_of_the_processes_before(
    tmp_path: Path, environment: dict[str, str], patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def claim_run(config: Config, name: str, wait: float) -> Claim:
        raise UserError(f"waits {wait}")

    monkeypatch.setattr("launch.prepare.prepared_run.claim_run", claim_run)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(UserError, match=f"^waits {patience}$"),
        prepare_run(Config(run_dir=str(tmp_path)), "x", lambda config, placements, resumed: (config, [])),
    ):
        pass
