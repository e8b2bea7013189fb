"""Joining an RPC group never takes longer than it may."""

from __future__ import annotations

from pathlib import Path

from tests.workers.link_team import Peer


def test_an_rpc_group_that_stays_incomplete_is_an_error_in_time(tmp_path: Path) -> None:
    peer = Peer("stage 1")
    try:
        peer.await_ready()
        peer.begin("start_agent", name="stage 1", rank=0, world_size=2, init_method=f"file://{tmp_path}/s", timeout=1)
        error, message, duration = peer.failure()
        assert error == "LinkTimeout"
        assert "2 processes" in message
        assert duration < 3
    finally:
        peer.kill()
