"""Splits a traced network into a chain of graphs, one per block, or explains why it cannot be cut there.

A network can be cut after a module if the rest of the network reads nothing but the result of that module.
Parameters do not count: each goes to the block that uses it, and two blocks may not share one, because each
block has its own optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor, fx, nn

from pipeline.backbones.chain import Chain
from pipeline.backbones.timm_build import untraced_functions
from pipeline.backbones.tracing import Trace, trace
from pipeline.config.model import ModuleConfig
from pipeline.errors import ConfigError, did_you_mean


def cut_network(network: nn.Module, model: ModuleConfig, training: bool) -> list[fx.Graph]:
    """One graph per block, with one input and one output, as `network` runs in the given mode.

    Raises:
        ConfigError: a name is no module, the network is not a chain at a cut, or blocks share weights.
    """
    for path, name in points(model):
        check_name(network, model, path, name)
    traced = trace(network, model.units(), training, model.FUNCTION, untraced_functions(model))
    ends = [_value(traced, path, name) for path, name in points(model)]
    chain = Chain(network, traced, ends[-1])
    _check_order(model, ends, chain)
    for name, end in zip(model.cuts, ends, strict=False):
        _check_cut(chain, traced, model, name, end)
    starts = [chain.image, *ends[:-1]]
    blocks = [chain.between(start, end) for start, end in zip(starts, ends, strict=True)]
    _check_sharing(network, blocks)
    graphs = [graph_of(nodes, start, end) for nodes, start, end in zip(blocks, starts, ends, strict=True)]
    for number, graph in enumerate(graphs if model.channels_last else ()):
        _give_channels_first(graph, takes=number > 0)
    return graphs


def _give_channels_first(graph: fx.Graph, takes: bool) -> None:
    """Let `graph`, which computes on maps `[B, H, W, C]`, give and (`takes`) take maps `[B, C, H, W]`."""
    x, end = next(iter(graph.nodes)), next(reversed(graph.nodes))
    (result,) = end.all_input_nodes
    with graph.inserting_before(end):
        first = graph.call_method("contiguous", (graph.call_method("permute", (result, 0, 3, 1, 2)),))
        end.args = (first,)
    if takes:
        with graph.inserting_after(x):
            moved = graph.call_method("permute", (x, 0, 2, 3, 1))
        with graph.inserting_after(moved):
            inside = graph.call_method("contiguous", (moved,))
        x.replace_all_uses_with(inside, delete_user_cb=lambda user: user is not moved)


def points(model: ModuleConfig) -> list[tuple[str, str]]:
    """The key and the name of every point at which a block ends, in order."""
    return [*(("model.cuts", cut) for cut in model.cuts), ("model.output", model.output)]


def check_name(network: nn.Module, model: ModuleConfig, path: str, name: str) -> None:
    """Raises `ConfigError` at the key `path` if the network has no module of this name."""
    names = [other for other, _ in network.named_modules(remove_duplicate=False) if other]
    if name not in names:
        top = ", ".join(child for child, _ in network.named_children()) or "none"
        remedy = f"{did_you_mean(name, names, most=3)}The modules at its top are: {top}"
        raise ConfigError(path, f"'{name}' is not a module of {model.backbone}", remedy)


def _value(traced: Trace, path: str, name: str) -> fx.Node:
    """The result of the module `name`, which must have run once and returned one value."""
    results = traced.results.get(name, [])
    if not results:
        run = [other for other in traced.results if other.startswith(f"{name}.")] or list(traced.results)
        remedy = f"{did_you_mean(name, run, most=3)}Name a module that is called by itself"
        raise ConfigError(path, f"'{name}' is never called when the network runs", remedy)
    if len(results) > 1:
        problem = f"'{name}' is called {len(results)} times in one pass, so it is not one point of the network"
        raise ConfigError(path, problem, "Name a module that is called once")
    if not isinstance(results[0], fx.Node):
        problem = f"'{name}' returns a {type(results[0]).__name__}, not one tensor"
        raise ConfigError(path, problem, "Name a module that returns one tensor")
    return results[0]


def _check_order(model: ModuleConfig, ends: Sequence[fx.Node], chain: Chain) -> None:
    if not chain.holds(ends[-1]) or ends[-1] is chain.image:
        problem = f"'{model.output}' computes nothing from the image"
        raise ConfigError("model.output", problem, "Name the module whose result is the backbone's output")
    positions = [chain.order[end] for end in ends]
    for name, position in zip(model.cuts, positions, strict=False):
        if position > positions[-1]:
            problem = f"'{name}' runs after model.output='{model.output}', which ends the network"
            raise ConfigError("model.cuts", problem, "Remove it, or name a later output")
    points = [("the image", chain.order[chain.image]), *zip(model.units(), positions, strict=True)]
    for (name, position), (after, other) in pairwise(sorted(points, key=lambda point: point[1])):
        if position == other:
            problem = f"there is nothing between {_quoted(name)} and '{after}', so that block would be empty"
            raise ConfigError("model.cuts", problem, "Give only one of them")
    if positions != sorted(positions):
        in_order = [name for name, _ in sorted(points[1:-1], key=lambda point: point[1])]
        problem = f"got {list(model.cuts)}, which is not in network order"
        raise ConfigError("model.cuts", problem, f"Give {in_order}")


def _check_cut(chain: Chain, traced: Trace, model: ModuleConfig, name: str, cut: fx.Node) -> None:
    if not chain.holds(cut):
        problem = f"'{name}' is not on the way from the image to model.output='{model.output}'"
        raise ConfigError("model.cuts", problem, _nearest_cuts(chain, traced, cut))
    others = chain.bypassing(cut)
    if others:
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        problem = f"cannot cut at '{name}': what follows it also reads {_described(traced, others[-1])}{more}"
        raise ConfigError("model.cuts", problem, _nearest_cuts(chain, traced, cut))


def _nearest_cuts(chain: Chain, traced: Trace, cut: fx.Node) -> str:
    at, end = chain.order[cut], chain.order[chain.nodes[-1]]
    points = [
        (chain.order[node], name)
        for node, name in _names(traced).items()
        if chain.holds(node) and chain.order[node] < end and node is not chain.image and not chain.bypassing(node)
    ]
    before = [f"'{name}' before it" for position, name in sorted(points) if position < at][-1:]
    after = [f"'{name}' after it" for position, name in sorted(points) if position > at][:1]
    if not before + after:
        return "No other traced module splits the network in two. Leave the cut out"
    return f"The nearest points where one value passes: {', '.join(before + after)}"


def _names(traced: Trace) -> dict[fx.Node, str]:
    """For every result, the name of the outermost module that returns it and is called once."""
    once = [(name, results[0]) for name, results in traced.results.items() if len(results) == 1]
    deepest_first = sorted(once, key=lambda item: -item[0].count("."))
    return {node: name for name, node in deepest_first if isinstance(node, fx.Node)}


def _described(traced: Trace, node: fx.Node) -> str:
    if node.op == "placeholder":
        return "the image"
    if node in (names := _names(traced)):
        return f"the output of '{names[node]}'"
    if node.op == "call_module":
        return f"an output of '{node.target}'"
    called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"the result of {called} in the forward of {_quoted(traced.owners[node] or 'the network')}"


def _quoted(name: str) -> str:
    return name if name.startswith("the ") else f"'{name}'"


def _check_sharing(network: nn.Module, blocks: Sequence[Sequence[fx.Node]]) -> None:
    first_uses: dict[int, tuple[int, str]] = {}
    for number, nodes in enumerate(blocks, 1):
        for name, tensor in state_of(network, nodes):
            owner, first = first_uses.setdefault(id(tensor), (number, name))
            if owner != number:
                alias = "" if first == name else f" (there as '{first}')"
                raise ConfigError(
                    "model.cuts",
                    f"'{name}' is used by block {number} and by block {owner}{alias}, and blocks cannot share weights",
                    "Cut where all that uses it stays in one block",
                )


def state_of(network: nn.Module, nodes: Sequence[fx.Node]) -> Iterator[tuple[str, Tensor]]:
    """All state that a block may change: its parameters, and the buffers of the modules it calls."""
    for node in nodes:
        target = str(node.target)
        if node.op == "call_module":
            module = network.get_submodule(target)
            yield from module.named_parameters(prefix=target)
            yield from module.named_buffers(prefix=target)
        elif node.op == "get_attr":
            owner, _, name = target.rpartition(".")
            value = getattr(network.get_submodule(owner), name)
            if isinstance(value, nn.Parameter):
                yield target, value


def graph_of(nodes: Sequence[fx.Node], start: fx.Node, end: fx.Node) -> fx.Graph:
    """A graph of its own of `nodes`, with the value of `start` for input and that of `end` for output."""
    graph = fx.Graph()
    copies = {start: graph.placeholder("x")}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[end])
    return graph
