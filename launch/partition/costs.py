"""What the parts of a network cost, as records: from them the time of any stage follows, wherever the network is cut.

A stage is some units and what follows them: pooling, head, loss. So its time is that of its units, of its end, and of
its part of the links; the first two are measured (`measuring.py`) or estimated (`estimating.py`) once for each unit:

    units      stem   layer1.0   layer1.1   layer2.0   layer2.1   ...
    ends              after the stem, after layer1.0, ...: each with the head and the loss of the stage that ends there

All times are in seconds, all sizes in bytes, and all images are counted with all of their views. Nothing here imports
torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.config.memory import Recompute


@dataclass(frozen=True, kw_only=True)
class UnitCost:
    """One unit of the backbone.

    Args:
        unit: its name.
        forward: of one image.
        backward: of one image, the gradient of its input included.
        input_gradient: the part of `backward` that is spent on the gradient of its input, which the first unit of a
            stage needs none of.
        step: of a step, whatever the number of images: optimizer.
        parameters: its gradients, which replicas sum.
        kept: what autograd keeps of it for the backward pass, of one image.
        output: its output for one image, as a link carries it without codec; 0 where the network cannot be cut after
            it.
    """

    unit: str
    forward: float
    backward: float
    input_gradient: float
    step: float
    parameters: int
    kept: int
    output: int


@dataclass(frozen=True, kw_only=True)
class EndCost:
    """What follows the last unit of a stage: pooling, head, loss, and their backward pass.

    Args:
        forward: of one image, noise and head.
        backward: of one image.
        step: of a step, whatever the number of images: optimizer, and the part of the loss that all replicas compute.
        loss: of one image of the whole batch, which all replicas compute alike.
        parameters: its gradients, which replicas sum.
        kept: what autograd keeps of it for the backward pass, of one image.
    """

    forward: float
    backward: float
    step: float
    loss: float
    parameters: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class LinkCost:
    """A link between two processes.

    Args:
        sending: of the sender itself, which computes nothing meanwhile, for one byte.
        receiving: of the receiver itself, for one byte.
        message: of each end, for a message of any size.
        bandwidth: bytes a second of the way; infinite where the two ends copy everything themselves.
        latency: from the end of `sending` until the message is there.
    """

    sending: float
    receiving: float
    message: float
    bandwidth: float
    latency: float


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a run's network costs on one kind of device.

    Args:
        device: its name, for people.
        estimated: from operations and bytes; otherwise it was measured on it.
        batch: images of a step.
        units: in order, all of the network.
        ends: by the number of the stage, from 1, and the number of its last unit, from 0; stages have heads of their
            own, so that one end may cost what another does not. An end that no stage can have is not in it.
        within: a link between two processes of one host.
        across: between two hosts, whose card all links of a host share in each direction.
        summing: of one byte of gradients that replicas sum, beyond what is hidden behind the backward pass.
        feed: of one image, by all workers of the feed together.
        memory: bytes of one device that programs can use.
        of_stages: the units as stages have them whose precision, optimizer or target network is not that of `units`,
            by number.
        input: bytes of one image as the coordinator sends it to the first stage; 0 where it sends none.
    """

    device: str
    estimated: bool
    batch: int
    units: tuple[UnitCost, ...]
    ends: Mapping[tuple[int, int], EndCost]
    within: LinkCost
    across: LinkCost
    summing: float
    feed: float
    memory: int
    input: int = 0
    of_stages: Mapping[int, tuple[UnitCost, ...]] = field(default_factory=dict)

    def units_of(self, stage: int) -> tuple[UnitCost, ...]:
        """All units of the network, with the settings of a stage, counted from 1."""
        return self.of_stages.get(stage, self.units)


@dataclass(frozen=True, kw_only=True)
class StageCut:
    """One stage of a plan.

    Args:
        stage: counted from 1.
        first, last: numbers of its units, from 0, both included.
        replicas: processes that share its batches.
        recompute: see `memory.recompute`.
        chunk: see `head.chunk`; None for none.
    """

    stage: int
    first: int
    last: int
    replicas: int = 1
    recompute: Recompute = "none"
    chunk: int | None = None


@dataclass(frozen=True, kw_only=True)
class StageSeconds:
    """The time of one replica of a stage for a step; the two may overlap with those of its neighbours, not each other.

    Args:
        forward: until its output is ready to be sent.
        update: head, loss, backward pass, optimizer, after it was sent.
    """

    forward: float
    update: float

    @property
    def compute(self) -> float:
        """Both."""
        return self.forward + self.update


def seconds_of(costs: Costs, cut: StageCut) -> StageSeconds:
    """What a replica of a stage computes in a step, without its links.

    Recomputing units runs the forward pass of all units again; recomputing views that of the end, too.
    """
    units, end = costs.units_of(cut.stage)[cut.first : cut.last + 1], costs.ends[cut.stage, cut.last]
    images = costs.batch / cut.replicas
    forward = images * sum(unit.forward for unit in units)
    backward = sum(unit.backward for unit in units) - units[0].input_gradient
    again = {"none": 0.0, "auto": 0.0, "units": forward, "views": forward + images * end.forward}[cut.recompute]
    fixed = sum(unit.step for unit in units) + end.step + costs.batch * end.loss
    summed = sum(unit.parameters for unit in units) + end.parameters if cut.replicas > 1 else 0
    update = images * (end.forward + end.backward + backward) + again + fixed + costs.summing * summed
    return StageSeconds(forward=forward, update=update)
