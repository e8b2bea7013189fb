"""What the coordinator puts into the first link: every batch with its header, and nothing after the last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from pipeline.config import Config
from pipeline.errors import UserError
from tests.pipeline.small import small_config
from workers.coordinator.batch_sender import BatchSender
from workers.coordinator.recorder import Recorder
from workers.feed import FeedBatch
from workers.run.files import RunDir
from workers.snapshots.committer import SnapshotCommitter

STEPS, BATCH, EPOCH = 6, 4, 3


class Batches:
    """Stands for the feed of six steps, three an epoch; the user asks to stop while a step is being made."""

    steps_per_epoch = EPOCH

    def __init__(self, labels: bool = False, stop_at: int | None = None) -> None:
        self.batch_sender: BatchSender | None = None
        self._labels, self._stop_at = labels, stop_at

    def __iter__(self) -> Iterator[FeedBatch]:
        for step in range(STEPS):
            if step == self._stop_at and self.batch_sender is not None:
                self.batch_sender.stop_requested.set()
            samples = np.arange(step, step + BATCH)
            labels = samples % 3 if self._labels else None
            views = torch.full((2, BATCH, 8, 8, 3), step, dtype=torch.uint8)
            yield FeedBatch(
                step=step, epoch=step // EPOCH, last=step == STEPS - 1, views=views, samples=samples, labels=labels
            )


class Link:
    """Keeps what is sent."""

    reads_later = True

    def __init__(self, fails_at: int | None = None) -> None:
        self.sent: list[tuple[Any, torch.Tensor]] = []
        self.closed, self._fails_at = 0, fails_at

    def send(self, header: Any, views: torch.Tensor, timeout: float) -> None:
        if header.step == self._fails_at:
            raise RuntimeError("the link is gone")
        self.sent.append((header, views))

    def close(self) -> None:
        self.closed += 1


class Written:
    """What is written down of what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, int, int]] = []

    def batch_sent(self, *words: int) -> None:
        self.sent.append(cast("tuple[int, int, int, int]", words))


def sent(
    config: Config, feed: Batches, folder: Path, link: Link, over: bool = True
) -> tuple[BatchSender, Written, list[tuple[int | None, Exception]]]:
    """Everything that can be sent has been; `over`: nobody needs anything more then."""
    failures: list[tuple[int | None, Exception]] = []
    committer = SnapshotCommitter(config.snapshots, RunDir(folder), print, 0)
    batch_sender = BatchSender(
        config=config,
        feed=cast(Any, feed),
        open_sender=lambda: cast(Any, link),
        links=SimpleNamespace(serve=lambda: None),
        snapshots=committer,
        failed=lambda step, error: failures.append((step, error)),
    )
    feed.batch_sender = batch_sender
    if over:
        batch_sender.finished.set()
    written = Written()
    batch_sender._run(cast(Recorder, written))
    return batch_sender, written, failures


def test_every_batch_travels_with_what_the_stages_must_know_of_it(tmp_path: Path) -> None:
    config, link = small_config(snapshots={"every": 2}), Link()
    batch_sender, written, failures = sent(config, Batches(labels=True), tmp_path, link)
    headers = [header for header, _ in link.sent]
    assert [(header.step, header.epoch, header.last) for header in headers] == [
        (0, 0, False), (1, 0, False), (2, 0, False), (3, 1, False), (4, 1, False), (5, 1, True),
    ]  # fmt: skip
    assert [header.snapshot for header in headers] == [False, True] * 3
    assert not any(header.leave for header in headers)
    assert [header.label_tensor.tolist() for header in headers] == [
        [(step + row) % 3 for row in range(BATCH)] for step in range(STEPS)
    ]
    assert [int(views[0, 0, 0, 0, 0]) for _, views in link.sent] == list(range(STEPS))
    assert written.sent == [(step, step // EPOCH, BATCH, config.num_stages) for step in range(STEPS)]
    assert (batch_sender.stopped_at, failures) == (None, [])


def test_a_loss_without_labels_gets_none(tmp_path: Path) -> None:
    link = Link()
    sent(small_config(), Batches(), tmp_path, link)
    assert {header.labels for header, _ in link.sent} == {b""}
    assert link.sent[0][0].label_tensor is None


def test_a_run_that_is_asked_to_stop_ends_with_the_next_batch_and_a_snapshot(tmp_path: Path) -> None:
    link = Link()
    batch_sender, written, failures = sent(small_config(snapshots={"every": 100}), Batches(stop_at=2), tmp_path, link)
    assert [(header.step, header.last, header.leave, header.snapshot) for header, _ in link.sent] == [
        (0, False, False, False), (1, False, False, False), (2, True, True, True),
    ]  # fmt: skip
    assert batch_sender.stopped_at == link.sent[-1][0]
    assert len(written.sent) == 3
    assert failures == []


def test_a_run_that_is_asked_to_stop_at_its_last_batch_has_ended_anyway(tmp_path: Path) -> None:
    link = Link()
    batch_sender, _, _ = sent(small_config(), Batches(stop_at=STEPS - 1), tmp_path, link)
    assert (link.sent[-1][0].last, link.sent[-1][0].leave) == (True, False)
    assert batch_sender.stopped_at is None


def test_what_ends_the_sending_is_told_with_its_step(tmp_path: Path) -> None:
    _, written, failures = sent(small_config(), Batches(), tmp_path, Link(fails_at=3), over=False)
    assert [(step, str(error)) for step, error in failures] == [(3, "the link is gone")]
    assert len(written.sent) == 4


def test_what_fails_when_nobody_needs_anything_more_is_no_failure(tmp_path: Path) -> None:
    _, _, failures = sent(small_config(), Batches(), tmp_path, Link(fails_at=3))
    assert failures == []


def test_a_link_that_cannot_be_opened_is_of_no_step(tmp_path: Path) -> None:
    failures: list[Any] = []

    def refuse() -> Any:
        raise UserError("the port is taken")

    config = small_config()
    committer = SnapshotCommitter(config.snapshots, RunDir(tmp_path), print, 0)
    links = SimpleNamespace(serve=lambda: None)
    batch_sender = BatchSender(
        config=config,
        feed=cast(Any, Batches()),
        open_sender=refuse,
        links=links,
        snapshots=committer,
        failed=lambda *words: failures.append(words),
    )
    batch_sender._run(cast(Recorder, Written()))
    [(step, error)] = failures
    assert (step, str(error)) == (None, "the port is taken")
    batch_sender.close()
    assert batch_sender.finished.is_set()


@pytest.mark.parametrize("served", [1, 3])
def test_a_link_is_served_until_the_run_is_over(tmp_path: Path, served: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first stage that is restarted after everything was sent connects again."""
    monkeypatch.setattr("workers.coordinator.batch_sender.LINGER_SECONDS", 0.0)
    config, link = small_config(), Link()
    committer = SnapshotCommitter(config.snapshots, RunDir(tmp_path), print, 0)
    times: list[int] = []

    def serve() -> None:
        times.append(len(link.sent))
        if len(times) == served:
            batch_sender.close()

    batch_sender = BatchSender(
        config=config,
        feed=cast(Any, Batches()),
        open_sender=lambda: cast(Any, link),
        links=SimpleNamespace(serve=serve),
        snapshots=committer,
    )
    batch_sender._run(cast(Recorder, Written()))
    assert times == [STEPS] * served
    assert link.closed == 1
