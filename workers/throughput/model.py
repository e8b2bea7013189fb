"""Images a second of a pipeline, by its protocol, event by event. Does not import torch.

What is modelled is what the processes do (`stage.worker`), for `depth` 2:

    feed       makes a batch as soon as fewer than `ahead` are ready beside the one that is being sent
    sender     next batch, room in the first link, copy
    stage      receive, copy | forward | room in the next link, copy | update
    link       2 may be unreceived; taking one gives the sender room for one more, which it learns after the latency
    replicas   each has links to those whose rows overlap with its own (`links.resharding`), waits for room in all of
               them before it sends into the first, and ends its update with its peers, whose gradients it needs

A message is on its way while its sender computes, as over `p2p` and `rpc`: between two processes of one host at
`bandwidth`, between two hosts through the cards of both, which the connections of a host share fairly. A `queue` has
no way, for the sender itself copies into memory that both see: `sending`, or `receiving` on a GPU.

Not modelled, or only as part of the times that are given: what replicas send each other (a part of `update`), codecs
and checksums (`forward`), snapshots, a core that several processes share, the batch that a first stage on a GPU takes
ahead. Every step takes as long as the others: where times vary, stages wait more than this says. Where the first stage
reads the images itself (`data.feed=stages`), or one process trains all stages (`runtime=serial`), nothing lies between
feed and stage: `ahead=0` and a link of depth 1 without bytes make as many batches ahead. In mode `sequential` each
phase is a pipeline of its own, to the stage that learns, in which those before it only run forward. `modelled.py` makes
all of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import count
from math import inf, lcm
from typing import get_args

from workers.control.shares import Share
from workers.throughput.records import Forecast, Limit, ModelledLink, ModelledPipeline, ModelledStage, StageForecast
from workers.throughput.simulation import Cards, Connection, EventCount, Process, Simulation

SHARES: tuple[Share, ...] = get_args(Share)


def forecast(pipeline: ModelledPipeline, steps: int = 64) -> Forecast:
    """What a run of this pipeline would measure.

    Rates and shares are those of the last half of the steps or nearly, with a feed that never ends: so neither the
    filling of the pipeline nor its end is among them.

    Args:
        pipeline: the times of its parts; what its last stage may have for `sending` is left out.
        steps: that every stage does, at least 2. Where links are deep and two parts nearly as fast as each other,
            it takes many until the links between them are full, and as long the faster one waits less for room.

    Raises:
        ValueError: fewer steps, or not one link for each stage, or not one host for each replica.
    """
    _check(pipeline, steps)
    *others, final = pipeline.stages
    pipeline = replace(pipeline, stages=(*others, replace(final, sending=0.0)))
    run = _Run(pipeline)
    done = run.until(steps)
    # What a link with latency lets through may repeat itself only after `depth` steps: so, whole repetitions.
    repeats = lcm(*(link.depth for link in pipeline.links))
    window = steps // 2 // repeats * repeats or steps // 2
    first, last = steps - 1 - window, steps - 1
    elapsed, compute = done[-1][last].time - done[-1][first].time, max(stage.compute for stage in pipeline.stages)
    bound = pipeline.batch / compute if compute else inf
    limit, limiting = _slowest(pipeline, run.pairs)
    return Forecast(
        # Sums of times are rounded, so that the rate may come out above the bound by the last bits.
        images_per_second=min(window * pipeline.batch / elapsed if elapsed else inf, bound),
        bound=bound,
        fill=done[-1][0].time,
        limit=limit,
        limiting=limiting,
        stages=tuple(_shares(times[first], times[last]) for times in done),
    )


@dataclass
class _Times:
    """What a process has spent its time on until it had done a step."""

    busy: float = 0.0
    wait_input: float = 0.0
    wait_output: float = 0.0
    copying: float = 0.0
    time: float = 0.0


class _Pair:
    """The link between two processes.

    Args:
        link: into the stage group of the receiver.
        part: of the batch that it carries.
        hosts: of sender and receiver.
        copied: when the sender has copied its message, in seconds after there was room for those of all its links.
    """

    def __init__(self, link: ModelledLink, part: Fraction, hosts: tuple[int, int], copied: float) -> None:
        self.depth, self.bytes, self.copied = link.depth, link.bytes * float(part), copied
        across = hosts[0] != hosts[1]
        self.latency = link.card_latency if across else link.latency
        self.seconds = self.bytes / (link.card if across else link.bandwidth)
        self.connection = Connection(*hosts)
        self.card, self.shared = link.card, across and self.seconds > 0
        """Of both hosts, which it shares with other links if its messages go through them and take time."""
        self.free = 0.0
        """When the last message has left the way between processes of one host."""
        self.arrived, self.taken = EventCount(), EventCount()
        """Messages that have arrived, and those of which the sender knows that they were taken."""


class _Run:
    """A simulation of a pipeline."""

    def __init__(self, pipeline: ModelledPipeline) -> None:
        self._pipeline, self._clock = pipeline, Simulation()
        self.pairs = _pairs(pipeline)
        self._cards = Cards(self._clock, _capacities(self.pairs))
        self._done: list[list[_Times]] = [[] for _ in pipeline.stages]

    def until(self, steps: int) -> list[list[_Times]]:
        """For each stage, what its first replica has spent after each step, of `steps` at least."""
        made, sent = EventCount(), EventCount()
        self._clock.start(self._make(made, sent))
        self._clock.start(self._feed(made, sent))
        for number, stage in enumerate(self._pipeline.stages):
            started = EventCount()
            for replica in range(stage.replicas):
                done = self._done[number] if replica == 0 else []
                self._clock.start(self._train(number, replica, started, done))
        behind = list(self._done)

        def over() -> bool:
            while behind and len(behind[-1]) >= steps:
                behind.pop()
            return not behind

        self._clock.run(over)
        return self._done

    def _make(self, made: EventCount, sent: EventCount) -> Process:
        for step in count():
            yield sent, step - self._pipeline.feed.ahead
            yield self._pipeline.feed.seconds
            self._clock.advance(made)

    def _feed(self, made: EventCount, sent: EventCount) -> Process:
        links = list(self.pairs[0].values())
        for step in count():
            yield made, step + 1
            yield from self._room(links, step)
            yield from self._send(links)
            self._clock.advance(sent)

    def _train(self, number: int, replica: int, started: EventCount, done: list[_Times]) -> Process:
        stage, spent, clock = self._pipeline.stages[number], _Times(), self._clock
        into = [pair for (_, receiver), pair in self.pairs[number].items() if receiver == replica]
        out = [pair for (sender, _), pair in self.pairs[number + 1].items() if sender == replica]
        for step in count():
            begun = clock.now
            for pair in into:
                yield pair.arrived, step + 1
                clock.after(pair.latency, partial(clock.advance, pair.taken))
            spent.wait_input += clock.now - begun
            yield stage.receiving
            yield stage.forward
            begun = clock.now
            yield from self._room(out, step)
            spent.wait_output += clock.now - begun
            yield from self._send(out)
            begun = clock.now
            clock.advance(started)
            yield started, (step + 1) * stage.replicas
            yield stage.update
            spent.busy += stage.forward + clock.now - begun
            spent.copying += stage.receiving + stage.sending
            done.append(_Times(spent.busy, spent.wait_input, spent.wait_output, spent.copying, clock.now))

    def _room(self, pairs: Sequence[_Pair], step: int) -> Process:
        for pair in pairs:
            yield pair.taken, step - pair.depth + 1

    def _send(self, pairs: Sequence[_Pair]) -> Process:
        copied = 0.0
        for pair in pairs:
            yield pair.copied - copied
            copied = pair.copied
            arrives = partial(self._clock.after, pair.latency, partial(self._clock.advance, pair.arrived))
            if pair.shared:
                self._cards.send(pair.connection, pair.bytes, arrives)
            else:
                pair.free = max(pair.free, self._clock.now) + pair.seconds
                self._clock.after(pair.free - self._clock.now, arrives)


def _pairs(pipeline: ModelledPipeline) -> list[dict[tuple[int, int], _Pair]]:
    """For each stage, and after the last, the links into it by the numbers of sender and receiver, from 0."""
    senders, copying = _hosts(pipeline.stages[0])[:1], pipeline.feed.sending  # the coordinator is beside that process
    found: list[dict[tuple[int, int], _Pair]] = []
    for link, stage in zip(pipeline.links, pipeline.stages, strict=True):
        receivers, into = _hosts(stage), {}
        copied = [Fraction(0)] * len(senders)  # parts of the batch, by each of them
        for (i, j), part in parts_of_batch(len(senders), len(receivers)).items():
            copied[i] += part
            into[i, j] = _Pair(link, part, (senders[i], receivers[j]), copying * float(copied[i] * len(senders)))
        found.append(into)
        senders, copying = receivers, stage.sending
    return [*found, {}]


def parts_of_batch(senders: int, receivers: int) -> dict[tuple[int, int], Fraction]:
    """The part of a batch that each sender has for each receiver, where that is some."""
    parts = {}
    for i in range(senders):
        for j in range(receivers):
            start = max(Fraction(i, senders), Fraction(j, receivers))
            end = min(Fraction(i + 1, senders), Fraction(j + 1, receivers))
            if start < end:
                parts[i, j] = end - start
    return parts


def _hosts(stage: ModelledStage) -> tuple[int, ...]:
    return stage.hosts * stage.replicas if len(stage.hosts) == 1 else stage.hosts


def _capacities(pairs: Sequence[dict[tuple[int, int], _Pair]]) -> dict[int, float]:
    """Bytes a second of each host's card."""
    cards: dict[int, float] = {}
    for pair in (pair for into in pairs for pair in into.values()):
        for _, host in pair.connection.ends if pair.shared else ():
            cards[host] = min(cards.get(host, pair.card), pair.card)
    return cards


def _slowest(pipeline: ModelledPipeline, pairs: Sequence[dict[tuple[int, int], _Pair]]) -> tuple[Limit, str]:
    """Which part needs the most time for a step, by itself; a stage where two need as much."""
    needed: list[tuple[float, Limit, str]] = [
        (stage.compute + stage.receiving + stage.sending, "stage", stage.name) for stage in pipeline.stages
    ]
    feed = pipeline.feed
    in_turn = (feed.seconds + feed.sending) / (feed.ahead + 1)  # each batch is made when one before it was sent
    needed.append((max(feed.seconds, feed.sending, in_turn), "feed", "feed"))
    loads: dict[tuple[str, int], dict[str, float]] = {}
    for stage, into in zip(pipeline.stages, pairs, strict=False):
        for pair in into.values():
            # With all of `depth` on the way, the next one goes when the first has been taken.
            there_and_back = (pair.copied + pair.seconds + 2 * pair.latency) / pair.depth
            needed.append((max(pair.seconds, there_and_back), "link", stage.name))
            for end in pair.connection.ends if pair.shared else ():
                load = loads.setdefault(end, {})
                load[stage.name] = load.get(stage.name, 0.0) + pair.seconds
    needed += [(sum(load.values()), "link", max(load, key=lambda name: load[name])) for load in loads.values()]
    _, limit, name = max(needed, key=lambda part: part[0])
    return limit, name


def _shares(before: _Times, after: _Times) -> StageForecast:
    """What the time between two steps was spent on."""
    spent = {name: getattr(after, name) - getattr(before, name) for name in SHARES}
    whole = sum(spent.values())
    return StageForecast(**{name: seconds / whole if whole else 0.0 for name, seconds in spent.items()})


def _check(pipeline: ModelledPipeline, steps: int) -> None:
    if steps < 2:
        raise ValueError(f"steps is {steps}: a rate takes two")
    if len(pipeline.links) != len(pipeline.stages) or not pipeline.stages:
        raise ValueError(f"{len(pipeline.stages)} stages have {len(pipeline.links)} links into them")
    for stage in pipeline.stages:
        if len(_hosts(stage)) != stage.replicas:
            raise ValueError(f"{stage.name} has {stage.replicas} replicas on {len(stage.hosts)} hosts")
