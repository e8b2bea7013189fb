"""What the throughput model is given, and what it answers. All times are in seconds; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Limit = Literal["stage", "link", "feed"]
"""What bounds the throughput of a pipeline, where its devices hold it."""


@dataclass(frozen=True, kw_only=True)
class ModelledStage:
    """The processes of one stage group; its replicas are alike.

    Args:
        name: as messages have it.
        forward: computing until the output is ready to be sent.
        update: computing after it was sent.
        receiving: copying what has arrived, before `forward`.
        sending: copying what is sent, between `forward` and `update`, of all messages of a step together.
        replicas: processes that share every batch.
        hosts: the host of each replica, as a number; all 0 on one host.
    """

    name: str
    forward: float
    update: float
    receiving: float = 0.0
    sending: float = 0.0
    replicas: int = 1
    hosts: tuple[int, ...] = (0,)

    @property
    def compute(self) -> float:
        """Of a step, without the links."""
        return self.forward + self.update


@dataclass(frozen=True, kw_only=True)
class ModelledLink:
    """The links into one stage group, of all its replicas together.

    Args:
        depth: messages that may wait in each before its sender blocks (`link.depth`).
        bytes: of the whole batch.
        bandwidth: bytes a second of the way between two processes of one host, each pair for itself.
        card: bytes a second of a host's network card in each direction, which all links of that host share that leave
            it; used between processes of different hosts.
        latency, card_latency: until a message is there after it was sent, within a host and between two.
    """

    depth: int
    bytes: float
    bandwidth: float = float("inf")
    card: float = float("inf")
    latency: float = 0.0
    card_latency: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ModelledFeed:
    """Who makes the batches.

    Args:
        seconds: for a batch.
        ahead: batches that are made before they can be sent.
        sending: copying a batch into the first link.
    """

    seconds: float
    ahead: int = 2
    sending: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ModelledPipeline:
    """A pipeline.

    Args:
        batch: images of a step.
        feed: of the coordinator, or of the first stage.
        stages: in order.
        links: one into each stage, in order.
    """

    batch: int
    feed: ModelledFeed
    stages: tuple[ModelledStage, ...]
    links: tuple[ModelledLink, ...]


@dataclass(frozen=True, kw_only=True)
class StageForecast:
    """Shares of the time of a stage's first replica once the pipeline is full, 0 to 1, as a run reports them."""

    busy: float
    wait_input: float
    wait_output: float
    copying: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the model says of a pipeline.

    Args:
        images_per_second: once it is full.
        bound: images a second that the computing of the slowest stage alone would allow.
        fill: seconds from when the feed begins with the first batch until the last stage has done its first step.
        limit: what bounds it.
        limiting: the name of that stage, of the stage behind that link, or "feed".
        stages: in order.
    """

    images_per_second: float
    bound: float
    fill: float
    limit: Limit
    limiting: str
    stages: tuple[StageForecast, ...]
