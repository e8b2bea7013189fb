"""Several hosts that read images compare them before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.processes.presence import Presence
from launch.processes.same_data import readers
from launch.processes.start_check import Agreement
from pipeline.config import Config
from tests.launch.processes.start_ranks import RANKS, Ranks

REPLICAS = ("data.feed=stages", "stages.1.replicas=3", "model.cuts=[layer3]", "data.batch_size=6")
"""Ranks 0 and 1 on node1 and rank 2 on node2 read images, rank 3 does not."""


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_image_folder: Callable[..., Path]) -> Ranks:
    found = Ranks(tmp_path, monkeypatch)
    for name in ("one", "two"):
        make_image_folder(tmp_path / name, per_class=4, classes=2)
    found.again(*REPLICAS, "data.name=image_folder")
    for rank in range(RANKS):
        folder = tmp_path / ("one" if rank < 2 else "two")
        found.overrides[rank] = (*found.overrides[rank], f"data.root={folder}")
    return found


def files(ranks: Ranks) -> list[Path]:
    return sorted(path for path in (ranks.folder / "two").rglob("*") if path.is_file())


def test_the_same_images_elsewhere_are_the_same(ranks: Ranks) -> None:
    assert all(isinstance(each, Agreement) for each in ranks.agree())


def test_another_number_of_images_is_said_on_every_host(ranks: Ranks) -> None:
    files(ranks)[0].unlink()
    one, two = ranks.folder / "one", ranks.folder / "two"
    assert ranks.refused() == (
        f"node2 (rank 2) has another data set in '{two}' than rank 0 on node1 in '{one}': 7 images, not 8. With "
        "data.feed=stages every host that runs stage 1 needs the same data set under data.root"
    )
    assert not (ranks.folder / "runs").exists()


def test_files_of_another_name_size_or_class_are_told_apart(ranks: Ranks) -> None:
    first, *_, last = files(ranks)
    first.write_bytes(first.read_bytes() + b"\0")
    assert "in '{}': files of other sizes. ".format(ranks.folder / "one") in ranks.refused()
    shutil.copy(ranks.folder / "one" / first.relative_to(ranks.folder / "two"), first)
    last.rename(last.with_name("zzz" + last.suffix))
    ranks.again()
    assert ": other file names. " in ranks.refused()


def test_data_that_one_host_does_not_have_end_all(ranks: Ranks) -> None:
    shutil.rmtree(ranks.folder / "two")
    assert ranks.refused().startswith("node2 (rank 2): ")


@pytest.mark.parametrize("overrides", [("data.feed=coordinator",), ("stages.1.replicas=2", "stages.2.replicas=2")])
def test_what_only_the_first_host_reads_is_compared_with_nothing(ranks: Ranks, overrides: tuple[str, ...]) -> None:
    shutil.rmtree(ranks.folder / "two")
    ranks.again(*overrides, "data.batch_size=12")
    assert all(isinstance(each, Agreement) for each in ranks.agree())


def test_the_ranks_of_stage_1_read_if_one_is_on_another_host() -> None:
    config = Config.model_validate({"data": {"feed": "stages"}, "stages": {1: {"replicas": 2}}})
    here, there = (
        [Presence(rank=rank, host="node", first=0 if rank < other else other) for rank in range(5)] for other in (2, 1)
    )
    assert (readers(config, here), readers(config, there)) == ([], [0, 1])
