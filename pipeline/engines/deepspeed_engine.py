"""DeepSpeed as the engine of a stage: ZeRO 1 and 2, Adam in host memory, bf16 parameters with fp32 masters.

DeepSpeed expects to call the network itself. A stage runs its block early and its loss later, so DeepSpeed is given a
module that passes the loss through: its hooks and its backward pass see the graph that they need, and nothing else.

It is imported when an engine is built, not before: that takes seconds, and the device must be known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.config import StageConfig
from pipeline.config import engines as settings
from pipeline.engines.base import Engine
from pipeline.engines.deepspeed_state import OptimizerState, PartitionedState, WholeState
from pipeline.engines.full_norms import normalise_with_full_weights
from pipeline.errors import ConfigError, UserError, first_line
from pipeline.objectives.base import Objective
from pipeline.replicas.team import ReplicaGroup, ReplicaLost

BUCKET = 6_553_600
"""Gradients that are averaged at a time: 25 MiB in fp32, as in PyTorch's data parallelism."""


class DeepSpeedEngine(Engine):
    """One DeepSpeed engine for one stage, over the stage's replicas.

    To build one, every replica must: they agree on the weights of the first. Gradients are averaged when `backward`
    returns, and clipped in `step`. With `precision.dtype` bf16 the parameters of `module` become bf16 and `tensors`
    gives their fp32 masters; buffers stay fp32.

    Args:
        config: of the stage; `engine` is of the kind deepspeed.
        module: holds all that is trained. Its parameters keep their identity, not their storage.
        optimizer: of the module's parameters; it is taken over, and steps on the partitions that ZeRO makes of them.
        team: the replicas; torch.distributed's default group must be theirs, and exist for a single replica too.
        device: that the module is on.

    Raises:
        ConfigError: the configuration cannot work on this machine, or with this objective.
        UserError: DeepSpeed is not installed, or is at work on another kind of device in this process.
    """

    def __init__(
        self, config: StageConfig, module: nn.Module, optimizer: Optimizer, team: ReplicaGroup, device: torch.device
    ) -> None:
        engine = config.engine
        assert isinstance(engine, settings.DeepSpeedEngineConfig)
        if team.group is None:
            raise ValueError("DeepSpeed needs a process group, for one replica too")
        half = config.precision.dtype == "bf16"
        if half:
            _refuse_trained_objective(module)
        deepspeed = _load(device)
        names = {p: name for name, p in module.named_parameters() if p.requires_grad and p.numel()}
        groups = [[p for p in group["params"] if p in names] for group in optimizer.param_groups]
        if engine.offload_optimizer:
            optimizer = _cpu_adam(optimizer, config.index)
        weights = {name: p.detach().clone() for p, name in names.items()} if half else {}
        given = deepspeed_config(config, sum(p.numel() for p in names), device)
        self._engine, wrapper = _initialised(deepspeed, module, optimizer, given, device)
        self.optimizer = optimizer
        self._trained: list[Tensor] = list(names)
        self._whole_gradients, self._masters = not (engine.zero_stage or half), half
        self._clip_norm, self._unfinished = config.optimizer.clip_norm, False
        self._offloaded = wrapper if engine.offload_optimizer else None
        self._state: OptimizerState
        if engine.zero_stage:
            counts = engine.offload_optimizer
            self._state = PartitionedState(optimizer, groups, names, half, deepspeed.utils, whole_numbers=counts)
        else:
            self._state = WholeState(optimizer, groups, names, half)
        if half:
            normalise_with_full_weights(module)
            self._start_from(weights, team)

    def _start_from(self, weights: dict[str, Tensor], team: ReplicaGroup) -> None:
        """Set the fp32 masters to the weights of the first replica; DeepSpeed makes them of weights rounded to bf16."""
        if team.size > 1:
            for value in weights.values():
                team.broadcast(value, 0)
        self.load(weights)

    def zero_grad(self) -> None:
        """Drop the gradients of the last step, also where it was never made."""
        if self._unfinished and self._offloaded is not None:
            # Else the next gradients are added to these, and whether these overflowed counts for the next step.
            self._offloaded.micro_step_id = -1
            self._offloaded.reset_cpu_buffers()
        self._unfinished = False
        self._engine.zero_grad()

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of `loss`, a scalar, and average them; ZeRO 2 averages during the backward pass.

        Raises:
            ReplicaLost: another replica does not answer.
        """
        self._unfinished = True
        with _answered():
            self._engine.backward(self._engine(loss))

    def await_gradients(self) -> None:
        """Nothing to wait for: `backward` returns when the gradients are averaged."""

    def clip(self, max_norm: float) -> None:
        """Nothing: the gradients are spread over the replicas, so DeepSpeed clips them itself, in `step`.

        Raises:
            ValueError: `max_norm` is not the `optimizer.clip_norm` that DeepSpeed was configured with.
        """
        if max_norm != self._clip_norm:
            raise ValueError(f"DeepSpeed clips to {self._clip_norm}, and was asked for {max_norm}")

    def gradients(self) -> list[Tensor] | None:
        """Not clipped yet, which `step` does; None with ZeRO or bf16, where no replica has them whole and in fp32."""
        return [p.grad for p in self._trained if p.grad is not None] if self._whole_gradients else None

    def stepped_gradient_norm(self) -> float | None:
        """As DeepSpeed computed it over all replicas, before it clipped."""
        norm = self._engine.get_global_grad_norm()
        return None if norm is None else float(norm)

    def parameters(self) -> list[Tensor] | None:
        """The parameters; None with bf16, whose masters change by less than their parameters can show."""
        return None if self._masters else self._trained

    def step(self) -> bool:
        """Clip, then update the parameters; False where ZeRO or bf16 met a gradient that is not finite, and skipped it.

        Raises:
            ReplicaLost: another replica does not answer.
        """
        with _answered():
            self._engine.step()
        self._unfinished = False
        return bool(self._engine.was_step_applied())

    def tensors(self) -> dict[str, Tensor]:
        """The state, whole on every replica, and with bf16 the masters; without ZeRO not copied.

        Raises:
            ReplicaLost: another replica does not answer.
        """
        with _answered():
            return self._state.tensors()

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the weights, of which ZeRO and bf16 have copies, and the optimizer's state.

        Args:
            tensors: of the whole stage; a parameter that is missing keeps its value.

        Raises:
            RuntimeError: a tensor belongs to no parameter of this stage, or ZeRO cannot keep what it says.
        """
        self._state.load(tensors)


def deepspeed_config(config: StageConfig, size: int, device: torch.device) -> dict[str, Any]:
    """The configuration for DeepSpeed; all else is its default.

    Args:
        config: of the stage.
        size: number of its parameters.
        device: that it computes on.
    """
    assert isinstance(config.engine, settings.DeepSpeedEngineConfig)
    zero: dict[str, Any] = {
        "stage": config.engine.zero_stage,
        "reduce_bucket_size": min(size, BUCKET),
        "overlap_comm": False,  # its own streams have raced with the backward before; exactness comes first
    }
    if config.engine.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": device.type == "cuda"}
    return {
        "train_micro_batch_size_per_gpu": 1,  # must be given; used for reports that are off
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.optimizer.clip_norm or 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # SGD is element by element, which is all that ZeRO needs
        "bf16": {"enabled": config.precision.dtype == "bf16"},
        "communication_data_type": "fp32",
    }


class _PassThrough(nn.Module):
    """Holds the modules of a stage, and gives the loss that the stage has computed."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, loss: Tensor) -> Tensor:
        return loss


def _load(device: torch.device) -> Any:
    """The package, set up for this kind of device."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise UserError(
            f"engine.kind=deepspeed needs DeepSpeed ({first_line(error)}). pip install deepspeed"
        ) from error
    kind = deepspeed.accelerator.get_accelerator().device_name()
    if kind != device.type:
        problem = f"engine.kind=deepspeed is set up for '{kind}' here, and the stage is on {device}"
        raise UserError(f"{problem}. Give DS_ACCELERATOR={device.type} in the environment, or the stage another device")
    if device.type == "cpu":
        # Else it would compile an operation that only its inference uses: most of a minute, and a compiler needed.
        vars(deepspeed.ops)["__compatible_ops__"] = {}
    return deepspeed


def _initialised(
    deepspeed: Any, module: nn.Module, optimizer: Optimizer, config: dict[str, Any], device: torch.device
) -> tuple[Any, Any]:
    """DeepSpeed's engine, and its wrapper of the optimizer, which has no state yet."""
    for p in module.parameters():
        # As it sends and flattens them: `contiguous` would leave a 1x1 kernel its strides of channels_last.
        p.data = p.data.flatten().view(p.shape)
    with _local_rank(device):
        engine, wrapper, _, _ = deepspeed.initialize(
            model=_PassThrough(module), optimizer=optimizer, config=config, dist_init_required=False
        )
    optimizer.state.clear()  # with bf16 and without ZeRO it has made a step already, of gradients that are zero
    return engine, wrapper


def _cpu_adam(optimizer: Optimizer, stage: int) -> Optimizer:
    """DeepSpeed's Adam, with the settings and groups of torch's; compiled where that has not been done."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    betas, eps = optimizer.defaults["betas"], optimizer.defaults["eps"]
    kept = ("params", "lr", "lr_ratio", "weight_decay")
    groups = [{key: group[key] for key in kept} for group in optimizer.param_groups]
    try:
        adam: Optimizer = DeepSpeedCPUAdam(groups, lr=0.0, betas=betas, eps=eps, adamw_mode=True)
    except RuntimeError as error:
        problem = f"DeepSpeed could not compile its Adam for stage {stage} ({first_line(error.__cause__ or error)})"
        remedy = "Install a C++ compiler (g++), the headers of Python and ninja, or give false"
        raise ConfigError("engine.offload_optimizer", problem, remedy) from error
    return adam


def _refuse_trained_objective(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, Objective) and any(p.requires_grad for p in part.parameters()):
            problem = f"got 'bf16' with engine.kind=deepspeed, and the objective {type(part).__name__} has weights"
            remedy = "They would be bf16, and it computes in fp32. Give precision.dtype=fp32, or engine.kind=torch"
            raise ConfigError("precision.dtype", problem, remedy)


@contextmanager
def _local_rank(device: torch.device) -> Iterator[None]:
    """DeepSpeed takes the number of the GPU from there; torchrun's is that of the process, which may have another."""
    before = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = str(device.index or 0)
    try:
        yield
    finally:
        if before is None:
            del os.environ["LOCAL_RANK"]
        else:
            os.environ["LOCAL_RANK"] = before


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # Gloo has no error of its own, only its name in the message.
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise ReplicaLost(f"another replica of this stage does not answer ({first_line(error)[:200]})") from error
        raise
