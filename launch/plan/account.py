"""What a run will need, as records: of its processes, its links, the memory of the host, and its evaluation.

All amounts are whole bytes. Nothing here imports torch: the account is computed in a process of its own
(`compute.py`) and printed by one that need not load it. In JSON the names are those of the fields.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StageAccount:
    """What one stage holds between two steps, and what it keeps within one; in bytes.

    Args:
        stage: counted from 1.
        parameters: with buffers, and BYOL's target.
        optimizer: its state.
        gradients: of the parameters.
        kept: what autograd keeps for the backward when that begins.
        snapshot: the tensors of one snapshot.
        summed: what gradients are copied into, to be summed over the replicas; 0 for one.
        online: of `evaluation.online`: probe, banks of features.
    """

    stage: int
    parameters: int
    optimizer: int
    gradients: int
    kept: int
    snapshot: int
    summed: int = 0
    online: int = 0


@dataclass(frozen=True)
class ProcessAccount:
    """What the tensors of one process take, in bytes.

    Args:
        stages: each that it trains, in order.
        input: the batch that enters it, which `peak` does not contain.
        output: what it sends; 0 for the last.
        peak: most at once in a step that is not the first.
        moment: when that is, such as "backward of stage 1".
    """

    stages: tuple[StageAccount, ...]
    input: int
    output: int
    peak: int
    moment: str


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The data set of a run as far as it is known; None where it is not.

    Args:
        images, test_images: their numbers.
        classes: of the training set, 0 without labels.
        opened: bytes of memory that each process takes which has opened the training set.
        shared: bytes of memory that workers of the data loader share; 0 where they need none.
    """

    images: int | None = None
    test_images: int | None = None
    classes: int | None = None
    opened: int | None = None
    shared: int | None = None


@dataclass(frozen=True, kw_only=True)
class GroupAccount:
    """The training processes of one group of stages; each replica of them takes the same.

    Args:
        name: `stage 1`, `stages 1-2`, or `all stages` where one process trains them.
        stages: that each of these processes trains, counted from 1.
        devices: of each replica, as torch names it.
        memory: of the tensors of each.
        resident: what the system will call the resident memory of each, from least to most; None on a GPU.
    """

    name: str
    stages: tuple[int, ...]
    devices: tuple[str, ...]
    memory: ProcessAccount
    resident: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class LinkAccount:
    """The link from one process to another; in bytes.

    Args:
        name: as in messages of the run, `link1`, or `link1.1-2` between replicas.
        group: number of the stage group that it leads into, from 0.
        sender, receiver: names of the two processes.
        kind: `queue`, `p2p` or `rpc`.
        codec: of what it carries.
        bytes_per_step: of the largest message, as it is encoded.
        shared: memory of the host that both ends map.
        sending: what the sender holds beside, at most, while messages are under way.
        receiving: what the receiver holds beside, at most.
        on_gpu: whether `sending` and `receiving` are in the memory of the two GPUs, else of the host.
        replay: what the sender keeps for a stage that restarts in the memory of the host, at most; of a GPU's batches
            pinned copies.
        way: how a queue gets to or from a GPU: `CUDA IPC`, where the start finds nothing that forbids it, or `pinned`;
            empty where no GPU is at either end, and for other kinds.
    """

    name: str
    group: int
    sender: str
    receiver: str
    kind: str
    codec: str
    bytes_per_step: int
    shared: int
    sending: int
    receiving: int
    on_gpu: bool
    replay: int
    way: str = ""


@dataclass(frozen=True, kw_only=True)
class InputAccount:
    """The memory in which the batch enters a training process, where that is not the link's own; in bytes.

    Args:
        process: its name.
        device: `cpu`, or its GPU.
        bytes: of the batch, decoded, joined from several links or copied to the GPU; 0 where it stays in the link.
        pinned: memory of the host that the GPU copies it from (`workers.feed.device_slots`).
    """

    process: str
    device: str
    bytes: int
    pinned: int = 0


@dataclass(frozen=True, kw_only=True)
class SnapshotAccount:
    """The part of a snapshot that one process writes, in bytes.

    Args:
        process: its name; of replicas the first.
        disk: of one, on disk.
        copy: memory of the host for the copy of it that is being written.
        copies: for all copies, at most, where the disk is too slow: one is written, one waits, one cannot be handed on.
            Those of a GPU's tensors are pinned, whose allocator rounds each up to a power of two: twice as much.
    """

    process: str
    disk: int
    copy: int
    copies: int


@dataclass(frozen=True, kw_only=True)
class Term:
    """One part of a sum, in bytes.

    Args:
        name: stable, in lower case.
        low, high: the least and the most that is expected; equal where it is exact.
    """

    name: str
    low: int
    high: int


@dataclass(frozen=True, kw_only=True)
class HostAccount:
    """The memory of this host, if all processes of the run are on it; in bytes.

    Args:
        terms: the parts of the sum.
        low, high: the sum.
        shared: of the sum, what several processes map. Its files have no name: /dev/shm does not bound it.
        limits: what may still be allocated here, by its bound: `MemAvailable`, and `cgroup` where there is a limit.
        unknown: what is not in the sum.
    """

    terms: tuple[Term, ...]
    low: int
    high: int
    shared: int
    limits: dict[str, int]
    unknown: tuple[str, ...] = ()

    @property
    def fits(self) -> bool | None:
        """Whether the host has enough; None where it may, or where that is unknown."""
        available = min(self.limits.values(), default=None)
        if available is None:
            return None
        return True if self.high <= available else False if self.low > available else None


@dataclass(frozen=True, kw_only=True)
class EvaluationAccount:
    """`onward evaluate`, and the probes at the end of training; in bytes, None where the number of images is unknown.

    Args:
        device: that it computes on, as torch names it.
        network: parameters and buffers of all blocks.
        batch: what the tensors of one batch take on its way through the network, at most.
        batches: that are computed at the same time.
        features_per_image: of one image, at all places where classifiers are fitted.
        features: of all images.
        features_on_disk: whether `features` are in files that are mapped, and not in memory.
        fitting: what one linear probe takes beside its features.
        quality: what the measures without labels take.
        host_peak: most at once in the memory of the host.
        gpu_peak: most at once in that of the GPU; 0 on a CPU.
        moment: of `host_peak`: "extracting features", "fitting probes" or "measuring quality".
        end_of_training: what the host needs for the probes when training ends, while the stages still have theirs.
    """

    device: str
    network: int
    batch: int
    batches: int
    features_per_image: int
    features: int | None
    features_on_disk: bool
    fitting: int | None
    quality: int | None
    host_peak: int | None
    gpu_peak: int
    moment: str
    end_of_training: int | None


@dataclass(frozen=True, kw_only=True)
class RunAccount:
    """All of it.

    Args:
        groups: of training processes, in order.
        links: of the run, the coordinator's first.
        inputs: of every training process.
        snapshots: of every process that writes some; none where `snapshots.every` is not given.
        host, evaluation: see there.
    """

    groups: tuple[GroupAccount, ...]
    links: tuple[LinkAccount, ...]
    inputs: tuple[InputAccount, ...]
    snapshots: tuple[SnapshotAccount, ...]
    host: HostAccount
    evaluation: EvaluationAccount
