"""What comes before the first stage besides a link: a feed of its own (`data.feed: stages`), and colours on its device.

The coordinator then sends the numbers of the images, in the order of the plan. Every process of stage 1 reads its share
of each batch itself, ahead of time by the same plan, and compares what it has prepared with the numbers that come.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from pipeline.config import Config
from pipeline.data.augment.device_photometrics import Photometrics, photometrics_on_device
from pipeline.data.sampler import StepPlan
from pipeline.data.sets.datasets import open_dataset
from pipeline.data.sets.index import fingerprint
from pipeline.errors import TrainingError, UserError
from workers.feed import Feed, FeedBatch, FeedMeasures
from workers.links.base import Receiver
from workers.links.messages import Message, TensorSpec
from workers.links.resharding import part
from workers.observing.trace import NO_TRACE, Tracer
from workers.topology.members import TrainingProcess

FINGERPRINT_LETTERS = 12
"""Of a fingerprint that are shown."""


def stages_feed(config: Config) -> bool:
    """Whether the processes of stage 1 read the images themselves; in a run of one process nobody else could."""
    return config.data.feed == "stages" and not config.in_one_process


def numbers_spec(config: Config) -> TensorSpec:
    """What the coordinator then sends: `[1, B]`, so that rows are axis 1 as everywhere."""
    return TensorSpec((1, config.data.batch_size), torch.int64)


class NumbersFeed:
    """The batches of a run by the numbers of their images; opens no image. A context manager, as `Feed`.

    Args:
        config: the run.
        start_step: the first step, counted from 0.

    Raises:
        UserError: the data set cannot be opened.
    """

    def __init__(self, config: Config, start_step: int = 0) -> None:
        images = open_dataset(config.data, "train")
        self._labels, self.num_classes = images.labels if config.uses_labels else None, images.num_classes
        self._plan, self._next = StepPlan.of(config, len(images)), start_step
        self.total_steps, self.steps_per_epoch = self._plan.total_steps, self._plan.steps_per_epoch
        self.data_set = fingerprint(images)
        """Fingerprint of the data set that the numbers are of."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[FeedBatch]:
        return self

    def __next__(self) -> FeedBatch:
        if self._next >= self.total_steps:
            raise StopIteration
        step = self._next
        epoch, samples = self._plan.batch(step)
        self._next += 1
        labels = None if self._labels is None else self._labels[samples]
        numbers = torch.from_numpy(samples.copy()).unsqueeze(0)
        return FeedBatch(step, epoch, step == self.total_steps - 1, numbers, samples, labels)

    def measures(self) -> FeedMeasures:
        """Of no work; that of the first stage comes with its reports."""
        return FeedMeasures()

    def close(self) -> None:
        """Nothing is held."""


def open_feed(config: Config, start_step: int = 0, trace: Tracer = NO_TRACE) -> Feed | NumbersFeed:
    """What the coordinator sends; raises as `Feed` and `NumbersFeed`."""
    return NumbersFeed(config, start_step) if stages_feed(config) else Feed(config, start_step, trace=trace)


class SelfFeedingReceiver(Receiver):
    """Receives the numbers of the images and gives the images.

    Args:
        numbers: the link from the coordinator, `[1, B]` of this replica's rows.
        feed: of the same rows, from the same step on.
        data_set: fingerprint of what it reads.
        spec: of the images.
        device: where they are wanted.
    """

    def __init__(self, numbers: Receiver, feed: Feed, data_set: str, spec: TensorSpec, device: torch.device) -> None:
        super().__init__(numbers.address, spec)
        self._numbers, self._feed, self._data_set, self._device = numbers, feed, data_set, device

    def recv(self, timeout: float) -> Message:
        """See `Receiver.recv`; the wait for the feed is bounded by its own limit.

        Raises:
            UserError: this host has another data set than the coordinator's, or an image cannot be decoded.
            TrainingError: the feed gave out, or prepared another batch than was asked for.
        """
        message = self._numbers.recv(timeout)
        header = message.header
        if header.data_set != self._data_set:
            here, there = (name[:FINGERPRINT_LETTERS] for name in (self._data_set, header.data_set))
            raise UserError(
                f"the data set of {self.address.receiver} is another than that of {self.address.sender} "
                f"(fingerprints {here} and {there}): other files, sizes or labels. With data.feed=stages every host "
                "that runs stage 1 needs the same data set under data.root"
            )
        batch = next(self._feed, None)
        asked = message.tensor[0].tolist()
        if batch is None or batch.step != header.step or batch.samples.tolist() != asked:
            ready = "nothing" if batch is None else f"step {batch.step}, images {_some(batch.samples.tolist())}"
            raise TrainingError(
                f"{self.address}: step {header.step}, images {_some(asked)} was asked for, and {ready} had been "
                "prepared. Both processes must run the same configuration and version"
            )
        return Message(replace(header, data_set=""), batch.views.to(self._device))

    def waiting(self) -> int:
        """See `Receiver.waiting`."""
        return self._numbers.waiting()

    def close(self) -> None:
        """See `Receiver.close`; ends the feed too."""
        self._numbers.close()
        self._feed.close()


class FinishingReceiver(Receiver):
    """Applies what the feed left to the device of the first stage (`data.augment_on: device`).

    Args:
        inner: gives images that are cropped and flipped, on that device.
        photometrics: of the run.
        member: whose rows of the batch they are.
    """

    def __init__(self, inner: Receiver, photometrics: Photometrics, member: TrainingProcess) -> None:
        super().__init__(inner.address, inner.spec)
        self._inner, self._finish, self._member = inner, photometrics, member

    def recv(self, timeout: float) -> Message:
        """See `Receiver.recv`; the numbers of the images go no further than this.

        Raises:
            TrainingError: the numbers are not those of the batch.
        """
        message = self._inner.recv(timeout)
        samples = message.header.sample_numbers
        rows = part(self._member.replica - 1, self._member.replicas, len(samples))
        if len(samples[rows]) != message.tensor.shape[1]:
            raise TrainingError(
                f"{self.address}: numbers of {len(samples[rows])} images came with {message.tensor.shape[1]} of them"
            )
        started = time.monotonic()
        views = self._finish(message.tensor, message.header.epoch, samples[rows])
        self.computing += time.monotonic() - started
        return Message(replace(message.header, samples=b""), views)

    def waiting(self) -> int:
        """See `Receiver.waiting`."""
        return self._inner.waiting()

    def close(self) -> None:
        """See `Receiver.close`."""
        self._inner.close()


def self_feeding(
    numbers: Receiver, config: Config, member: TrainingProcess, start_step: int, spec: TensorSpec, device: torch.device
) -> tuple[Receiver, Feed]:
    """Put a feed behind the link from the coordinator; closes the link if that fails.

    Raises:
        UserError: the data set cannot be opened on this host.
    """
    try:
        feed = Feed(config, start_step, part=(member.replica - 1, member.replicas))
    except BaseException:
        numbers.close()
        raise
    try:
        return SelfFeedingReceiver(numbers, feed, fingerprint(feed.images), spec, device), feed
    except BaseException:
        feed.close()
        numbers.close()
        raise


def finishing(receiver: Receiver, config: Config, member: TrainingProcess) -> Receiver:
    """Finish the colours of what `receiver` gives, if that is left to this process."""
    if not photometrics_on_device(config.data):
        return receiver
    return FinishingReceiver(receiver, Photometrics(config.data, config.num_views, config.seed), member)


class Channel(Protocol):
    """Takes messages for the coordinator."""

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        ...


class MeasuredReports:
    """Adds how the feed of this process stands to the reports of the first stage.

    Args:
        control: to the coordinator.
        feed: of this process.
    """

    def __init__(self, control: Channel, feed: Feed) -> None:
        self._control, self._feed = control, feed

    def send(self, message: dict[str, Any]) -> None:
        """Send one message of a stage."""
        if message["type"] == "report" and message["stage"] == 1:
            message = {**message, "feed": asdict(self._feed.measures())}
        self._control.send(message)


def _some(numbers: list[int]) -> str:
    return f"{numbers}" if len(numbers) <= 4 else f"[{', '.join(map(str, numbers[:4]))}, ...] ({len(numbers)})"
