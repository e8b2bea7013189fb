"""The path from the image to the output of a traced network, and the values that bypass a point of it."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterable

from torch import fx, nn

from pipeline.backbones.tracing import Trace

IN_PLACE_OPERATORS = frozenset(
    (operator.iadd, operator.iand, operator.ifloordiv, operator.ilshift, operator.imatmul, operator.imod, operator.imul)
) | {operator.ior, operator.ipow, operator.irshift, operator.isub, operator.itruediv, operator.ixor}


class Chain:
    """The nodes that `output` is computed from, in order of execution.

    Args:
        network: the traced network.
        trace: its trace.
        output: the last value; nodes that it does not depend on are left out.
    """

    def __init__(self, network: nn.Module, trace: Trace, output: fx.Node) -> None:
        every = list(trace.graph.nodes)
        self.image = next(node for node in every if node.op == "placeholder")
        self.order = {node: position for position, node in enumerate(every)}
        until = every[: self.order[output] + 1]
        needed = _with_inputs([output])
        for node in reversed(until):  # an in-place operation counts although nothing reads its result
            if node not in needed and node.args and node.args[0] in needed and _works_in_place(network, node):
                needed |= _with_inputs([node])
        self.nodes = [node for node in until if node in needed]
        self._of_image = {self.image}
        for node in self.nodes:
            if not self._of_image.isdisjoint(node.all_input_nodes):
                self._of_image.add(node)

    def holds(self, node: fx.Node) -> bool:
        """Whether `node` is computed from the image, and the output from `node`."""
        return node in self.order and node in self._of_image and node in self.nodes

    def bypassing(self, cut: fx.Node) -> list[fx.Node]:
        """The values other than `cut` that are computed from the image before `cut` and read after it."""
        at, alive = self.order[cut], set(self.nodes)
        return [
            node
            for node in self.nodes
            if node is not cut
            and node in self._of_image
            and self.order[node] < at
            and any(self.order[user] > at for user in node.users if user in alive)
        ]

    def between(self, start: fx.Node, end: fx.Node) -> list[fx.Node]:
        """The nodes after `start` up to `end`, and those that they read which do not depend on the image."""
        first, last = self.order[start], self.order[end]
        inside = {node for node in self.nodes if node in self._of_image and first < self.order[node] <= last}
        reads = {other for node in inside for other in node.all_input_nodes} - self._of_image
        return [node for node in self.nodes if node in inside | _with_inputs(reads)]


def _with_inputs(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    collected: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in collected:
            collected.add(node)
            waiting += node.all_input_nodes
    return collected


def _works_in_place(network: nn.Module, node: fx.Node) -> bool:
    """Whether the call changes its first argument, judged by its name and its arguments."""
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if (name.endswith("_") and not name.endswith("__")) or node.target in IN_PLACE_OPERATORS:
        return True
    if not callable(node.target):
        return False
    try:
        arguments = inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments
    except (TypeError, ValueError):  # built-in functions have no signature
        arguments = node.kwargs
    return arguments.get("inplace") is True
