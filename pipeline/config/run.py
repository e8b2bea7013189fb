"""One run: every section together, and what each stage makes of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.config.base import PositiveFloat, PositiveInt, Section
from pipeline.config.data import Data
from pipeline.config.engines import Engine, TorchEngine
from pipeline.config.evaluation import Evaluation
from pipeline.config.faults import Fault
from pipeline.config.heads import Expansion, Head
from pipeline.config.kinds import merge
from pipeline.config.memory import MemoryConfig
from pipeline.config.model import Model, ResNet
from pipeline.config.noise import Noise
from pipeline.config.objectives import BYOL, BarlowTwins, Objective, SimCLR
from pipeline.config.observing import Alarms, Metrics, Trace, TraceOrBool, TrackerOrName
from pipeline.config.optimizers import Lars, Optimizer
from pipeline.config.precision import Precision

DEVICE_PATTERN = r"^(auto|cpu|cuda|cuda:\d+)$"


class Link(Section):
    """How activations travel from one stage to the next."""

    kind: Literal["queue", "rpc", "p2p"] = "queue"
    """`queue`: shared memory on one host. `rpc`: torch.distributed.rpc, any host. `p2p`: send and receive of Gloo
    (CPU) or NCCL (GPU) into buffers that wait for them, any host."""
    depth: Annotated[int, Field(ge=1, le=64)] = 2
    """Batches that may wait on one link before the sender blocks."""
    timeout: PositiveFloat = 300.0
    """Seconds that a stage waits for its neighbour before it gives up."""
    codec: Literal["none", "bf16", "fp16", "int8"] = "none"
    """How activations are written on the wire. All but `none` lose precision, and with it the equality to the bit
    with a run without codec; `int8` has one scale for each channel of each image. Images travel as they are."""


class Train(Section):
    """How long to train."""

    epochs: PositiveInt = 300
    """Passes over the data set, in mode sequential for each block; the learning-rate schedule spans them."""
    max_steps: PositiveInt | None = None
    """Stop after this many steps (the schedule still spans `epochs`); in mode sequential, of each block."""
    max_skipped: PositiveInt = 10
    """Give up when a block had to skip this many steps in a row because its loss was not finite."""


class StageOverrides(Section):
    """What one stage does differently; partial sections are merged over the common ones."""

    device: Annotated[str, Field(pattern=DEVICE_PATTERN)] | None = None
    """Where this stage computes; as `device` of the run if not given."""
    replicas: PositiveInt | None = None
    """Processes that share the batch of this stage; as many as `replicas` of the run says if not given."""
    engine: dict[str, Any] = Field(default={})
    """Keys of `engine` that this stage has otherwise; the others are the run's."""
    head: dict[str, Any] = Field(default={})
    """Keys of `head` that this stage has otherwise; the others are the run's."""
    objective: dict[str, Any] = Field(default={})
    """Keys of `objective` that this stage has otherwise; the others are the run's."""
    noise: dict[str, Any] = Field(default={})
    """Keys of `noise` that this stage has otherwise; the others are the run's."""
    optimizer: dict[str, Any] = Field(default={})
    """Keys of `optimizer` that this stage has otherwise; the others are the run's."""
    precision: dict[str, Any] = Field(default={})
    """Keys of `precision` that this stage has otherwise; the others are the run's."""
    memory: dict[str, Any] = Field(default={})
    """Keys of `memory` that this stage has otherwise; the others are the run's."""


class Snapshots(Section):
    """What a run leaves behind while it runs, to go on from after it was stopped."""

    every: PositiveInt | None = None
    """Steps from one snapshot to the next; none are taken if not given."""
    keep_last: PositiveInt = 2
    """Newest snapshots to keep; more than one, so that a damaged one is not the end."""
    keep_every: PositiveInt | None = None
    """Also keep every snapshot whose number of steps is a multiple of this."""
    leave_seconds: PositiveFloat = 300.0
    """Longest time that a run which was asked to stop takes for its last snapshot. Give a scheduler at least as much
    between its warning and its end (Slurm: `--signal=TERM@300`)."""


class Determinism(Section):
    """Exactness rests on the kernels of libraries, and some do not repeat: a step is tried before it is trusted."""

    check: Literal["auto"] | bool = "auto"
    """Whether each stage computes one step twice before the run, in a process of its own, and must get the same bits.
    `auto`: on GPUs, and where `precision` asks for another number format or layout than the plain one, or compiles.
    What has been tried on a machine is remembered in `~/.cache/onward`."""


class Config(Section):
    """One run."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """What every random number of the run is keyed by, below 2^31."""
    run_dir: str | None = None
    """Where everything the run writes goes; `runs/NAME-DATE-TIME` if not given."""
    runtime: Literal["pipelined", "serial"] = "pipelined"
    """`pipelined`: a process for each stage. `serial`: one process trains all stages, to the same bits."""
    mode: Literal["simultaneous", "sequential", "end_to_end"] = "simultaneous"
    """`simultaneous`: every block learns at every step. `sequential`: one block after the other, each to its
    end; those before it only run forward. `end_to_end`: one loss, at the last block, whose gradient goes
    through all of them, in one process: the baseline."""
    device: Annotated[str, Field(pattern=DEVICE_PATTERN)] = "auto"
    """`auto`: a GPU for each process where there are enough; of fewer GPUs, neighbours share one; without any, the CPU.
    `cuda`: a GPU for each process, in order from 0, or an error. `cuda:N` and `cpu`: everything there."""
    threads: PositiveInt = 1
    """CPU threads of one stage; part of what makes two runs equal to the bit."""
    replicas: PositiveInt = 1
    """Processes that share the batch of one stage, each a slice; `stages.K.replicas` for one stage alone."""
    processes: PositiveInt | None = None
    """Processes that share the stages, neighbours together; one a stage if not given."""
    restart: Literal["none", "job", "stage"] = "none"
    """What comes back when a process dies: nothing; all processes from the last snapshot; or the dead stage alone, on
    one host, while the others wait for it."""
    max_restarts: PositiveInt = 3
    """Restarts in a row without a new snapshot between them, after which the run fails."""
    signals: tuple[Literal["SIGUSR1", "SIGUSR2"], ...] = ("SIGUSR1", "SIGUSR2")
    """What asks a run to stop after a snapshot, beside SIGTERM and Ctrl-C; schedulers send these before they end a
    job."""
    hang_timeout: PositiveFloat = 120.0
    """Seconds that one step of one stage may take, waiting for neighbours not counted; a stage that is stopped, or
    computes for longer, is named and ends the run (or is restarted). What a process does for the first time may take
    longer: libraries start and compile."""
    engine: Engine = TorchEngine()
    link: Link = Link()
    train: Train = Train()
    data: Data = Data()
    model: Model = ResNet()
    head: Head = Expansion()
    objective: Objective = BarlowTwins()
    noise: Noise = Noise()
    optimizer: Optimizer = Lars()
    precision: Precision = Precision()
    memory: MemoryConfig = MemoryConfig()
    determinism: Determinism = Determinism()
    stages: dict[int, StageOverrides] = Field(default={})
    """By the number of the stage, from 1: what it has otherwise than the run, as in `stages.2.objective.kind`."""
    snapshots: Snapshots = Snapshots()
    metrics: Metrics = Metrics()
    alarms: Alarms = Alarms()
    trace: TraceOrBool = Trace()
    trackers: tuple[TrackerOrName, ...] = ()
    """Where measurements also go, in this order; see `configs/observing.md`."""
    evaluation: Evaluation = Evaluation()
    faults: tuple[Fault, ...] = ()
    """What is to go wrong on purpose, to try a recovery; nothing if empty."""

    @property
    def num_stages(self) -> int:
        """One stage a block."""
        return len(self.model.cuts) + 1

    @property
    def in_one_process(self) -> bool:
        """Whether one process trains all blocks: asked for, or because one loss reaches all of them."""
        return self.runtime == "serial" or self.mode == "end_to_end"

    def replicas_of(self, index: int) -> int:
        """Processes that share the batch of stage `index`."""
        return self.stages.get(index, StageOverrides()).replicas or self.replicas

    @property
    def uses_labels(self) -> bool:
        """Whether a loss, or what is measured while training, needs the labels of the images."""
        if self.evaluation.online.linear or self.evaluation.online.knn_bank:
            return True
        kinds = {objective.kind for objective in self._objectives()}
        return any(kind == "supervised" or ":" in kind for kind in kinds)  # a loss of the user's own may use them

    @property
    def num_views(self) -> int:
        """Views of an image that travel: those that are compared, and one more where there is a patch."""
        compared = sum(group.count for group in self.data.views) or 2
        return compared + self.has_patch

    @property
    def has_patch(self) -> bool:
        """Whether a loss takes a patch of the image as its negative, which is then the last of its views."""
        return any(isinstance(o, SimCLR) and o.negatives == "single_patch" for o in self._objectives())

    def _objectives(self) -> list[Objective]:
        """Of every stage; much cheaper than whole stages, and asked for often."""
        own = (self.stages.get(index, StageOverrides()).objective for index in range(1, self.num_stages + 1))
        return [merge(Objective, self.objective, overrides, "objective") for overrides in own]

    def stage(self, index: int) -> StageConfig:
        """The settings of stage `index`, counted from 1, with its overrides merged in."""
        overrides = self.stages.get(index, StageOverrides())
        head = merge(Head, self.head, overrides.head, "head")
        objective = merge(Objective, self.objective, overrides.objective, "objective")
        if isinstance(objective, BYOL) and objective.predictor is None and head.projector:
            objective = objective.model_copy(update={"predictor": head.projector})
        return StageConfig(
            index=index,
            units=tuple(self.model.blocks()[index - 1]),
            device=overrides.device or self.device,
            replicas=overrides.replicas or self.replicas,
            engine=merge(Engine, self.engine, overrides.engine, "engine"),
            head=head,
            objective=objective,
            noise=merge(Noise, self.noise, overrides.noise, "noise"),
            optimizer=merge(Optimizer, self.optimizer, overrides.optimizer, "optimizer"),
            precision=merge(Precision, self.precision, overrides.precision, "precision"),
            memory=merge(MemoryConfig, self.memory, overrides.memory, "memory"),
        )


class StageConfig(Section):
    """One stage's share of the configuration, overrides merged."""

    index: PositiveInt
    units: tuple[str, ...]
    device: str
    replicas: PositiveInt
    engine: Engine
    head: Head
    objective: Objective
    noise: Noise
    optimizer: Optimizer
    precision: Precision
    memory: MemoryConfig
