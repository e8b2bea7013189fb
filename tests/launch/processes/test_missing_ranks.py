"""A rank that does not come, or ends while others wait for it: all of them end, and say who and where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from launch.errors import EXIT_FAILED, in_one_line
from launch.processes import start_check
from launch.processes.start_check import StartRefused
from pipeline.errors import UserError
from tests.launch.processes.start_ranks import Ranks, patched_for
from workers.topology.torchrun import RanksApart


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ranks:
    return Ranks(tmp_path, monkeypatch)


def test_a_rank_that_never_comes_is_named_with_its_host(ranks: Ranks) -> None:
    ranks.patch.setattr(start_check, "START_SECONDS", 1.0)
    found = ranks.agree(range(3))
    assert {str(each) for each in found[:3]} == {
        "nothing was heard of rank 3 on node2 within 1 s, of 4 ranks. See on its host whether it has failed to start"
    }
    apart = [each for each in found[:3] if isinstance(each, RanksApart)]
    assert [in_one_line(each)[1] for each in apart] == [EXIT_FAILED] * 3  # not bad input: another start may find it


def test_a_host_of_which_nothing_is_heard_is_named_by_what_slurm_says(ranks: Ranks) -> None:
    ranks.patch.setattr(start_check, "START_SECONDS", 1.0)
    for name, value in (("SLURM_PROCID", "0"), ("SLURM_STEP_ID", "0"), ("SLURM_STEP_NODELIST", "node[1-2]")):
        ranks.patch.setenv(name, value)
    assert "nothing was heard of rank 2, rank 3 (nothing at all from node2) within 1 s" in str(ranks.agree(range(2))[0])


@pytest.mark.parametrize("rank", [0, 3])
def test_what_is_wrong_before_the_check_is_heard_by_all(ranks: Ranks, rank: int) -> None:
    ranks.problems[rank] = UserError("-q and -v exclude each other")
    assert ranks.refused() == f"node{rank // 2 + 1} (rank {rank}): -q and -v exclude each other"


@pytest.mark.parametrize("rank", [0, 2])
def test_a_fault_in_the_middle_is_heard_by_all_who_wait(ranks: Ranks, rank: int) -> None:
    def fault(targets: Any) -> None:
        raise OSError(28, "No space left on device")

    patched_for(ranks, start_check, "reach_each", rank, fault)
    found = ranks.agree()
    assert isinstance(found.pop(rank), OSError)
    host = f"node{rank // 2 + 1}"
    assert {str(each) for each in found} == {f"{host} (rank {rank}): OSError: [Errno 28] No space left on device"}
    assert all(isinstance(each, StartRefused) for each in found)


def test_a_fault_of_one_rank_before_it_presents_itself_is_heard_by_all(ranks: Ranks) -> None:
    def fault() -> None:
        raise RuntimeError("broken installation")

    patched_for(ranks, start_check, "own_versions", 1, fault)
    assert re.match(r"node1 \(rank 1\): a fault of the program: RuntimeError: broken installation", ranks.refused())
