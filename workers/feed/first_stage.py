"""Input of the first stage besides its link: its own feed (`data.feed: stages`), and augmentation on its device.

With `data.feed: stages` the coordinator sends the indices of the images, in the order of the plan. Every process of
stage 1 prepares its rows of each batch ahead of time by the same plan, and compares the indices of both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any, Protocol

import torch

from pipeline.config import Config
from pipeline.data.augment.device_photometrics import Photometrics, photometrics_on_device
from pipeline.data.sampler import StepPlan
from pipeline.data.sets.datasets import open_dataset
from pipeline.data.sets.index import fingerprint
from pipeline.errors import TrainingError, UserError
from workers.feed import Feed, FeedBatch, FeedMeasures
from workers.links.base import Meter, Receiver
from workers.links.messages import Message, TensorSpec
from workers.links.resharding import replica_rows
from workers.observing.trace import NO_TRACE, Tracer
from workers.run.closable import Closable
from workers.topology.processes import TrainingProcess

FINGERPRINT_LETTERS = 12
"""Leading digits of a fingerprint that error messages show."""


def stages_read_images(config: Config) -> bool:
    """Whether the processes of stage 1 read the images instead of the coordinator; not in a serial run."""
    return config.data.feed == "stages" and not config.in_one_process


def numbers_spec(config: Config) -> TensorSpec:
    """Tensor of indices that the coordinator sends instead of images: `[1, B]`, with rows on axis 1 as everywhere."""
    return TensorSpec((1, config.data.batch_size), torch.int64)


class NumbersFeed(Closable):
    """Yields the indices of the images of every batch without reading an image. A context manager, as `Feed`.

    Args:
        config: of the run.
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
        """Fingerprint of the data set that the indices refer to."""

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
        return FeedBatch(
            step=step, epoch=epoch, last=step == self.total_steps - 1, views=numbers, samples=samples, labels=labels
        )

    def measures(self) -> FeedMeasures:
        """Empty statistics; stage 1 sends those of its feeds in its reports."""
        return FeedMeasures()

    def close(self) -> None:
        """Does nothing; for symmetry with `Feed`."""


def open_feed(config: Config, start_step: int = 0, trace: Tracer = NO_TRACE) -> Feed | NumbersFeed:
    """The feed of the coordinator; raises as `Feed` and `NumbersFeed`."""
    return NumbersFeed(config, start_step) if stages_read_images(config) else Feed(config, start_step, trace=trace)


class SelfFeedingReceiver(Receiver):
    """Receives indices from the coordinator and returns the images that the feed of this process has prepared.

    The images are in host memory: a slot of the feed.

    Args:
        numbers: link from the coordinator, `[1, B]` for the rows of this replica.
        feed: of the same rows, from the same step on.
        data_set: fingerprint of the data set of the feed.
        spec: of the images.
    """

    def __init__(self, numbers: Receiver, feed: Feed, data_set: str, spec: TensorSpec) -> None:
        super().__init__(numbers.address, spec)
        self._numbers, self._feed, self._data_set = numbers, feed, data_set

    def measure(self, meter: Meter) -> None:
        """See `Receiver.measure`."""
        super().measure(meter)
        self._numbers.measure(meter)

    def recv(self, timeout: float) -> Message:
        """See `Receiver.recv`; the feed has its own time limit.

        Raises:
            UserError: the data set differs from that of the coordinator, or an image cannot be decoded.
            TrainingError: the feed failed, or prepared another batch than was requested.
        """
        message = self._numbers.recv(timeout)
        header = message.header
        if header.data_set != self._data_set:
            own, sent = (name[:FINGERPRINT_LETTERS] for name in (self._data_set, header.data_set))
            raise UserError(
                f"the data set of {self.address.receiver} is another than that of {self.address.sender} "
                f"(fingerprints {own} and {sent}): other files, sizes or labels. With data.feed=stages every host "
                "that runs stage 1 needs the same data set under data.root"
            )
        batch = next(self._feed, None)
        self._meter("waiting")
        requested = message.tensor[0].tolist()
        if batch is None or batch.step != header.step or batch.samples.tolist() != requested:
            ready = "nothing" if batch is None else f"step {batch.step}, images {_shortened(batch.samples.tolist())}"
            raise TrainingError(
                f"{self.address}: step {header.step}, images {_shortened(requested)} was asked for, and {ready} had "
                "been prepared. Both processes must run the same configuration and version"
            )
        return Message(replace(header, data_set=""), batch.views)

    def waiting(self) -> int:
        """See `Receiver.waiting`."""
        return self._numbers.waiting()

    def close(self) -> None:
        """See `Receiver.close`; closes the feed, too."""
        self._numbers.close()
        self._feed.close()


class AugmentingReceiver(Receiver):
    """Applies the colour augmentations that the feed has left to the device of stage 1 (`data.augment_on: device`).

    Args:
        inner: receives images that are cropped and flipped, on that device.
        photometrics: the augmentations.
        process: whose rows of the batch are received.
    """

    def __init__(self, inner: Receiver, photometrics: Photometrics, process: TrainingProcess) -> None:
        super().__init__(inner.address, inner.spec)
        self._inner, self._augment, self._process = inner, photometrics, process

    def measure(self, meter: Meter) -> None:
        """See `Receiver.measure`."""
        super().measure(meter)
        self._inner.measure(meter)

    def recv(self, timeout: float) -> Message:
        """See `Receiver.recv`; the indices of the images are removed from the header.

        Raises:
            TrainingError: there is not one index per image.
        """
        message = self._inner.recv(timeout)
        samples = message.header.sample_numbers
        rows = replica_rows(self._process.replica - 1, self._process.replicas, len(samples))
        if len(samples[rows]) != message.tensor.shape[1]:
            raise TrainingError(
                f"{self.address}: numbers of {len(samples[rows])} images came with {message.tensor.shape[1]} of them"
            )
        views = self._augment(message.tensor, message.header.epoch, samples[rows])
        self._meter("computing")
        return Message(replace(message.header, samples=b""), views)

    def waiting(self) -> int:
        """See `Receiver.waiting`."""
        return self._inner.waiting()

    def close(self) -> None:
        """See `Receiver.close`."""
        self._inner.close()


def with_own_feed(
    numbers: Receiver, config: Config, process: TrainingProcess, start_step: int, spec: TensorSpec
) -> tuple[Receiver, Feed]:
    """Wrap the link from the coordinator so that a new feed provides the images; closes the link on failure.

    Raises:
        UserError: the data set cannot be opened on this host.
    """
    try:
        feed = Feed(config, start_step, part=(process.replica - 1, process.replicas))
    except BaseException:
        numbers.close()
        raise
    try:
        return SelfFeedingReceiver(numbers, feed, fingerprint(feed.images), spec), feed
    except BaseException:
        feed.close()
        numbers.close()
        raise


def with_device_augmentation(receiver: Receiver, config: Config, process: TrainingProcess) -> Receiver:
    """Wrap `receiver` so that images are augmented on the device, if the configuration says so."""
    if not photometrics_on_device(config.data):
        return receiver
    return AugmentingReceiver(receiver, Photometrics(config.data, config.num_views, config.seed), process)


def device_augmentation(config: Config) -> Callable[[torch.Tensor, FeedBatch], torch.Tensor]:
    """What the feed of a process that trains all stages leaves to its device (`data.augment_on: device`)."""
    if not photometrics_on_device(config.data):
        return lambda views, batch: views
    photometrics = Photometrics(config.data, config.num_views, config.seed)
    return lambda views, batch: photometrics(views, batch.epoch, batch.samples)


class Channel(Protocol):
    """Where messages to the coordinator are sent."""

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        ...


class MeasuredReports:
    """Adds the statistics of the feed of this process to the step reports of stage 1.

    Args:
        control: channel to the coordinator.
        feed: of this process.
    """

    def __init__(self, control: Channel, feed: Feed) -> None:
        self._control, self._feed = control, feed

    def send(self, message: dict[str, Any]) -> None:
        """Send one message of a stage."""
        if message["type"] == "report" and message["stage"] == 1:
            message = {**message, "feed": asdict(self._feed.measures())}
        self._control.send(message)


def _shortened(numbers: list[int]) -> str:
    return f"{numbers}" if len(numbers) <= 4 else f"[{', '.join(map(str, numbers[:4]))}, ...] ({len(numbers)})"
