"""Blocks of any torch module, cut at named points, and the shapes between them.

A stage builds the whole network, keeps the part between its two cuts and frees the rest. Only then are the
weights those of the whole network, whatever the order in which its constructor draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from types import MethodType

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from pipeline.backbones.block import Block, UnitCall
from pipeline.backbones.cutting import cut_network, points
from pipeline.backbones.dividing import divide
from pipeline.backbones.network import import_network
from pipeline.backbones.timm_points import size_remedy
from pipeline.config.model import ModuleConfig, TimmConfig
from pipeline.errors import ConfigError, first_line
from pipeline.plugins import is_given
from pipeline.randomness import seeded_initialisation

Program = Callable[[nn.Module, Tensor], Tensor]
"""What a graph computes; its first argument is the module that holds the state."""
PROBE_BATCH = 2
OTHER_SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 299, 384)
"""Sides in pixels that are tried where a network refuses the images of the run, to suggest one."""


@dataclass(frozen=True)
class BlockProperties:
    """What a forward pass without data shows of a block.

    Args:
        output: shape for one image: `(C, H, W)` of a map or `(N, D)` of tokens.
        overwrites_input: whether the block begins with an in-place operation.
    """

    output: tuple[int, ...]
    overwrites_input: bool


class TracedBlock(Block):
    """A part of a network with one input and one output tensor, holding only the modules and parameters of that part.

    It has the names of the network in its state dict, and computes the same values, in training and in evaluation.

    Args:
        network: holds the modules and parameters that the graphs name; they are moved, not copied.
        training, evaluation: the graph of the part in either mode.
    """

    def __init__(self, network: nn.Module, training: fx.Graph, evaluation: fx.Graph) -> None:
        super().__init__()
        self._copies_input = False
        self._training_graph, self._joined = training, frozenset[int]()
        nodes = [*training.nodes, *evaluation.nodes]
        targets = {str(node.target) for node in nodes if node.op in ("call_module", "get_attr")}
        saved = network.state_dict().keys()
        for target in sorted(targets, key=lambda name: (name.count("."), name)):  # a module before its children
            _attach(self, network, target, saved)
        self._programs = {True: _function(network, training), False: _function(network, evaluation)}

    def copy_input(self) -> None:
        """Copy the input before an in-place operation at the beginning of the part overwrites it."""
        self._copies_input = True

    def join(self, units: Collection[int]) -> None:
        """Make each of these units, counted from 0, one with the unit before it."""
        self._joined = frozenset(units)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, 3, S, S]`, or the output of the block before, to a map `[B, C, H, W]` or tokens `[B, N, D]`."""
        return self._programs[self.training](self, x.clone() if self._copies_input else x)

    def unit_calls(self) -> list[UnitCall]:
        """See `Block.unit_calls`: the parts that `pipeline.backbones.dividing` makes."""
        return [
            UnitCall(MethodType(program, self), [self.get_submodule(name) for name in modules])
            for program, modules in self._units
        ]

    @cached_property
    def _units(self) -> list[tuple[Program, list[str]]]:
        """The program of each unit, and the names of the modules that it calls."""
        graphs = divide(self._training_graph, self, self._joined)
        called = [[str(node.target) for node in graph.nodes if node.op == "call_module"] for graph in graphs]
        programs = [_function(self, graph) for graph in graphs]
        if self._copies_input:  # inside the unit, whose own input must be there a second time
            programs[0] = _on_a_copy(programs[0])
        return list(zip(programs, called, strict=True))


def build_traced_block(
    model: ModuleConfig, index: int, image_size: int, seed: int, in_units: bool = False
) -> TracedBlock:
    """Block `index`, counted from 1, of the network with the weights of `seed`.

    Args:
        model, image_size: of the run.
        index, seed: of the block and its weights.
        in_units: whether units of it will be computed again.

    Raises:
        ConfigError: the network cannot be imported, built, traced or cut at these points, or refuses the images.
    """
    block = build_traced_blocks(model, image_size, seed)[index - 1]
    if in_units:
        shape = measure(model, image_size)[index - 2].output if index > 1 else (3, image_size, image_size)
        block.join(_overwriting_units(deepcopy(block), shape))
    return block


def build_traced_blocks(model: ModuleConfig, image_size: int, seed: int) -> list[TracedBlock]:
    """All blocks; arguments and errors as `build_traced_block`."""
    properties = measure(model, image_size)
    blocks = _build_all(model, seed)
    for block, facts in zip(blocks, properties, strict=True):
        if facts.overwrites_input:
            block.copy_input()
    return blocks


def _overwriting_units(block: TracedBlock, shape: tuple[int, ...]) -> set[int]:
    """The units, counted from 0, that begin with an operation in place: their input would not be there a second time.

    Args:
        block: is spoilt.
        shape: of its input, without the batch.
    """
    x = torch.zeros(PROBE_BATCH, *shape)
    overwriting = set()
    with seeded_initialisation("probe"), torch.no_grad():
        for number, call in enumerate(block.unit_calls()):
            version = x._version
            output = call.function(x)
            if number and x._version != version:
                overwriting.add(number)
            x = output
    return overwriting


def measure(model: ModuleConfig, image_size: int) -> tuple[BlockProperties, ...]:
    """The properties of every block for images `[B, 3, image_size, image_size]`, from a pass on the meta device.

    A network that cannot run there, because it creates tensors or branches on values, runs on the CPU.

    Raises:
        ConfigError: as `build_traced_block`.
    """
    if is_given(model.backbone):  # another object may have that name at another time
        with seeded_initialisation("probe"):
            return tuple(_measure(model, image_size))
    key = (repr(model), image_size)
    if key not in _measured:
        with seeded_initialisation("probe"):
            _measured[key] = tuple(_measure(model, image_size))
    return _measured[key]


_measured: dict[tuple[str, int], tuple[BlockProperties, ...]] = {}
"""Cached, because every link of a run needs it."""


def _build_all(model: ModuleConfig, seed: int) -> list[TracedBlock]:
    network = import_network(model, seed)
    training, evaluation = (cut_network(network, model, mode) for mode in (True, False))
    return [TracedBlock(network, *graphs).train() for graphs in zip(training, evaluation, strict=True)]


def _measure(model: ModuleConfig, image_size: int) -> Iterator[BlockProperties]:
    shape: tuple[int, ...] = (3, image_size, image_size)
    blocks = _build_all(model, seed=0)
    for block, (path, name) in zip(blocks, points(model), strict=True):
        try:
            output, overwrites = _probe(block, shape)
        except Exception as error:
            raise _refusal(model, blocks, image_size, error) from None
        shape = _shape_of_one(output, path, name)
        yield BlockProperties(shape, overwrites)


def _probe(block: TracedBlock, shape: tuple[int, ...]) -> tuple[object, bool]:
    """The output of `block` for a batch of zeros of `shape`, and whether it wrote into its input."""
    try:
        return _probe_on("meta", block, shape)
    except Exception:
        return _probe_on("cpu", block, shape)


def _probe_on(device: str, block: TracedBlock, shape: tuple[int, ...]) -> tuple[object, bool]:
    tensors = dict(block.named_parameters()) | dict(block.named_buffers())
    x = torch.zeros(PROBE_BATCH, *shape, device=device)
    version = x._version
    with torch.no_grad():
        output = functional_call(block, {name: tensor.to(device) for name, tensor in tensors.items()}, (x,))
    return output, x._version != version


def _shape_of_one(output: object, path: str, name: str) -> tuple[int, ...]:
    if not isinstance(output, Tensor):
        returned = f"a {type(output).__name__}, not one tensor"
    elif not output.is_floating_point() or output.dim() not in (3, 4) or 0 in output.shape:
        returned = f"{output.dtype} of shape {list(output.shape)} for {PROBE_BATCH} images".removeprefix("torch.")
    elif len(output) != PROBE_BATCH:
        returned = f"a batch of {len(output)} for {PROBE_BATCH} images"
    else:
        return tuple(output.shape[1:])
    remedy = "Name a module that returns a map [B, C, H, W] or tokens [B, N, D] of floating-point numbers"
    raise ConfigError(path, f"'{name}' gives {returned}", remedy)


def _refusal(model: ModuleConfig, blocks: Sequence[TracedBlock], image_size: int, error: Exception) -> ConfigError:
    """The error of a failed pass: at `data.image_size` if the network takes another size, else at `model.backbone`."""
    problem = f"{model.backbone} fails on images of {image_size}x{image_size} pixels ({first_line(error)})"
    if isinstance(model, TimmConfig):
        return ConfigError("data.image_size", problem, size_remedy(model, image_size))
    for size in sorted(OTHER_SIZES, key=lambda size: abs(size - image_size)):
        if _takes(blocks, size):
            return ConfigError("data.image_size", problem, f"Give {size}, for example, which it takes")
    return ConfigError("model.backbone", problem, "It must take images [B, 3, H, W] with values around zero")


def _takes(blocks: Sequence[TracedBlock], size: int) -> bool:
    shape: tuple[int, ...] = (3, size, size)
    try:
        for block in blocks:
            shape = _shape_of_one(_probe(block, shape)[0], "", "")
    except Exception:
        return False
    return True


def _attach(block: nn.Module, network: nn.Module, target: str, saved: Collection[str]) -> None:
    """Add the module, parameter or buffer `target` of `network` to `block`, under the same qualified name."""
    path, _, name = target.rpartition(".")
    owner = block
    for part in path.split(".") if path else ():
        if part not in owner._modules:
            owner.add_module(part, nn.Module())
        owner = owner.get_submodule(part)
    if hasattr(owner, name):  # it came with its parent module
        return
    value = getattr(network.get_submodule(path), name)
    if isinstance(value, nn.Module):
        owner.add_module(name, value)
    elif isinstance(value, nn.Parameter):
        owner.register_parameter(name, value)
    else:  # a constant of the forward too, so that it moves to the stage's device
        owner.register_buffer(name, value, persistent=target in saved)


def _function(network: nn.Module, graph: fx.Graph) -> Program:
    """The Python function that torch.fx writes for `graph`."""
    function: Program = type(fx.GraphModule(network, graph)).forward
    return function


def _on_a_copy(program: Program) -> Program:
    return lambda block, x: program(block, x.clone())
