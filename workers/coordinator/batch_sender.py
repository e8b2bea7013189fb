"""The coordinator's sending thread: batches into the first link, each with its header, held back by the link."""

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


class Serving(Protocol):
    """What is left to do for a link when everything has been sent."""

    def serve(self) -> None:
        """Connect again to a receiver that was restarted."""
        ...


@dataclass
class BatchSender:
    """Feeds the pipeline; `start` returns at once.

    Args:
        config: the run.
        feed: what to send.
        open_sender: opens the first link.
        serving: of that link.
        snapshots: says at which steps there is one.
    """

    config: Config
    feed: Feed | NumbersFeed
    open_sender: Callable[[], Sender]
    serving: Serving
    snapshots: SnapshotCommitter
    failed: Callable[[int | None, Exception], None] = lambda step, error: None
    """Called with the step and the exception that ended the thread."""
    leave: threading.Event = field(default_factory=threading.Event)
    """Set it to end the run with the next batch."""
    left: Header | None = None
    """The header that ended the run before its end."""
    over: threading.Event = field(default_factory=threading.Event)
    """Set it when nobody will need anything more."""
    trace: Tracer = NO_TRACE
    """Told what is done when."""
    _sender: Sender | None = None

    def start(self, recorder: Recorder) -> None:
        """Begin to send."""
        threading.Thread(target=self._run, args=(recorder,), name="sender", daemon=True).start()

    def _run(self, recorder: Recorder) -> None:
        step = None
        try:
            sender = self._sender = self.open_sender()
            noise = NoisePolicy(self.config, self.feed.steps_per_epoch)
            phases = Phases.of(self.config, self.feed.steps_per_epoch)
            waits = time.monotonic()
            for batch in self.feed:
                step = batch.step
                self.trace.at(step)
                self.trace.took(FEED, "wait for images", waits)
                header = self._header(batch, noise, phases.learner(step))
                if isinstance(self.feed, Feed):  # that of a first stage comes with its reports
                    recorder.feed = self.feed.measures()
                stages = header.learner or self.config.num_stages
                recorder.batch_sent(step, batch.epoch, batch.views.shape[1], stages)
                if header.leave:
                    self.left = header
                # The feed writes the batch after next into the memory of this one.
                views = batch.views.clone() if sender.keeps else batch.views
                with self.trace.span(FEED, "send"):
                    sender.send(header, views, self.config.link.timeout)
                waits = time.monotonic()
                if header.leave:
                    break
            while not self.over.wait(LINGER_SECONDS):
                self.serving.serve()
        except Exception as error:
            if not self.over.is_set():
                self.failed(step, error)

    def close(self) -> None:
        """Nobody will need anything more: close the link, on which the first stage keeps a call open until then."""
        self.over.set()
        if self._sender is not None:
            self._sender.close()

    def _header(self, batch: FeedBatch, noise: NoisePolicy, learner: int | None) -> Header:
        leave = self.leave.is_set() and not batch.last
        snapshot = self.snapshots.due(batch.step, learner or self.config.num_stages, leave)
        labels = b"" if batch.labels is None else batch.labels.astype("<i4").tobytes()
        samples = batch.samples.astype("<i8").tobytes() if photometrics_on_device(self.config.data) else b""
        data_set = self.feed.data_set if isinstance(self.feed, NumbersFeed) else ""
        marks = batch.last or leave, learner, snapshot, leave
        return Header(batch.step, batch.epoch, noise.levels(batch.step), *marks, labels, samples, data_set)
