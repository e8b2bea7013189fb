"""Which links a process opens: from every process of the unit before, to every process of the unit after."""

from __future__ import annotations

import shutil
from functools import partial

import torch

from pipeline.config import Config
from workers.feed import Feed
from workers.feed.first_stage import finishing, numbers_spec, self_feeding, stages_feed
from workers.links.base import LinkAddress, Receiver, Sender
from workers.links.factory import CPU, open_receiver, open_sender
from workers.links.messages import TensorSpec
from workers.links.replay import ReplayBuffer
from workers.links.replaying import ReplayingSender, ResumingReceiver
from workers.links.resharding import RowRange, joining, shares, slicing
from workers.run.files import RunDir
from workers.topology.members import COORDINATOR, TrainingProcess, members, of_unit
from workers.topology.rendezvous import START_SECONDS, Rendezvous, link_spec


class Wiring:
    """The links of one process of a run.

    Args:
        config: the run.
        meeting: where its processes meet.
        run: where batches wait that a restarted stage may need.
    """

    def __init__(self, config: Config, meeting: Rendezvous, run: RunDir) -> None:
        self._config, self._meeting, self._run = config, meeting, run
        self._members = members(config)
        self._senders: list[ReplayingSender] = []
        self._receivers: list[ResumingReceiver] = []
        self.feed: Feed | None = None
        """Of this process, if it reads the images of its batches itself."""

    def receiver(self, member: TrainingProcess, start_step: int, device: torch.device) -> Receiver:
        """The link into the unit of `member`, which is to get the batches from `start_step` on, finished images first.

        Raises:
            LinkTimeout, LinkClosed, LinkMismatch: a sender did not open its end, or opened another one.
            UserError: this process is to read the images itself, and the data set cannot be opened.
        """
        if member.unit:
            return self._link(member, start_step, device)
        if not stages_feed(self._config):
            return finishing(self._link(member, start_step, device), self._config, member)
        numbers = self._link(member, start_step, CPU)
        spec = _part_of(link_spec(self._config, 1), member.replicas)
        images, self.feed = self_feeding(numbers, self._config, member, start_step, spec, device)
        return finishing(images, self._config, member)

    def sender(self, member: TrainingProcess, device: torch.device) -> Sender | None:
        """The link out of the unit of `member`; None for the last. Raises as `receiver`."""
        if member.unit == self._members[-1].unit:
            return None
        return self._sender(member.name, member.unit + 1, device)

    def first_sender(self) -> Sender:
        """The coordinator's, into the first unit; raises as `receiver`."""
        return self._sender(COORDINATOR, 0, CPU)

    def in_words(self) -> list[str]:
        """Every link of the run, a sentence each."""
        link, sentences = self._config.link, []
        for unit in sorted({member.unit for member in self._members}):
            before, after = (" and ".join(ends) for ends in self._ends(unit))
            spec, codec = self._spec(unit), self._codec(unit)
            coded = "" if codec == "none" else f" as {codec}"
            what = f"at most {link.depth} batches of {spec} ({spec.nbytes / 1e6:.1f} MB){coded}"
            sentences.append(f"link from {before} to {after}: {link.kind}, {what}")
        return sentences

    def committed(self, steps: int) -> None:
        """A snapshot after `steps` steps is complete; may be called from another thread."""
        for sender in self._senders:
            sender.forget(steps)

    def serve(self) -> None:
        """Every batch has come and gone; a neighbour that was restarted since may still need this process."""
        for receiver in self._receivers:
            receiver.serve()
        for sender in self._senders:
            sender.serve()

    def close(self) -> None:
        """Remove what waits on disk."""
        shutil.rmtree(self._run.replay, ignore_errors=True)

    def _link(self, member: TrainingProcess, start_step: int, device: torch.device) -> Receiver:
        senders, receivers = self._ends(member.unit)
        points: list[tuple[RowRange, Receiver]] = []
        for share in shares(len(senders), len(receivers)):
            if receivers[share.receiver] != member.name:
                continue
            address, spec = self._address(member.unit, share), share.spec(self._spec(member.unit))
            kind, codec = self._config.link.kind, self._codec(member.unit)
            opening = partial(open_receiver, kind, address, spec, device=device, codec=codec)
            lasts = self._config.restart == "stage"
            points.append((share, self._lasting_receiver(opening, start_step) if lasts else opening(START_SECONDS)))
        return joining(points, self._part(member.unit, len(receivers)), device)

    def _sender(self, name: str, unit: int, device: torch.device) -> Sender:
        senders, receivers = self._ends(unit)
        points: list[tuple[RowRange, Sender]] = []
        for share in shares(len(senders), len(receivers)):
            if senders[share.sender] != name:
                continue
            address, spec = self._address(unit, share), share.spec(self._spec(unit))
            opening = partial(
                open_sender, self._config.link.kind, address, spec, START_SECONDS, self._codec(unit), device
            )
            points.append(
                (share, self._lasting_sender(opening, address) if self._config.restart == "stage" else opening())
            )
        return slicing(points, self._part(unit, len(senders)))

    def _lasting_sender(self, opening: partial[Sender], address: LinkAddress) -> ReplayingSender:
        sender = ReplayingSender(opening, ReplayBuffer(self._run.replay / address.name), START_SECONDS)
        self._senders.append(sender)
        return sender

    def _lasting_receiver(self, opening: partial[Receiver], start_step: int) -> ResumingReceiver:
        receiver = ResumingReceiver(opening, START_SECONDS, start_step)
        self._receivers.append(receiver)
        return receiver

    def _ends(self, unit: int) -> tuple[list[str], list[str]]:
        """The processes before and after the link into `unit`."""
        before = [member.name for member in of_unit(self._members, unit - 1)] if unit else [COORDINATOR]
        return before, [member.name for member in of_unit(self._members, unit)]

    def _address(self, unit: int, share: RowRange) -> LinkAddress:
        senders, receivers = self._ends(unit)
        pair = "" if share.senders == share.receivers == 1 else f".{share.sender + 1}-{share.receiver + 1}"
        ends = senders[share.sender], receivers[share.receiver]
        return self._meeting.point(f"link{unit}{pair}", *ends, self._config.link.depth)

    def _first_stage(self, unit: int) -> int:
        return of_unit(self._members, unit)[0].stages[0]

    def _spec(self, unit: int) -> TensorSpec:
        """Of the whole batch."""
        if unit == 0 and stages_feed(self._config):
            return numbers_spec(self._config)
        return link_spec(self._config, self._first_stage(unit))

    def _part(self, unit: int, replicas: int) -> TensorSpec:
        """Of what one of `replicas` holds."""
        return _part_of(self._spec(unit), replicas)

    def _codec(self, unit: int) -> str:
        """Images travel as they are."""
        return self._config.link.codec if unit else "none"


def _part_of(whole: TensorSpec, replicas: int) -> TensorSpec:
    views, batch, *rest = whole.shape
    return TensorSpec((views, batch // replicas, *rest), whole.dtype)
