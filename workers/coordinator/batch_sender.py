"""The coordinator's sending thread: sends batches with their headers into the first link, which blocks it when full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.config import Config
from pipeline.data.augment.device_photometrics import photometrics_on_device
from pipeline.stage.phases import Phases
from workers.coordinator.recorder import Recorder
from workers.feed import Feed, FeedBatch
from workers.feed.first_stage import NumbersFeed
from workers.links.base import Sender
from workers.links.messages import Header
from workers.observing.trace import FEED, NO_TRACE, Tracer
from workers.snapshots.committer import SnapshotCommitter
from workers.topology.rendezvous import NoisePolicy

LINGER_SECONDS = 0.2


class Restartable(Protocol):
    """Links whose receiver may be restarted after the last batch was sent."""

    def serve(self) -> None:
        """Reconnect to a receiver that was restarted, and resend what it needs."""
        ...


@dataclass(kw_only=True)
class BatchSender:
    """Sends the batches of a feed into the pipeline, in a thread; `start` returns at once.

    Args:
        config: of the run.
        feed: the batches.
        open_sender: opens the first link.
        links: served after the last batch.
        snapshots: decides after which steps a snapshot is taken.
    """

    config: Config
    feed: Feed | NumbersFeed
    open_sender: Callable[[], Sender]
    links: Restartable
    snapshots: SnapshotCommitter
    failed: Callable[[int | None, Exception], None] = lambda step, error: None
    """Called with the step and the exception if the thread fails."""
    stop_requested: threading.Event = field(default_factory=threading.Event)
    """To be set to stop the run after the next batch."""
    stopped_at: Header | None = None
    """The header of the batch after which the run stops early."""
    finished: threading.Event = field(default_factory=threading.Event)
    """To be set when all processes are done and no receiver can be restarted any more."""
    trace: Tracer = NO_TRACE
    """Records when batches are waited for and sent."""
    _sender: Sender | None = None

    def start(self, recorder: Recorder) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, args=(recorder,), name="sender", daemon=True).start()

    def _run(self, recorder: Recorder) -> None:
        step = None
        try:
            sender = self._sender = self.open_sender()
            noise = NoisePolicy(self.config, self.feed.steps_per_epoch)
            phases = Phases.of(self.config, self.feed.steps_per_epoch)
            wait_started = time.monotonic()
            for batch in self.feed:
                step = batch.step
                self.trace.at(step)
                self.trace.took(FEED, "wait for images", wait_started)
                header = self._header(batch, noise, phases.learner(step))
                if isinstance(self.feed, Feed):  # the feeds of stage 1 report with its steps
                    recorder.feed = self.feed.measures()
                stages = header.learner or self.config.num_stages
                recorder.batch_sent(step, batch.epoch, batch.views.shape[1], stages)
                if header.leave:
                    self.stopped_at = header
                # The feed reuses the memory of this batch while the link may still read it.
                views = batch.views.clone() if sender.reads_later else batch.views
                with self.trace.span(FEED, "send"):
                    sender.send(header, views, self.config.link.timeout)
                wait_started = time.monotonic()
                if header.leave:
                    break
            while not self.finished.wait(LINGER_SECONDS):
                self.links.serve()
        except Exception as error:
            if not self.finished.is_set():
                self.failed(step, error)

    def close(self) -> None:
        """Close the link; with `rpc`, stage 1 keeps a call open on it until then."""
        self.finished.set()
        if self._sender is not None:
            self._sender.close()

    def _header(self, batch: FeedBatch, noise: NoisePolicy, learner: int | None) -> Header:
        leave = self.stop_requested.is_set() and not batch.last
        snapshot = self.snapshots.begin_if_due(batch.step, learner or self.config.num_stages, leave)
        labels = b"" if batch.labels is None else batch.labels.astype("<i4").tobytes()
        samples = batch.samples.astype("<i8").tobytes() if photometrics_on_device(self.config.data) else b""
        data_set = self.feed.data_set if isinstance(self.feed, NumbersFeed) else ""
        return Header(
            batch.step,
            batch.epoch,
            noise.levels(batch.step),
            last=batch.last or leave,
            learner=learner,
            snapshot=snapshot,
            leave=leave,
            labels=labels,
            samples=samples,
            data_set=data_set,
        )
