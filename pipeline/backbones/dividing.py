"""The graph of a block as a chain of smaller ones, the units that are computed again to save memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from math import ceil, sqrt

from torch import fx, nn

from pipeline.backbones.cutting import graph_of


def divide(graph: fx.Graph, network: nn.Module, joined: Collection[int] = ()) -> list[fx.Graph]:
    """Units of `graph`, which has one input and one output; run one after the other they are the whole.

    A unit ends where one tensor, and nothing else that was computed, goes on to the rest: behind a module that has
    modules inside, such as a residual unit, or else behind the square root of the number of operations, so that about
    as many tensors are kept between units as one unit has inside.

    Args:
        graph: of a block.
        network: holds what the graph names.
        joined: units, counted from 0, to make one with the unit before.
    """
    nodes = list(graph.nodes)
    size = ceil(sqrt(len(nodes)))
    units: list[list[fx.Node]] = [[]]
    ends: list[fx.Node] = []
    joints = set(_joints(nodes))
    for node in nodes[1:-1]:
        units[-1].append(node)
        if node in joints and (len(units[-1]) >= size or any(_has_parts(network, n) for n in units[-1])):
            ends.append(node)
            units.append([])
    (result,) = nodes[-1].all_input_nodes
    if ends and ends[-1] is result:  # what follows computes nothing that is read
        units.pop()
    else:
        ends.append(result)
    for number in sorted(joined, reverse=True):
        units[number - 1] += units.pop(number)
        del ends[number - 1]
    starts = [nodes[0], *ends[:-1]]
    return [graph_of(_whole(unit), start, end) for unit, start, end in zip(units, starts, ends, strict=True)]


def _joints(nodes: Sequence[fx.Node]) -> Iterator[fx.Node]:
    """The nodes behind which nothing is read that was computed before them; the last node is the graph's output."""
    order = {node: position for position, node in enumerate(nodes)}
    of_input = {nodes[0]}
    reach = max((order[user] for user in nodes[0].users), default=0)
    for node in nodes[1:-1]:
        if not of_input.isdisjoint(node.all_input_nodes):
            of_input.add(node)
            if reach <= order[node]:
                yield node
        if node.op != "get_attr":  # a parameter is no value that was computed: each unit reads it for itself
            reach = max([reach, *(order[user] for user in node.users)])


def _whole(unit: Sequence[fx.Node]) -> list[fx.Node]:
    """With the parameters and constants that it reads and that stand before it."""
    outside = {other for node in unit for other in node.all_input_nodes if other.op == "get_attr"} - set(unit)
    return [*sorted(outside, key=lambda node: str(node.target)), *unit]


def _has_parts(network: nn.Module, node: fx.Node) -> bool:
    return node.op == "call_module" and any(True for _ in network.get_submodule(str(node.target)).children())
