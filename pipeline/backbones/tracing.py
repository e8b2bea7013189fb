"""Traces a network as a torch.fx graph, as far as some named modules need.

Only modules that contain a named one are traced into; every other module is one node and runs unchanged later.
So Python control flow is a problem only where the network is to be cut.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from pipeline.errors import ConfigError, first_line


@dataclass(frozen=True)
class Trace:
    """One pass through a network.

    Args:
        graph: in order of execution; its first placeholder is the image.
        results: by qualified name, the result of each call of a module: a node, if it was one value.
        owners: by node, the qualified name of the module whose forward created it.
        training: the mode that the network was in.
    """

    graph: fx.Graph
    results: dict[str, list[object]]
    owners: dict[fx.Node, str]
    training: bool


def trace(
    network: nn.Module,
    names: Collection[str],
    training: bool,
    function: str = "forward",
    whole: Sequence[Callable[..., Any]] = (),
) -> Trace:
    """Trace `network` in training or evaluation mode, into every module that contains one of `names`.

    Args:
        network, names, training: what is traced, as far as which modules, and in which mode.
        function: the method of the network that is traced.
        whole: functions that are one node each, and run unchanged later.

    Raises:
        ConfigError: a forward branches on values, draws random numbers, or takes more than one tensor.
    """
    tracer = _Tracer(names, whole)
    tracer.traced_func_name = function
    before = torch.get_rng_state()
    try:
        network.train(training)
        graph = tracer.trace(network, concrete_args=_defaults(network, function))
    except ConfigError:
        raise
    except Exception as error:
        where, remedy = f"the {function} of the network", "Choose another network"
        if tracer.inside:
            where, remedy = f"the forward of '{tracer.inside}'", "Cut outside of that module"
        reason = first_line(error).partition(". ")[0]  # torch.fx goes on with where to read about it
        raise ConfigError(
            "model.backbone",
            f"{where} cannot be traced ({reason})",
            "Where a network is cut, its forward may not branch on values or sizes of tensors. "
            f"{remedy}, or write it without such branches",
        ) from None
    if not torch.equal(torch.get_rng_state(), before):
        raise ConfigError(
            "model.backbone",
            "where the network is cut, a forward draws random numbers, which tracing would make constants",
            "Draw them in a separate layer, such as nn.Dropout, which is not traced into",
        )
    return Trace(graph, tracer.results, tracer.owners, training)


class _Tracer(fx.Tracer):
    """Records the fields of `Trace`; `inside` is the module whose forward is being traced."""

    def __init__(self, names: Collection[str], whole: Sequence[Callable[..., Any]]) -> None:
        super().__init__(autowrap_functions=tuple(whole))
        self.inside = ""
        self.results: dict[str, list[object]] = {}
        self.owners: dict[fx.Node, str] = {}
        self._opened = {name[:end] for name in names for end, sign in enumerate(name) if sign == "."}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self._opened

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        outer, name = self.inside, self.path_of_module(m)
        self.inside = name
        result = super().call_module(m, forward, args, kwargs)
        self.inside = outer  # not reset after an error, whose message names the innermost module
        self.results.setdefault(name, []).append(result.node if isinstance(result, fx.Proxy) else result)
        return result

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.owners[node] = self.inside
        return node


def _defaults(network: nn.Module, function: str) -> dict[str, Any]:
    """The default values of all arguments of `function` but the first."""
    parameters = list(inspect.signature(getattr(type(network), function)).parameters.values())[1:]  # without self
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = [p.name for p in named[1:] if p.default is p.empty]
    if needed or not parameters:
        raise ConfigError(
            "model.backbone",
            f"the {function} of {type(network).__name__} takes {', '.join(p.name for p in named) or 'nothing'}",
            "It must take one tensor, the images; other arguments need defaults",
        )
    return {p.name: p.default for p in named[1:]}
