"""Opens the links of a process: from the processes of the previous stage group, to those of the next."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from pipeline.config import Config
from pipeline.stage.bit_flips import Exposed, untouched
from workers.feed import Feed
from workers.feed.ahead import ahead_on_device
from workers.feed.first_stage import numbers_spec, stages_read_images, with_device_augmentation, with_own_feed
from workers.links.base import LinkAddress, Receiver, Sender
from workers.links.factory import CPU, open_receiver, open_sender
from workers.links.messages import TensorSpec
from workers.links.queue import gpu_of
from workers.links.replay import ReplayBuffer
from workers.links.replaying import ReplayingSender, ResumingReceiver
from workers.links.resharding import RowRange, gather_receiver, overlaps, scatter_sender
from workers.links.rpc_agent import start_agent
from workers.run.files import RunDir
from workers.topology.processes import COORDINATOR, TrainingProcess, replicas_of, training_processes
from workers.topology.rendezvous import START_SECONDS, Rendezvous, link_spec


@dataclass(frozen=True, kw_only=True)
class PlannedLink:
    """A link between two processes, as the configuration has it.

    Args:
        name: `link1`, or `link1.1-2` where replicas share the rows.
        sender, receiver: names of the processes.
        rows: of the batch that it carries.
        spec: the largest tensor, before it is encoded.
        codec: that encodes it.
    """

    name: str
    sender: str
    receiver: str
    rows: RowRange
    spec: TensorSpec
    codec: str


class LinkPlan:
    """Every link of a run: which processes it connects and what it carries.

    Args:
        config: of the run, which is not `in_one_process`.
    """

    def __init__(self, config: Config) -> None:
        self._config, self._processes = config, training_processes(config)
        self.stage_groups = sorted({process.stage_group for process in self._processes})
        """Numbers of the stage groups, from 0; links lead into each."""

    def into(self, stage_group: int) -> list[PlannedLink]:
        """The links into `stage_group`, in the order in which all processes open theirs."""
        senders, receivers = self.ends(stage_group)
        links = []
        for rows in overlaps(len(senders), len(receivers)):
            pair = "" if rows.senders == rows.receivers == 1 else f".{rows.sender + 1}-{rows.receiver + 1}"
            name, spec = f"link{stage_group}{pair}", rows.spec(self.spec(stage_group))
            sender, receiver = senders[rows.sender], receivers[rows.receiver]
            codec = self.codec(stage_group)
            links.append(PlannedLink(name=name, sender=sender, receiver=receiver, rows=rows, spec=spec, codec=codec))
        return links

    def ends(self, stage_group: int) -> tuple[list[str], list[str]]:
        """Names of the processes before and after the link into `stage_group`."""
        before = [COORDINATOR]
        if stage_group:
            before = [process.name for process in replicas_of(self._processes, stage_group - 1)]
        return before, [process.name for process in replicas_of(self._processes, stage_group)]

    def spec(self, stage_group: int) -> TensorSpec:
        """Specification of the whole batch that is sent into `stage_group`."""
        if stage_group == 0 and stages_read_images(self._config):
            return numbers_spec(self._config)
        return link_spec(self._config, replicas_of(self._processes, stage_group)[0].stages[0])

    def part(self, stage_group: int, replicas: int) -> TensorSpec:
        """Specification of the rows of one of `replicas` processes."""
        return _part_of(self.spec(stage_group), replicas)

    def codec(self, stage_group: int) -> str:
        """Codec of the link into `stage_group`; images are not encoded."""
        return self._config.link.codec if stage_group else "none"


class Wiring:
    """The links of one process of a run.

    Args:
        config: of the run.
        rendezvous: addresses and key of the run.
        run: its directory, where batches for restarted stages are kept.
        note: tells the user how the tensors of a link that was opened get across, where that was found out.
    """

    def __init__(
        self, config: Config, rendezvous: Rendezvous, run: RunDir, note: Callable[[str], None] = lambda text: None
    ) -> None:
        self._config, self._rendezvous, self._run, self._note = config, rendezvous, run, note
        self._kind = config.link.resolved_kind
        self._plan, self._last_group = LinkPlan(config), training_processes(config)[-1].stage_group
        self._senders: list[ReplayingSender] = []
        self._receivers: list[ResumingReceiver] = []
        self.feed: Feed | None = None
        """The feed of this process, if it reads the images itself (`data.feed: stages`)."""

    def join_rpc_group(self, name: str, rank: int) -> None:
        """Start the RPC agent of process `name` if the links are of that kind; the ranks count from 0, the
        coordinator's is the last.

        Raises:
            LinkTimeout, TrainingError: as `start_agent`.
        """
        if self._kind == "rpc":
            size, transports = len(training_processes(self._config)) + 1, self._config.link.rpc_transports
            start_agent(name, rank, size, self._rendezvous.rpc_init, START_SECONDS, transports)

    def receiver(
        self, process: TrainingProcess, start_step: int, device: torch.device, exposed: Exposed = untouched
    ) -> Receiver:
        """Open the link into the stage group of `process`; it returns the batches from `start_step` on.

        Args:
            process, start_step, device: which one this is, its first step, and where it computes.
            exposed: is shown every message on its way, see `CheckedReceiver`.

        Raises:
            LinkTimeout, LinkClosed, LinkMismatch: a sender did not open its end, or opened it differently.
            UserError: the data set cannot be opened, where this process reads the images itself.
        """
        if process.stage_group:
            return self._link(process, start_step, device, exposed)
        images = self._link(process, start_step, CPU, exposed)  # the coordinator sends from host memory
        if stages_read_images(self._config):
            spec = _part_of(link_spec(self._config, 1), process.replicas)
            images, self.feed = with_own_feed(images, self._config, process, start_step, spec)
        return with_device_augmentation(ahead_on_device(images, device), self._config, process)

    def sender(self, process: TrainingProcess, device: torch.device) -> Sender | None:
        """Open the link out of the stage group of `process`; None for the last group. Raises as `receiver`."""
        if process.stage_group == self._last_group:
            return None
        return self._sender(process.name, process.stage_group + 1, device)

    def first_sender(self) -> Sender:
        """Open the coordinator's link into the first stage group. Raises as `receiver`."""
        return self._sender(COORDINATOR, 0, CPU)

    def in_words(self) -> list[str]:
        """A sentence for every link of the run."""
        link, sentences = self._config.link, []
        for stage_group in self._plan.stage_groups:
            before, after = (" and ".join(ends) for ends in self._plan.ends(stage_group))
            spec, codec = self._plan.spec(stage_group), self._plan.codec(stage_group)
            coded = "" if codec == "none" else f" as {codec}"
            content = f"at most {link.depth} batches of {spec} ({spec.nbytes / 1e6:.1f} MB){coded}"
            sentences.append(f"link from {before} to {after}: {self._kind}, {content}")
        return sentences

    def committed(self, steps: int) -> None:
        """Drop batches that no restart needs, because the snapshot after `steps` steps is complete. Thread-safe."""
        for sender in self._senders:
            sender.discard_before(steps)

    def serve(self) -> None:
        """To be called repeatedly after the last batch, for neighbours that were restarted since."""
        for receiver in self._receivers:
            receiver.serve()
        for sender in self._senders:
            sender.serve()

    def close(self) -> None:
        """Remove the batches that are kept on disk."""
        shutil.rmtree(self._run.replay, ignore_errors=True)

    def _link(self, process: TrainingProcess, start_step: int, device: torch.device, exposed: Exposed) -> Receiver:
        links: list[tuple[RowRange, Receiver]] = []
        for link in self._plan.into(process.stage_group):
            if link.receiver != process.name:
                continue
            opening = partial(self._receiver_end, link, device, exposed)
            restarts = self._config.restart == "stage"
            links.append(
                (link.rows, self._resuming_receiver(opening, start_step) if restarts else opening(START_SECONDS))
            )
        return gather_receiver(links, self._plan.part(process.stage_group, process.replicas), device)

    def _receiver_end(self, link: PlannedLink, device: torch.device, exposed: Exposed, timeout: float) -> Receiver:
        receiver = open_receiver(
            self._kind,
            self._address(link),
            link.spec,
            timeout,
            device=device,
            codec=link.codec,
            device_to_device=self._config.link.rings,
            exposed=exposed,
        )
        if receiver.way:
            self._note(receiver.way)
        return receiver

    def _sender(self, name: str, stage_group: int, device: torch.device) -> Sender:
        links: list[tuple[RowRange, Sender]] = []
        for link in self._plan.into(stage_group):
            if link.sender != name:
                continue
            address, restarts = self._address(link), self._config.restart == "stage"
            sender = open_sender(
                self._kind,
                address,
                link.spec,
                START_SECONDS,
                link.codec,
                device,
                self._config.link.rings,
                lasting=partial(self._replaying_sender, address, device) if restarts else None,
                checksum=self._config.link.checksum,
            )
            links.append((link.rows, sender))
        return scatter_sender(links, self._plan.part(stage_group, len(self._plan.ends(stage_group)[0])))

    def _replaying_sender(
        self, address: LinkAddress, device: torch.device, opening: Callable[[], Sender]
    ) -> ReplayingSender:
        buffer = ReplayBuffer(self._run.replay / address.name, gpu_of(device))
        sender = ReplayingSender(opening, buffer, START_SECONDS)
        self._senders.append(sender)
        return sender

    def _resuming_receiver(self, opening: partial[Receiver], start_step: int) -> ResumingReceiver:
        receiver = ResumingReceiver(opening, START_SECONDS, start_step)
        self._receivers.append(receiver)
        return receiver

    def _address(self, link: PlannedLink) -> LinkAddress:
        return self._rendezvous.point(link.name, link.sender, link.receiver, self._config.link.depth)


def _part_of(whole: TensorSpec, replicas: int) -> TensorSpec:
    views, batch, *rest = whole.shape
    return TensorSpec((views, batch // replicas, *rest), whole.dtype)
