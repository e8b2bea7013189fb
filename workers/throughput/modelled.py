"""The pipeline that a configuration describes, for the throughput model: its processes, and the links between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.config import Config
from workers.throughput.records import ModelledFeed, ModelledLink, ModelledPipeline, ModelledStage
from workers.topology.processes import TrainingProcess, replicas_of, stage_name, training_processes

FORWARD_SHARE = 1 / 3
"""Of what a stage computes in a step, where it is not known: a backward pass takes about two forward passes."""


@dataclass(frozen=True, kw_only=True)
class StageWork:
    """What one replica of a stage does for a step, in seconds.

    Args:
        forward: computing until its output is ready to be sent.
        update: computing after that; 0 of a frozen stage.
        receiving, sending: copying what it is sent, and what it sends.
    """

    forward: float
    update: float
    receiving: float = 0.0
    sending: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StageMeasured:
    """What a run has measured of a stage, per step of its first replica.

    Args:
        stage: counted from 1.
        busy, copying: seconds, as step reports have them.
        link_bytes: that it has sent to the next stage, as they are encoded; 0 where the next one is in its process.
    """

    stage: int
    busy: float
    copying: float
    link_bytes: float


@dataclass(frozen=True, kw_only=True)
class LinkSpeeds:
    """How fast the speeds between processes are; see `ModelledLink`. Without values they take no time.

    Args:
        bandwidth, latency: between two processes of one host; of a `queue`, whose ends copy themselves, leave them.
        card, card_latency: between two hosts.
    """

    bandwidth: float = float("inf")
    latency: float = 0.0
    card: float = float("inf")
    card_latency: float = 0.0


AT_ONCE = LinkSpeeds()


def pipeline_of(
    config: Config,
    stages: Sequence[StageWork],
    feed: ModelledFeed,
    *,
    speeds: LinkSpeeds = AT_ONCE,
    hosts: Sequence[int] | None = None,
    learner: int | None = None,
) -> ModelledPipeline:
    """The pipeline of a run.

    Args:
        config: of the run.
        stages: in order, up to the last one that batches reach, each as it would be alone in its process.
        feed: of the whole batch; `ahead` is decided by the configuration.
        speeds: between its processes.
        hosts: of every training process, by rank; all are on one if not given.
        learner: in mode `sequential`, the stage that learns in the phase that is meant.
    """
    groups, links = [], []
    for replicas in _stage_groups(config):
        reached = [index for index in replicas[0].stages if index <= (learner or len(stages))]
        if reached:
            works = [_in_phase(stages[index - 1], index, learner) for index in reached]
            groups.append(_group(replicas, works, hosts))
            links.append(_link_into(reached[0], config, speeds))
    made_ahead = 0 if _feeds_itself(config) else 2
    return ModelledPipeline(
        batch=config.data.batch_size, feed=replace(feed, ahead=made_ahead), stages=tuple(groups), links=tuple(links)
    )


def pipeline_measured(
    config: Config,
    measured: Sequence[StageMeasured],
    feed_seconds: float | None,
    *,
    speeds: LinkSpeeds = AT_ONCE,
    hosts: Sequence[int] | None = None,
    forward_share: float = FORWARD_SHARE,
) -> ModelledPipeline:
    """The pipeline of a run, by what it has measured: so, without its waits, it is one that can be asked for them.

    Args:
        config: of the run.
        measured: every stage that batches reach, in any order.
        feed_seconds: for the views of a batch, by all workers of the feed together; None where nobody knows.
        speeds, hosts: as `pipeline_of`; a run measures neither.
        forward_share: part of `busy` that lies before a stage sends, which a run does not report. It decides how long
            the pipeline takes to fill, and nearly nothing else.
    """
    works: dict[int, StageWork] = {}
    for one in measured:
        forward = one.busy * forward_share
        # Between CPUs the sender copies. On GPUs both ends may, which makes no difference but to the fill.
        sending = one.copying if one.link_bytes else 0.0
        works[one.stage] = StageWork(
            forward=forward, update=one.busy - forward, receiving=one.copying - sending, sending=sending
        )
    feed = ModelledFeed(seconds=feed_seconds or 0.0)
    planned = pipeline_of(config, [works[stage] for stage in sorted(works)], feed, speeds=speeds, hosts=hosts)
    sent = [one.link_bytes for one in sorted(measured, key=lambda one: one.stage) if one.link_bytes]
    if len(sent) != len(planned.links) - 1:
        return planned
    carried = [planned.links[0].bytes, *(b * one.replicas for b, one in zip(sent, planned.stages, strict=False))]
    links = (replace(link, bytes=size) for link, size in zip(planned.links, carried, strict=True))
    return replace(planned, links=tuple(links))


def _stage_groups(config: Config) -> list[list[TrainingProcess]]:
    """The processes of every stage group."""
    if config.in_one_process:
        return [[TrainingProcess(0, 0, tuple(range(1, config.num_stages + 1)))]]
    processes = training_processes(config)
    return [replicas_of(processes, number) for number in range(processes[-1].stage_group + 1)]


def _in_phase(work: StageWork, stage: int, learner: int | None) -> StageWork:
    """Before the stage that learns, stages only run forward; that one sends nothing."""
    if learner is None:
        return work
    return replace(work, sending=0.0) if stage == learner else replace(work, update=0.0)


def _group(
    replicas: Sequence[TrainingProcess], works: Sequence[StageWork], hosts: Sequence[int] | None
) -> ModelledStage:
    """Stages of one process: forward through all of them, then the updates of all."""
    first = replicas[0]
    return ModelledStage(
        name=stage_name(first.stages[0]) if len(first.stages) == 1 else first.name,
        forward=sum(work.forward for work in works),
        update=sum(work.update for work in works),
        receiving=works[0].receiving,
        sending=works[-1].sending,
        replicas=len(replicas),
        hosts=tuple(0 if hosts is None else hosts[one.rank] for one in replicas),
    )


def _link_into(stage: int, config: Config, speeds: LinkSpeeds) -> ModelledLink:
    if stage == 1 and _feeds_itself(config):
        depth, size = 1, 0
    else:
        depth, size = config.link.depth, _bytes_into(stage, config)
    return ModelledLink(depth=depth, bytes=size, **vars(speeds))


def _bytes_into(stage: int, config: Config) -> int:
    """Of a whole batch, as it is encoded; images are not."""
    from workers.links.coded import encoded_spec  # these load torch
    from workers.topology.rendezvous import link_spec

    return encoded_spec(config.link.codec, link_spec(config, stage)).nbytes


def _feeds_itself(config: Config) -> bool:
    """Whether the first process makes its batches itself, or a thread of it does."""
    return config.in_one_process or config.data.feed == "stages"
