"""Who is given a batch of the feed: nobody may read its memory after the next one was asked for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import Config
from tests.observing.recorders import recorder
from tests.waiting import LIMIT
from tests.workers.feed.feed_cases import batches, config, write_photos
from workers.coordinator.batch_sender import BatchSender
from workers.feed import Feed
from workers.links.base import LinkAddress, Sender
from workers.links.messages import Header, TensorSpec
from workers.links.p2p import P2pSender
from workers.links.replay import ReplayBuffer
from workers.links.replaying import ReplayingSender
from workers.links.resharding import RowRange, ScatterSender
from workers.links.ring import RingOut
from workers.links.rpc import RpcSender
from workers.links.slots import HostOut
from workers.run.files import RunDir
from workers.snapshots.committer import SnapshotCommitter

pytestmark = pytest.mark.timeout(120)


class Keeping(Sender):
    """Notes what it is sent without copying it, as links do that are still reading when `send` returns."""

    def __init__(self, keeps: bool) -> None:
        spec = TensorSpec((2, 8, 16, 16, 3), torch.uint8)
        super().__init__(LinkAddress("link0", "coordinator", "stage 1", path="", key=b"", depth=2), spec)
        self._keeps = keeps
        self.sent: list[torch.Tensor] = []

    @property
    def reads_later(self) -> bool:
        return self._keeps

    def await_room(self, timeout: float) -> None:
        pass

    def send(self, header: Header, tensor: torch.Tensor, timeout: float) -> None:
        self.sent.append(tensor)

    def close(self) -> None:
        pass


class Serving:
    def serve(self) -> None:
        pass


def send_all(run: Config, folder: Path, sender: Sender) -> None:
    (folder / "run").mkdir()
    files = RunDir(folder / "run")
    failed: list[Any] = []
    with Feed(run) as feed:
        keeper = SnapshotCommitter(run.snapshots, files, print, 0)
        sending = BatchSender(
            config=run,
            feed=feed,
            open_sender=lambda: sender,
            links=Serving(),
            snapshots=keeper,
            failed=lambda step, error: failed.append(error),
        )
        with recorder(files.path, feed.total_steps) as joined:
            before = set(threading.enumerate())
            sending.start(joined)
            (thread,) = [new for new in set(threading.enumerate()) - before if new.name == "sender"]
            while feed._next < feed.total_steps and thread.is_alive():
                thread.join(0.05)
            sending.finished.set()
            thread.join(LIMIT)
            assert not thread.is_alive()
            assert joined.feed.images == 46
    assert failed == []


@pytest.mark.parametrize("keeps", [True, False])
def test_what_a_link_keeps_stays_as_it_was(tmp_path: Path, keeps: bool) -> None:
    run = config(write_photos(tmp_path / "photos"))
    sender = Keeping(keeps)
    send_all(run, tmp_path, sender)
    assert len(sender.sent) == 6
    places = {tensor.data_ptr() for tensor in sender.sent}
    intact = [torch.equal(a, b.views) for a, b in zip(sender.sent, batches(run), strict=True)]
    if keeps:
        assert all(intact)
        assert len(places) == 6
    else:  # no copy is made for a link that has read everything when it returns
        assert len(places) == 3
        assert not all(intact)


def test_links_say_whether_they_keep_what_they_are_given(tmp_path: Path) -> None:
    def of(kind: type[Sender]) -> bool:
        return bool(kind.reads_later.fget(kind.__new__(kind)))  # type: ignore[attr-defined]

    assert not HostOut.reads_later, "those of a queue between two CPUs"
    assert RingOut.reads_later, "those of a GPU"
    assert of(RpcSender)
    assert of(P2pSender)
    assert ReplayingSender(lambda: Keeping(False), ReplayBuffer(tmp_path), 1.0).reads_later, (
        "what a restarted stage needs again"
    )
    spec = TensorSpec((2, 8, 16, 16, 3), torch.uint8)
    for kept in ([False, False], [True, False], [False, True]):
        points = [(RowRange(0, number, 1, 2), Keeping(keeps)) for number, keeps in enumerate(kept)]
        assert ScatterSender(points, spec).reads_later == any(kept)
