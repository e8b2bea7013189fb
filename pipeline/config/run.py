"""The whole configuration of a run, and the part of each stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline.config.base import PositiveFloat, PositiveInt, Section
from pipeline.config.data import DataConfig
from pipeline.config.digests import DigestsConfig
from pipeline.config.engines import EngineConfig, TorchEngineConfig
from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.faults import FaultConfig
from pipeline.config.heads import ExpansionConfig, HeadConfig
from pipeline.config.initial import InitFromConfig, InitFromOrPath, with_path
from pipeline.config.kinds import merge
from pipeline.config.memory import MemoryConfig
from pipeline.config.model import ModelConfig, ResNetConfig
from pipeline.config.network import NetworkConfig
from pipeline.config.noise import NoiseConfig
from pipeline.config.objectives import BarlowTwinsConfig, BYOLConfig, ObjectiveConfig, SimCLRConfig
from pipeline.config.observing import AlarmsConfig, MetricsConfig, TraceConfig, TraceOrBool, TrackerOrName
from pipeline.config.optimizers import LarsConfig, OptimizerConfig
from pipeline.config.precision import PrecisionConfig

DEVICE_PATTERN = r"^(auto|cpu|cuda|cuda:\d+)$"
RpcTransport = Literal["uv", "shm", "ibv"]


class LinkConfig(Section):
    """How activations are sent from one stage to the next."""

    kind: Literal["auto", "queue", "rpc", "p2p"] = "auto"
    """`auto`: `queue` on one host, `p2p` on several; there is no link in one process. `queue`: shared memory on one
    host. `rpc`: torch.distributed.rpc, any host. `p2p`: send and receive of Gloo (CPU) or NCCL (GPU) into preallocated
    buffers, any host."""
    depth: Annotated[int, Field(ge=1, le=64)] = 2
    """Batches that may wait on one link before the sender blocks."""
    timeout: PositiveFloat = 300.0
    """Seconds that a stage waits for its neighbour before the run fails."""
    device_to_device: Literal["auto"] | bool = "auto"
    """Whether `queue` keeps the batches between two stages on GPUs in the memory of the receiver's, by CUDA IPC.
    `auto`: where the GPUs hold that, too. Where it cannot be, and with `false`, they go through pinned memory of the
    host; the start says which it is, and why."""
    rpc_transports: Annotated[tuple[RpcTransport, ...], Field(min_length=1)] = ("ibv", "uv")
    """Transports that `rpc` may use, the preferred first; a pair of processes takes the first that both have. `uv`:
    TCP. `shm`: shared memory between processes of one host, whose thread never sleeps and so keeps a core busy in each
    of them. `ibv`: InfiniBand, where there is any."""
    checksum: Literal["auto"] | bool = "auto"
    """Whether every message carries a checksum, which is compared when it has arrived: one that memory or the network
    has changed ends the run, or is sent again with `restart: stage`. `auto`: those that are sent from a CPU; a GPU
    would have to be waited for."""
    codec: Literal["none", "bf16", "fp16", "int8"] = "none"
    """Encoding of activations on the link. All but `none` lose precision, so the run is not bit-identical to one
    without codec; `int8` has one scale per channel and image. Images are sent unchanged."""

    @property
    def rings(self) -> bool:
        """Whether batches may be kept in memory of GPUs; `auto` that was left means that they hold them."""
        return self.device_to_device is not False

    @property
    def resolved_kind(self) -> Literal["queue", "rpc", "p2p"]:
        """What `auto` stands for where it was left: on one host. On several it is decided before the start."""
        return "queue" if self.kind == "auto" else self.kind


class TrainConfig(Section):
    """How long to train."""

    epochs: PositiveInt = 300
    """Passes over the data set (in mode sequential: for each block); the learning-rate schedule spans them."""
    max_steps: PositiveInt | None = None
    """Stop after this many steps, in mode sequential of each block; the schedule still spans `epochs`."""
    restarts: tuple[PositiveInt, ...] = ()
    """Epochs at which the learning-rate schedule begins anew, with its warm-up, and then spans the epochs to the next
    restart or to the end. With it a run can be trained longer than was planned: `onward resume` says how."""
    max_skipped: PositiveInt = 10
    """Fail when a block has skipped this many steps in a row because its loss was not finite."""


class StageOverrides(Section):
    """Overrides of one stage; partial sections are merged into the common ones."""

    device: Annotated[str, Field(pattern=DEVICE_PATTERN)] | None = None
    """Device of this stage; the run's `device` if not given."""
    replicas: PositiveInt | None = None
    """Data-parallel replicas of this stage; the run's `replicas` if not given."""
    frozen: bool = False
    """Keep the weights of this stage as they are: it only runs forward, with running statistics, and has no loss."""
    init_from: Annotated[dict[str, Any], BeforeValidator(with_path)] = Field(default={})
    """Keys of `init_from` that differ for this stage, or a path; the others are the run's."""
    engine: dict[str, Any] = Field(default={})
    """Keys of `engine` that differ for this stage; the others are the run's."""
    head: dict[str, Any] = Field(default={})
    """Keys of `head` that differ for this stage; the others are the run's."""
    objective: dict[str, Any] = Field(default={})
    """Keys of `objective` that differ for this stage; the others are the run's."""
    noise: dict[str, Any] = Field(default={})
    """Keys of `noise` that differ for this stage; the others are the run's."""
    optimizer: dict[str, Any] = Field(default={})
    """Keys of `optimizer` that differ for this stage; the others are the run's."""
    precision: dict[str, Any] = Field(default={})
    """Keys of `precision` that differ for this stage; the others are the run's."""
    memory: dict[str, Any] = Field(default={})
    """Keys of `memory` that differ for this stage; the others are the run's."""


class SnapshotsConfig(Section):
    """Snapshots of the training state, from which a stopped run is resumed."""

    every: PositiveInt | None = None
    """Steps from one snapshot to the next. If not given, one is taken only when the run is asked to stop."""
    keep_last: PositiveInt = 2
    """Number of newest snapshots to keep; more than one, in case one is damaged."""
    keep_every: PositiveInt | None = None
    """Also keep every snapshot whose number of steps is a multiple of this."""
    leave_seconds: PositiveFloat = 300.0
    """Longest time in seconds that a run takes for its last snapshot after a stop signal. Let the scheduler wait at
    least as long between its signal and the end of the job (Slurm: `--signal=TERM@300`)."""


def _level(value: object) -> object:
    """`off` is `false` to YAML."""
    return "off" if value is False else value


class DeterminismConfig(Section):
    """Whether a step is deterministic: some library kernels do not return the same bits twice."""

    level: Annotated[Literal["strict", "warn", "off"], BeforeValidator(_level)] = "strict"
    """Which kernels compute. `strict`: deterministic ones; an operation that has none on its device ends the run with
    its name, module and stage. `warn`: such an operation computes all the same and becomes a note of the run, whose
    bits are then not promised; on GPUs, attention takes a backward pass that does not repeat. `off`: the fastest, of
    which cuDNN tries several; no bits are promised."""
    check: Literal["auto"] | bool = "auto"
    """Whether each stage computes one step twice before the run, in a separate process, and fails if the bits differ.
    `auto`: on GPUs, and where `precision` sets another number format or layout than the default, or compiles; never
    with `level: off`. Results are cached per machine in `~/.cache/onward`."""


class Config(Section):
    """One run."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of all random numbers of the run, below 2^31."""
    run_dir: str | None = None
    """The run directory, for all files that the run writes; `runs/NAME-DATE-TIME` if not given."""
    shared_run_dir: Literal["auto"] | bool = "auto"
    """Whether all hosts of a run see the same run directory. `auto`: they try it before the start. `true`: it is an
    error if one does not. Where it is not shared, the first host keeps the run: the others send it their parts of
    snapshots and of `final/`, and keep their own logs."""
    runtime: Literal["pipelined", "serial"] = "pipelined"
    """`pipelined`: one process per stage. `serial`: one process trains all stages, with bit-identical results."""
    mode: Literal["simultaneous", "sequential", "end_to_end"] = "simultaneous"
    """`simultaneous`: simultaneous blockwise training: every block learns at every step. `sequential`: sequential
    blockwise training: each block is trained to its end before the next begins, and the blocks before it only run
    forward. `end_to_end`: the baseline in one process: one loss, at the last block, with its gradient through all."""
    device: Annotated[str, Field(pattern=DEVICE_PATTERN)] = "auto"
    """`auto`: one GPU per process if there are enough; neighbours share one if there are fewer; the CPU if there is
    none. `cuda`: one GPU per process, in order from 0, or an error. `cuda:N` and `cpu`: all stages there."""
    threads: PositiveInt = 1
    """CPU threads per stage; two runs are bit-identical only with the same number."""
    replicas: PositiveInt = 1
    """Data-parallel replicas of every stage, each with a slice of the batch; `stages.K.replicas` sets one stage."""
    processes: PositiveInt | None = None
    """Number of processes that share the stages, each with consecutive ones; one per stage if not given."""
    restart: Literal["none", "job", "stage"] = "none"
    """What is restarted from the last snapshot when a process dies: nothing, all processes (`job`), or only the
    processes of that stage, on one host, while the others wait (`stage`)."""
    max_restarts: PositiveInt = 3
    """Consecutive restarts without a new snapshot, after which the run fails."""
    signals: tuple[Literal["SIGUSR1", "SIGUSR2"], ...] = ("SIGUSR1", "SIGUSR2")
    """Signals that stop a run after a snapshot, beside SIGTERM and Ctrl-C; schedulers send these before they end a
    job."""
    hang_timeout: PositiveFloat = 120.0
    """Seconds that one step of one stage may take, without waiting for neighbours. A stage that is stopped, or computes
    longer, is named and ends the run (or is restarted). The first step of a process may take longer, because libraries
    start and compile."""
    init_from: InitFromOrPath = InitFromConfig()
    engine: EngineConfig = TorchEngineConfig()
    link: LinkConfig = LinkConfig()
    network: NetworkConfig = NetworkConfig()
    train: TrainConfig = TrainConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ResNetConfig()
    head: HeadConfig = ExpansionConfig()
    objective: ObjectiveConfig = BarlowTwinsConfig()
    noise: NoiseConfig = NoiseConfig()
    optimizer: OptimizerConfig = LarsConfig()
    precision: PrecisionConfig = PrecisionConfig()
    memory: MemoryConfig = MemoryConfig()
    determinism: DeterminismConfig = DeterminismConfig()
    stages: dict[int, StageOverrides] = Field(default={})
    """Overrides by the number of the stage, counted from 1, as in `stages.2.objective.kind`."""
    snapshots: SnapshotsConfig = SnapshotsConfig()
    metrics: MetricsConfig = MetricsConfig()
    digests: DigestsConfig = DigestsConfig()
    alarms: AlarmsConfig = AlarmsConfig()
    trace: TraceOrBool = TraceConfig()
    trackers: tuple[TrackerOrName, ...] = ()
    """Experiment trackers that receive the metrics, in this order; see `docs/how-to/tracker.md`."""
    evaluation: EvaluationConfig = EvaluationConfig()
    faults: tuple[FaultConfig, ...] = ()
    """Fault injection, to test recovery; none if empty."""

    @property
    def num_stages(self) -> int:
        """One stage per block."""
        return len(self.model.cuts) + 1

    @property
    def in_one_process(self) -> bool:
        """Whether one process trains all blocks: with `runtime: serial`, or because one loss reaches all of them."""
        return self.runtime == "serial" or self.mode == "end_to_end"

    def replicas_of(self, index: int) -> int:
        """Number of data-parallel replicas of stage `index`."""
        return self.stages.get(index, StageOverrides()).replicas or self.replicas

    def is_frozen(self, index: int) -> bool:
        """Whether stage `index` keeps its weights."""
        return self.stages.get(index, StageOverrides()).frozen

    @property
    def learners(self) -> tuple[int, ...]:
        """The stages that learn, counted from 1: all that are not frozen."""
        return tuple(index for index in range(1, self.num_stages + 1) if not self.is_frozen(index))

    @property
    def uses_labels(self) -> bool:
        """Whether a loss, or a measure while training, needs the labels of the images."""
        if self.evaluation.online.linear or self.evaluation.online.knn_bank:
            return True
        kinds = {objective.kind for objective in self._objectives()}
        return any(kind == "supervised" or ":" in kind for kind in kinds)  # a custom loss may use them

    @property
    def num_views(self) -> int:
        """Views per image: those that are compared, and the negative patch, if any."""
        compared = sum(group.count for group in self.data.views) or 2
        return compared + self.has_patch

    @property
    def has_patch(self) -> bool:
        """Whether a loss uses a patch of the image as its negative; the patch is the last view."""
        return any(isinstance(o, SimCLRConfig) and o.negatives == "single_patch" for o in self._objectives())

    def _objectives(self) -> list[ObjectiveConfig]:
        """The objective of every stage that learns; much cheaper than `stage`, and called often."""
        by_stage = (self.stages.get(index, StageOverrides()).objective for index in self.learners)
        return [merge(ObjectiveConfig, self.objective, overrides, "objective") for overrides in by_stage]

    def with_torch_engines(self) -> Config:
        """The same run without engines that need other processes, and digests: for networks that are tried alone."""
        stages = {index: own.model_copy(update={"engine": {}}) for index, own in self.stages.items()}
        plain = {"engine": TorchEngineConfig(), "stages": stages, "digests": DigestsConfig()}
        return self.model_copy(update=plain)

    def stage(self, index: int) -> StageConfig:
        """The settings of stage `index`, counted from 1, with its overrides merged in."""
        overrides = self.stages.get(index, StageOverrides())
        head = merge(HeadConfig, self.head, overrides.head, "head")
        objective = merge(ObjectiveConfig, self.objective, overrides.objective, "objective")
        if isinstance(objective, BYOLConfig) and objective.predictor is None and head.projector:
            objective = objective.model_copy(update={"predictor": head.projector})
        return StageConfig(
            index=index,
            units=tuple(self.model.blocks()[index - 1]),
            device=overrides.device or self.device,
            replicas=overrides.replicas or self.replicas,
            frozen=overrides.frozen,
            init_from=merge(InitFromConfig, self.init_from, overrides.init_from, "init_from"),
            engine=merge(EngineConfig, self.engine, overrides.engine, "engine"),
            head=head,
            objective=objective,
            noise=merge(NoiseConfig, self.noise, overrides.noise, "noise"),
            optimizer=merge(OptimizerConfig, self.optimizer, overrides.optimizer, "optimizer"),
            precision=merge(PrecisionConfig, self.precision, overrides.precision, "precision"),
            memory=merge(MemoryConfig, self.memory, overrides.memory, "memory"),
        )


class StageConfig(Section):
    """The configuration of one stage, with its overrides merged in."""

    index: PositiveInt
    units: tuple[str, ...]
    device: str
    replicas: PositiveInt
    frozen: bool
    init_from: InitFromConfig
    engine: EngineConfig
    head: HeadConfig
    objective: ObjectiveConfig
    noise: NoiseConfig
    optimizer: OptimizerConfig
    precision: PrecisionConfig
    memory: MemoryConfig
