"""Replicas that meet: who is missing is named, and one that is gone does not hang the others."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from pipeline.errors import TrainingError
from pipeline.replicas import SOLO
from tests.waiting import LIMIT
from workers.topology import replica_group
from workers.topology.replica_group import join_replica_group, leave_replica_group

CPU = torch.device("cpu")


def test_one_replica_needs_nobody(tmp_path: Path) -> None:
    assert join_replica_group(f"file://{tmp_path / 'store'}", "stage 1", 0, 1, CPU, 1.0) is SOLO
    assert not dist.is_initialized()
    leave_replica_group()


def test_one_replica_may_have_a_group(tmp_path: Path) -> None:
    team = join_replica_group(f"file://{tmp_path / 'store'}", "stage 1", 0, 1, CPU, LIMIT, always_group=True)
    try:
        assert (team.rank, team.size) == (0, 1)
        assert team.group is dist.group.WORLD
        x = torch.ones(3)
        team.start_sum(x).wait()
        assert team.all_gather(x).tolist() == [[1.0] * 3]
    finally:
        leave_replica_group()
    assert not dist.is_initialized()


def test_missing_replicas_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_group, "time", SimpleNamespace(monotonic=lambda: 0.0))  # opening the store costs none
    with pytest.raises(
        TrainingError, match=r"^replica 2 of 4 of stage 3 waited 1 s for replica 1, 3, 4, which did not"
    ):
        join_replica_group(f"file://{tmp_path / 'store'}", "stage 3", 1, 4, CPU, 1.0)
    assert not dist.is_initialized()


def test_a_store_that_nobody_serves_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]  # nobody else gets it meanwhile
        expected = rf"^the store at tcp://127\.0\.0\.1:{port}, where the replicas of stage 1 meet"
        with pytest.raises(TrainingError, match=expected):
            join_replica_group(f"tcp://127.0.0.1:{port}", "stage 1", 0, 2, CPU, 1.0)


def test_a_store_over_tcp_is_joined() -> None:
    served = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    try:
        team = join_replica_group(f"tcp://127.0.0.1:{served.port}", "stage 1", 0, 1, CPU, LIMIT, always_group=True)
        assert team.group is dist.group.WORLD
    finally:
        leave_replica_group()
