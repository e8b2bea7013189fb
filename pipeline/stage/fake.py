"""Stages whose tensors have sizes and no memory: what they compute is known without computing it.

The code that trains runs as it is, with any backbone, head, objective, precision and optimizer. A stage is built for
real, since initialisation may read values; before its optimizer is made, every parameter and buffer becomes a fake one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from pipeline.config import Config
from pipeline.replicas import SOLO, ReplicaGroup
from pipeline.replicas.team import PendingSum
from pipeline.stage.stage import Stage


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


class StageWithoutMemory(Stage):
    """A stage whose parameters and buffers are fake.

    Args:
        fake: makes them fake.
        config, index, steps_per_epoch, team: as `Stage` takes them; `config` of `without_engines`.
    """

    _fake: FakeTensorMode

    def __init__(
        self, fake: FakeTensorMode, config: Config, index: int, steps_per_epoch: int, *, team: ReplicaGroup = SOLO
    ) -> None:
        self._fake = fake  # before the constructor of `nn.Module`, since that calls `_make_ready`
        with Undrawn():
            super().__init__(config, index, steps_per_epoch, team=team)

    def _make_ready(self, device: torch.device, dtype: torch.dtype) -> None:
        super()._make_ready(device, dtype)
        make_fake(self, self._fake)


class Undrawn(TorchFunctionMode):
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


def without_engines(config: Config) -> Config:
    """The same run with what has no fake form taken out: compiled modules, DeepSpeed, spread optimizer states."""
    overrides = {
        index: own.model_copy(update={"precision": {**own.precision, "compile": False}})
        for index, own in config.stages.items()
    }
    precision = config.precision.model_copy(update={"compile": False})
    return config.model_copy(update={"precision": precision, "stages": overrides}).with_torch_engines()
