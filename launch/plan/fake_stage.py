"""One training process of a run with the product's own stages, whose tensors have sizes and no memory.

The code that trains runs as it is, with any backbone, head, objective, precision and optimizer. A stage is built for
real, since initialisation may read values; before its optimizer is made, every parameter and buffer becomes a fake one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from launch.plan.live_bytes import LiveBytes
from pipeline.config import Config
from pipeline.engines import TorchEngine
from pipeline.optim.foreach import PIECE_BYTES
from pipeline.replicas import SOLO, ReplicaGroup
from pipeline.replicas.team import PendingSum
from pipeline.stage.stage import Stage

STEPS_PER_EPOCH = 1
"""Of the fake run, so that the number of a step is that of its epoch, which decides how large the views are."""


@dataclass(frozen=True)
class FakeReplicaGroup(ReplicaGroup):
    """Replicas that answer at once, with tensors of the right size."""

    def all_gather(self, x: Tensor) -> Tensor:
        """As `ReplicaGroup.all_gather`; Gloo and NCCL gather into a buffer of their own before they hand it out."""
        x = x.detach().contiguous()
        every = x.new_empty((self.size, *x.shape))
        every.clone()
        return every

    def broadcast(self, x: Tensor, source: int) -> None:
        """Nothing travels."""

    def start_sum(self, x: Tensor) -> PendingSum:
        """The sum is there at once, in place."""
        return _Done()


class _Done(PendingSum):
    def __init__(self) -> None:
        pass

    def wait(self) -> None:
        """Nothing to wait for."""


class FakeStage(Stage):
    """A stage whose parameters and buffers are fake, which notes what autograd keeps for its backward.

    Args:
        live: counts; its mode is the one that the stage runs in.
        fake: makes the tensors fake.
        config, index, group: as `Stage` takes them.
        cuda: optimizers work on as many parameters at once as they do on a GPU: PyTorch's own on all.
    """

    _fake: FakeTensorMode
    _live: LiveBytes
    kept: int
    """Bytes that autograd keeps when the backward begins."""

    def __init__(
        self, live: LiveBytes, fake: FakeTensorMode, config: Config, index: int, group: ReplicaGroup, *, cuda: bool
    ) -> None:
        self._fake, self._live = fake, live  # before the constructor of `nn.Module`, since that calls `_make_ready`
        self.kept, self._after_forward = 0, 0
        with _Undrawn():
            super().__init__(config, index, STEPS_PER_EPOCH, team=group)
        self.span = self._span
        for settings in self.optimizer.param_groups if cuda else ():
            settings.update(foreach=True) if "foreach" in settings else None
        if cuda and hasattr(self.optimizer, "piece_bytes"):
            self.optimizer.piece_bytes = PIECE_BYTES

    def _make_ready(self, device: torch.device, dtype: torch.dtype) -> None:
        super()._make_ready(device, dtype)
        make_fake(self, self._fake)

    def forward(self, batch: Tensor | Sequence[Tensor], step: int, noise_level: float) -> Tensor:
        """As `Stage.forward`."""
        self._live.moment, before = f"forward of stage {self.index}", self._live.now
        onward = super().forward(batch, step, noise_level)
        self.kept = self._live.now - before - onward.untyped_storage().nbytes()
        return onward

    def backward(self, step: int, *inputs: Any, **keywords: Any) -> Tensor:
        """As `Stage.backward`."""
        self._after_forward = self._live.now
        return super().backward(step, *inputs, **keywords)

    def tensors(self) -> list[Tensor]:
        """What is there before the first step."""
        return [*self.parameters(), *self.buffers(), *self._buffers_kept._before, *self.summed()]

    def summed(self) -> list[Tensor]:
        """What gradients are copied into, to be summed over the replicas."""
        gradients = self.engine._sum if isinstance(self.engine, TorchEngine) else None
        return [bucket._flat for bucket in gradients.buckets] if gradients else []

    @contextmanager
    def _span(self, what: str) -> Iterator[None]:
        before, self._live.moment = self._live.moment, f"{what} of stage {self.index}"
        if what == "backward":
            self.kept += self._live.now - self._after_forward
        yield
        self._live.moment = before


class _Undrawn(TorchFunctionMode):
    """Large tensors of random initial values get zeros, since drawing them takes seconds and nobody looks at them.

    Values are zeros rather than what the memory holds: whoever draws again until all lie in an interval, as
    `trunc_normal_` does, would never end. Small tensors are drawn, as such an interval need not contain zero.
    """

    _DRAWS = frozenset(
        {"normal_", "uniform_", "trunc_normal_", "erfinv_", "kaiming_normal_", "kaiming_uniform_"}
        | {"_no_grad_trunc_normal_", "_no_grad_normal_", "_no_grad_uniform_"}
    )
    _LARGE = 1 << 18
    """Elements."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one function, but for those that draw."""
        kwargs = kwargs or {}
        tensor = args[0] if args else kwargs.get("tensor")  # `torch.nn.init` hands its argument on by name
        if getattr(func, "__name__", "") in self._DRAWS and tensor is not None and tensor.numel() > self._LARGE:
            with torch.no_grad():
                return tensor.zero_()
        return func(*args, **kwargs)


def make_fake(module: nn.Module, fake: FakeTensorMode) -> None:
    """Replace every parameter and buffer by a fake tensor of its shape, dtype and layout; shared ones stay shared."""
    made: dict[int, Tensor] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    made[id(parameter)] = nn.Parameter(fake.from_tensor(parameter.detach()), parameter.requires_grad)
                part._parameters[name] = made[id(parameter)]  # type: ignore[assignment]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                if id(buffer) not in made:
                    made[id(buffer)] = fake.from_tensor(buffer)
                part._buffers[name] = made[id(buffer)]


def fake_stages(
    config: Config, indices: Sequence[int], live: LiveBytes, fake: FakeTensorMode, cuda: bool = False
) -> list[FakeStage]:
    """The stages of one process; its replicas are `config.replicas_of` the first."""
    size = config.replicas_of(indices[0])
    group: ReplicaGroup = FakeReplicaGroup(0, size) if size > 1 else SOLO
    stages = [FakeStage(live, fake, config, index, group, cuda=cuda) for index in indices]
    last = stages[-1]
    if config.mode == "end_to_end" and last.target is not None:  # as `build_stages` does
        with warnings.catch_warnings():  # copying a fake tensor asks for its address
            warnings.simplefilter("ignore")
            last.follow_with_target(nn.Sequential(*(stage.block for stage in stages)))
        last.remember_buffers()
    return stages


def without_engines(config: Config) -> Config:
    """The same run with what has no fake form taken out: compiled modules, DeepSpeed, spread optimizer states."""
    overrides = {
        index: own.model_copy(update={"precision": {**own.precision, "compile": False}})
        for index, own in config.stages.items()
    }
    precision = config.precision.model_copy(update={"compile": False})
    return config.model_copy(update={"precision": precision, "stages": overrides}).with_torch_engines()
