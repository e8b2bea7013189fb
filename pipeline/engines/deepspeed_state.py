"""Where DeepSpeed keeps the state of its optimizer: whole, or in partitions spread over the replicas.

Its own checkpoints are pickles. Here the state goes out and in by parameter, under the names that the torch engine
uses, so a snapshot fits any number of replicas, and either engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.engines.base import OPTIMIZER


class OptimizerState(ABC):
    """The state of one optimizer, by the parameters of the module.

    Args:
        optimizer: its groups hold the tensors that it steps on: the parameters, their fp32 masters, or flat
            partitions of these.
        groups: the module's parameters, those of each group.
        names: of these parameters.
        masters: whether these tensors are finer than the parameters.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        groups: list[list[nn.Parameter]],
        names: Mapping[nn.Parameter, str],
        masters: bool,
    ) -> None:
        self.optimizer, self.groups, self.names, self.masters = optimizer, groups, names, masters

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """`optimizer.KEY.PARAMETER`, none before the first step, and the masters under their parameters' names."""

    @abstractmethod
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse; parameters and their copies too. What is missing stays as it is.

        Raises:
            RuntimeError: a tensor belongs to no parameter, or says what cannot be kept.
        """

    def _by_key(self, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """The optimizer's tensors by key, then by parameter."""
        by_key: dict[str, dict[str, Tensor]] = {}
        names = set(self.names.values())
        for name, value in tensors.items():
            if not name.startswith(OPTIMIZER):
                continue
            key, _, owner = name.removeprefix(OPTIMIZER).partition(".")
            if owner not in names:
                raise RuntimeError(f"there is no parameter '{owner}' that '{name}' could belong to")
            by_key.setdefault(key, {})[owner] = value
        return by_key


class WholeState(OptimizerState):
    """Without ZeRO: every replica has everything."""

    def tensors(self) -> dict[str, Tensor]:
        """As the base class says; not copied."""
        state: dict[str, Tensor] = {}
        for name, _, master in self._owners():
            if self.masters:
                state[name] = master.detach()
            for key, value in self.optimizer.state.get(master, {}).items():
                state[f"{OPTIMIZER}{key}.{name}"] = torch.as_tensor(value)
        return state

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """As the base class says."""
        saved = self._by_key(tensors)
        for name, parameter, master in self._owners():
            if name in tensors:
                master.copy_(tensors[name])
                parameter.copy_(master)
            for key, values in saved.items():
                if name in values:
                    value = values[name].clone()
                    # Counters of torch's optimizers are numbers on the CPU, wherever the parameter is.
                    self.optimizer.state[master][key] = value.to(master.device) if value.dim() else value

    def _owners(self) -> list[tuple[str, nn.Parameter, Tensor]]:
        # Without masters the groups may also hold parameters that are not trained, which have no state.
        stepped = [group["params"] for group in self.optimizer.param_groups] if self.masters else self.groups
        pairs = zip(chain(*self.groups), chain(*stepped), strict=True)
        return [(self.names[parameter], parameter, master) for parameter, master in pairs]


class PartitionedState(OptimizerState):
    """ZeRO 1 and 2: a group is one vector, of which every replica has a piece that may begin inside a parameter.

    Args:
        optimizer, groups, names, masters: as those of the base class.
        utils: `deepspeed.utils`.
        whole_numbers: the optimizer counts its steps in an int, as DeepSpeed's Adam does, not in a tensor.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        groups: list[list[nn.Parameter]],
        names: Mapping[nn.Parameter, str],
        masters: bool,
        utils: Any,
        *,
        whole_numbers: bool,
    ) -> None:
        super().__init__(optimizer, groups, names, masters)
        self.utils, self.whole_numbers = utils, whole_numbers

    def tensors(self) -> dict[str, Tensor]:
        """As the base class says; brought together, so every replica must call it."""
        state: dict[str, Tensor] = {}
        for parameters, piece in self._pieces():
            # DeepSpeed has done so after the step of the first group, when the others had no state yet.
            self.utils.lazy_init_hp_params_optimizer_state(parameters, piece, self.optimizer.state)
            for key, value in self.optimizer.state[piece].items():
                for parameter in parameters:
                    if isinstance(value, Tensor) and value.dim():
                        whole = self.utils.safe_get_full_optimizer_state(parameter, key)
                    else:
                        whole = torch.as_tensor(value, dtype=torch.float32).clone()
                    state[f"{OPTIMIZER}{key}.{self.names[parameter]}"] = whole
            if self.masters:
                state |= {self.names[p]: self.utils.safe_get_full_fp32_param(p) for p in parameters}
        return state

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """As the base class says; each replica takes its piece, and asks nobody."""
        saved = self._by_key(tensors)
        for parameters, piece in self._pieces():
            for parameter in parameters:
                if self.names[parameter] not in tensors:
                    continue
                value = tensors[self.names[parameter]].to(parameter.device, torch.float32)
                parameter.copy_(value)
                self.utils.safe_set_full_fp32_param(parameter, value)
            if saved:
                self._load_group(parameters, piece, saved)

    def _load_group(
        self, parameters: list[nn.Parameter], piece: Tensor, saved: Mapping[str, Mapping[str, Tensor]]
    ) -> None:
        owned = {name: p for p in parameters for name in [self.names[p]]}
        state = self.optimizer.state[piece]
        for key, values in saved.items():
            of_group = [value for name, value in values.items() if name in owned]
            if of_group:
                state[key] = torch.zeros_like(piece) if of_group[0].dim() else self._count(key, of_group)
        self.utils.lazy_init_hp_params_optimizer_state(parameters, piece, self.optimizer.state)
        for key, values in saved.items():
            for name, value in values.items():
                if name in owned and value.dim():
                    full = value.to(owned[name].device, torch.float32)
                    self.utils.safe_set_full_optimizer_state(owned[name], full, key)

    def _count(self, key: str, values: list[Tensor]) -> Tensor | int:
        counts = sorted({float(value) for value in values})
        if len(counts) > 1:
            raise RuntimeError(
                f"'{key}' differs between parameters, from {counts[0]:g} to {counts[-1]:g}, and ZeRO has one for all "
                "of a group"
            )
        return int(counts[0]) if self.whole_numbers else torch.tensor(counts[0])

    def _pieces(self) -> list[tuple[list[nn.Parameter], Tensor]]:
        pieces = [group["params"][0] for group in self.optimizer.param_groups]
        return list(zip(self.groups, pieces, strict=True))
