"""Where a network of timm is cut if its cuts are not given: at the points that timm names, evenly.

`feature_info` of a network names the modules after which its features are taken. Those behind which one value passes,
and nothing else, are candidates; if they are too few, so are its other modules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, fx, nn

from pipeline.backbones.chain import Chain
from pipeline.backbones.cutting import check_name, state_of
from pipeline.backbones.network import import_network
from pipeline.backbones.timm_build import untraced_functions
from pipeline.backbones.tracing import Trace, trace
from pipeline.config.model import ModuleConfig, TimmConfig
from pipeline.errors import ConfigError, first_line
from pipeline.randomness import seeded_initialisation

DEPTHS = (1, 2, 3, 4)
"""How deep modules may lie that are candidates besides those of `feature_info`."""
BATCH = 2
LEAST = 0.01
"""Share of the network's weights below which what follows a point is no block, but the end of the one before."""


@dataclass(frozen=True)
class Pass:
    """What one pass of a network's features shows.

    Args:
        shapes: by the names of the modules that returned one tensor, in the order in which they did, its shape.
        output: name of the module whose result the features are; empty if there is none.
        near: name of the last module whose result has their shape; empty if there is none.
    """

    shapes: dict[str, tuple[int, ...]]
    output: str
    near: str


def with_found_points(model: TimmConfig, image_size: int) -> TimmConfig:
    """`model` with `output`, `cuts` and `channels_last` found, as far as they are not given.

    Raises:
        ConfigError: the network cannot be built, refuses the images, or cannot be cut into so many blocks.
    """
    network = import_network(model, seed=0)
    seen = features_pass(network, model, image_size)
    output = model.output or seen.output
    if output not in seen.shapes:
        check_name(network, model, "model.output", output)
        problem = f"'{output}' of {model.backbone} does not return one map, or tokens, once"
        raise ConfigError("model.output", problem, f"Name a module that does, such as {list(seen.shapes)[-1]}")
    found: dict[str, object] = {"output": output}
    if "channels_last" not in model.model_fields_set:
        found["channels_last"] = _keeps_channels_last(seen.shapes.get(output, ()))
    if "cuts" not in model.model_fields_set:
        found["cuts"] = _cuts(network, model, seen, output)
    elif "num_blocks" in model.model_fields_set and model.num_blocks != len(model.cuts) + 1:
        problem = f"got {model.num_blocks}, and model.cuts makes {len(model.cuts) + 1} blocks"
        raise ConfigError("model.num_blocks", problem, "Give one of the two")
    found["num_blocks"] = len(found.get("cuts", model.cuts)) + 1  # type: ignore[arg-type]
    return model.model_copy(update=found)


def size_remedy(model: TimmConfig, image_size: int) -> str:
    """What to give a network that refuses images of `image_size` pixels: its own size, or an argument for this one."""
    own = getattr(import_network(model, seed=0), "default_cfg", {}).get("input_size", (3, 224, 224))[-1]
    other = model.model_copy(update={"options": {**model.options, "img_size": image_size}})
    try:
        run_once(import_network(other, seed=0), other, image_size)
    except Exception:
        return f"Give {own}, which is its own size"
    return f"Give {own}, which is its own size, or model.options.img_size={image_size}"


def features_pass(network: nn.Module, model: TimmConfig, image_size: int) -> Pass:
    """Run `network.forward_features` on the meta device, or else on the CPU; `network` is spoilt.

    Raises:
        ConfigError: it fails, or no module returns its result and `model.output` names none.
    """
    try:
        seen = run_once(network, model, image_size)
    except ConfigError:
        raise
    except Exception as error:
        problem = f"{model.backbone} fails on images of {image_size}x{image_size} pixels ({first_line(error)})"
        raise ConfigError("data.image_size", problem, size_remedy(model, image_size)) from None
    if not (seen.output or model.output):
        problem = f"no module of {model.backbone} returns its features as one map or as tokens"
        remedy = "Choose another network"
        if seen.near:
            remedy = f"Give model.output={seen.near}, the last that returns as much; what follows it is then left out"
        raise ConfigError("model.output", problem, remedy)
    return seen


def run_once(network: nn.Module, model: ModuleConfig, image_size: int) -> Pass:
    """What a pass shows, on the meta device, or else on the CPU; `network` is spoilt, and may raise anything."""
    with seeded_initialisation("probe"), torch.no_grad():
        try:
            return _run_on("meta", network, model.FUNCTION, image_size)
        except Exception:  # makes tensors or decisions of its own
            return _run_on("cpu", import_network(model, seed=0), model.FUNCTION, image_size)


def _run_on(device: str, network: nn.Module, function: str, image_size: int) -> Pass:
    results: dict[str, list[object]] = {}

    def note(name: str, result: object) -> None:
        results.setdefault(name, []).append(result)

    network.to(device).eval()
    handles = [
        module.register_forward_hook(lambda _m, _i, result, name=name: note(name, result))
        for name, module in network.named_modules()
        if name
    ]
    try:
        forward: Any = getattr(network, function)
        features = forward(torch.zeros(BATCH, 3, image_size, image_size, device=device))
    finally:
        for handle in handles:
            handle.remove()
    single = {name: each[0] for name, each in results.items() if len(each) == 1}
    shapes = {name: tuple(each.shape) for name, each in single.items() if isinstance(each, Tensor) and _is_batch(each)}
    same = [name for name in shapes if single[name] is features]
    shape = tuple(features.shape) if isinstance(features, Tensor) else ()
    near = [name for name in shapes if shapes[name] == shape]
    return Pass(shapes, min(same, key=lambda name: name.count("."), default=""), near[-1] if near else "")


def _is_batch(value: Tensor) -> bool:
    """Whether it is a map or tokens of the whole batch."""
    return value.is_floating_point() and value.dim() in (3, 4) and len(value) == BATCH


def _keeps_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether a map is `[B, H, W, C]`: images are square, so the two equal sides are H and W."""
    return len(shape) == 4 and shape[1] == shape[2] != shape[3]


def _cuts(network: nn.Module, model: TimmConfig, seen: Pass, output: str) -> tuple[str, ...]:
    wanted, most, failed = model.num_blocks - 1, list[str](), list[ConfigError]()
    if not wanted:
        return ()
    for names in _candidates(network, seen):
        alike = [name for name in names if laid_out_alike(seen.shapes[name], seen.shapes[output])]
        try:
            points = possible_points(network, model, alike, output)
        except ConfigError as error:
            failed.append(error)
            continue
        if len(points) >= wanted:
            return evenly(points, model.num_blocks)
        most = max(most, points, key=len)
    if failed and not most:
        raise failed[0]
    problem = f"{model.backbone} cannot be cut: nowhere inside does one tensor pass and nothing else"
    remedy = "Give model.num_blocks=1, or another network"
    if most:
        problem = f"{model.backbone} can be cut into {len(most) + 1} blocks at most, after {', '.join(most)}, and not "
        problem, remedy = f"{problem}into {model.num_blocks}", f"Give {len(most) + 1} or fewer, or model.cuts"
    raise ConfigError("model.num_blocks", problem, remedy)


def _candidates(network: nn.Module, seen: Pass) -> Iterator[list[str]]:
    info = getattr(network, "feature_info", None) or ()
    named = [str(entry.get("module", "")) for entry in info if isinstance(entry, dict)]
    # Not the last: what follows it is a norm or a convolution that belongs to the output.
    yield [name for name in seen.shapes if name in named[:-1] and name != named[-1]]
    for depth in DEPTHS:
        yield [name for name in seen.shapes if name.count(".") < depth]


def laid_out_alike(shape: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Whether a value is laid out as the output is: what goes from block to block is read in one way."""
    if not _keeps_channels_last(output):
        return not _keeps_channels_last(shape)
    return len(shape) == 4 and not (shape[2] == shape[3] != shape[1])


def possible_points(network: nn.Module, model: ModuleConfig, names: Collection[str], output: str) -> list[str]:
    """Those of `names` after which one value passes, in order, with weights before, between and behind them.

    Args:
        network, model: in which `names` and `output` are modules.
        names, output: of modules.

    Raises:
        ConfigError: the network cannot be traced as far as these names need.
    """
    whole = untraced_functions(model)
    traced = trace(network, [*names, output], training=False, function=model.FUNCTION, whole=whole)
    nodes = _results(traced, [*names, output])
    end = nodes.get(output)
    if end is None:
        raise ConfigError("model.output", f"'{output}' is not one point of the network", "Name another module")
    chain = Chain(network, traced, end)
    points, last, seen = list[str](), chain.image, {end}
    for name in sorted(nodes, key=lambda name: (chain.order[nodes[name]], name.count("."))):
        node = nodes[name]
        if node in seen or chain.order[node] >= chain.order[end]:
            continue
        seen.add(node)
        if chain.holds(node) and not chain.bypassing(node) and _weights(network, chain.between(last, node)):
            points.append(name)
            last = node
    least = LEAST * sum(parameter.numel() for parameter in network.parameters())
    while points and _weights(network, chain.between(nodes[points[-1]], end)) < least:
        points.pop()
    return points


def _results(traced: Trace, names: Collection[str]) -> dict[str, fx.Node]:
    found = {name: traced.results.get(name, []) for name in names}
    return {name: each[0] for name, each in found.items() if len(each) == 1 and isinstance(each[0], fx.Node)}


def _weights(network: nn.Module, nodes: Sequence[fx.Node]) -> int:
    """Numbers in the parameters that they use."""
    state = {id(tensor): tensor for _, tensor in state_of(network, nodes)}
    return sum(tensor.numel() for tensor in state.values() if isinstance(tensor, nn.Parameter))


def evenly(points: Sequence[str], blocks: int) -> tuple[str, ...]:
    """`blocks - 1` of the points: with the output they divide all of them into parts as equal as can be.

    Where that does not come out even, the first blocks have more of them: layers that come early are narrow.
    """
    ends = len(points) + 1
    return tuple(points[ceil(number * ends / blocks) - 1] for number in range(1, blocks))
