"""Joining an RPC group is given up after its own time, and goes by the transports that it is given."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed import rpc

from tests.workers.links.link_team import Peer
from workers.links import rpc_agent

PRIVATE = "_transports"
INFINIBAND = Path("/sys/class/infiniband")


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer("stage 1")
    try:
        peer.await_ready()
        yield peer
    finally:
        peer.kill()


@pytest.mark.processes
def test_an_rpc_group_that_stays_incomplete_is_an_error(peer: Peer, tmp_path: Path) -> None:
    peer.begin("start_agent", name="stage 1", rank=0, world_size=2, init_method=f"file://{tmp_path}/s", timeout=1)
    error, message = peer.failure()
    assert error == "LinkTimeout"
    assert "2 processes" in message
    assert "within 1 s" in message


@pytest.mark.skipif(INFINIBAND.is_dir() and any(INFINIBAND.iterdir()), reason="InfiniBand is here")
@pytest.mark.processes
def test_transports_that_this_host_has_not_are_named(peer: Peer, tmp_path: Path) -> None:
    group = {"name": "stage 1", "rank": 0, "world_size": 1, "init_method": f"file://{tmp_path}/s", "timeout": 60}
    peer.begin("start_agent", transports=["ibv"], **group)
    error, message = peer.failure()
    assert error == "TrainingError"
    assert "none of link.rpc_transports=[ibv] can be used on this host. Add uv" in message


def test_the_parameter_that_names_the_transports_is_still_there() -> None:
    """It is private to PyTorch. If this fails, its own choice on one host is 0.6 times as fast as `uv`."""
    assert PRIVATE in inspect.signature(rpc.TensorPipeRpcBackendOptions).parameters


def test_without_the_parameter_pytorch_chooses_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def options(*, init_method: str, rpc_timeout: float, num_worker_threads: int) -> str:
        return json.dumps([init_method, rpc_timeout, num_worker_threads])

    monkeypatch.setattr(rpc, "TensorPipeRpcBackendOptions", options)
    assert rpc_agent._options("file:///s", 5.0, ["uv"]) == json.dumps(["file:///s", 5.0, rpc_agent.HANDLER_THREADS])
    assert "link.rpc_transports has no effect" in caplog.text
