"""Joining an RPC group is given up after its own time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.links.link_team import Peer

pytestmark = pytest.mark.processes


def test_an_rpc_group_that_stays_incomplete_is_an_error(tmp_path: Path) -> None:
    peer = Peer("stage 1")
    try:
        peer.await_ready()
        peer.begin("start_agent", name="stage 1", rank=0, world_size=2, init_method=f"file://{tmp_path}/s", timeout=1)
        error, message = peer.failure()
        assert error == "LinkTimeout"
        assert "2 processes" in message
        assert "within 1 s" in message
    finally:
        peer.kill()
