"""How fast a configuration is, by the throughput model: its processes, links and feed, from what its parts cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from launch.partition.costs import Costs, StageCut, seconds_of
from pipeline.config import Config
from workers.links.coded import encoded_spec
from workers.throughput.model import forecast
from workers.throughput.modelled import LinkSpeeds, StageWork, pipeline_of
from workers.throughput.records import Forecast, ModelledFeed, ModelledPipeline
from workers.topology.processes import TrainingProcess, replicas_of, stage_groups, training_processes
from workers.wiring import LinkPlan, PlannedLink

FEED_HOST = 0
"""The coordinator, which sends the batches, is on the host of rank 0."""


def cuts_of(config: Config, units: Sequence[str]) -> tuple[StageCut, ...]:
    """The stages of a configuration.

    Args:
        config: of the run; `memory.recompute` is decided.
        units: all of the network, in order, by the names that the costs have for them.

    Raises:
        ValueError: the costs have no unit at which a block of it ends.
    """
    cuts, first = list[StageCut](), 0
    for index, block in enumerate(config.model.blocks(), 1):
        stage, last = config.stage(index), list(units).index(block[-1])
        chunk, recompute = getattr(stage.head, "chunk", None), stage.memory.recompute
        cuts.append(
            StageCut(stage=index, first=first, last=last, replicas=stage.replicas, recompute=recompute, chunk=chunk)
        )
        first = last + 1
    return tuple(cuts)


def forecast_of(pipeline: ModelledPipeline, fed: bool = True) -> Forecast:
    """What the model says; with `fed` false of the same if every batch were there at once."""
    return forecast(pipeline if fed else replace(pipeline, feed=replace(pipeline.feed, seconds=0.0)))


def modelled(costs: Costs, config: Config, cuts: Sequence[StageCut], hosts: Sequence[int]) -> ModelledPipeline:
    """The pipeline of a configuration.

    Args:
        costs: of its network on a device.
        config: of the run, with its processes and the number of its replicas.
        cuts: its stages, in order.
        hosts: of every training process, by rank.
    """
    processes, groups = training_processes(config), stage_groups(config)
    into = [_copying(costs, config, group, processes, hosts) for group in range(len(groups))]
    works = []
    for group, members in enumerate(groups):
        after = into[group + 1].sending if group + 1 < len(groups) else 0.0
        for index in members:
            seconds = seconds_of(costs, cuts[index - 1])
            receiving = into[group].receiving if index == members[0] else 0.0
            sending = after if index == members[-1] else 0.0
            works.append(
                StageWork(forward=seconds.forward, update=seconds.update, receiving=receiving, sending=sending)
            )
    speeds = LinkSpeeds(
        bandwidth=costs.within.bandwidth,
        latency=costs.within.latency,
        card=costs.across.bandwidth,
        card_latency=costs.across.latency,
    )
    feed = ModelledFeed(seconds=feed_seconds(costs, config), sending=into[0].sending)
    return pipeline_of(config, works, feed, speeds=speeds, hosts=hosts)


def feed_seconds(costs: Costs, config: Config) -> float:
    """For a batch: by the coordinator's workers, or by those of every process of stage 1 for its own rows."""
    makers = config.replicas_of(1) if config.data.feed == "stages" else 1
    return costs.batch * costs.feed / makers


@dataclass(frozen=True)
class _Copying:
    """Seconds that the slowest of the senders, and of the receivers, of a link copies for a step itself."""

    sending: float
    receiving: float


def _copying(
    costs: Costs, config: Config, group: int, processes: Sequence[TrainingProcess], hosts: Sequence[int]
) -> _Copying:
    """Of the links into a stage group."""
    senders = [hosts[process.rank] for process in replicas_of(list(processes), group - 1)] if group else [FEED_HOST]
    receivers = [hosts[process.rank] for process in replicas_of(list(processes), group)]
    sending, receiving = [0.0] * len(senders), [0.0] * len(receivers)
    for link in LinkPlan(config).into(group):
        i, j = link.rows.sender, link.rows.receiver
        cost = costs.within if senders[i] == receivers[j] else costs.across
        sending[i] += _message_bytes(link) * cost.sending + cost.message
        receiving[j] += _message_bytes(link) * cost.receiving + cost.message
    return _Copying(max(sending), max(receiving))


def carried_bytes(config: Config, group: int) -> int:
    """What enters a stage group in a step, as it is encoded, all replicas together."""
    return sum(map(_message_bytes, LinkPlan(config).into(group)))


def _message_bytes(link: PlannedLink) -> int:
    return encoded_spec(link.codec, link.spec).nbytes
