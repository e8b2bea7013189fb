"""Blocks of any torch module, cut at named points, and the shapes between them.

A stage builds the whole network, keeps the part between its two cuts and lets the rest go: only then
are the weights those of the network uncut, whatever the order in which its constructor draws them.
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
from pipeline.config.model import Module
from pipeline.errors import ConfigError
from pipeline.plugins import first_line
from pipeline.randomness import seeded_initialisation

Program = Callable[[nn.Module, Tensor], Tensor]
"""What a graph computes; its first argument is the module that holds the state."""
PROBE_BATCH = 2
OTHER_SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 299, 384)
"""Pixels to try where a network refuses the images of the run, to say which it takes."""


@dataclass(frozen=True)
class BlockFacts:
    """What a pass with no data tells of a block.

    Args:
        output: for one image, `(C, H, W)` of a map or `(N, D)` of tokens.
        overwrites_input: the block begins with an operation in place.
    """

    output: tuple[int, ...]
    overwrites_input: bool


class TracedBlock(Block):
    """A part of a network: one tensor in, one out. It holds the modules and parameters of that part alone.

    The names in its state dict are those of the network, and so is what it computes, in training as in evaluation.

    Args:
        network: holds what the graphs name; modules are taken, not copied.
        training, evaluation: the part as it runs in either mode.
    """

    def __init__(self, network: nn.Module, training: fx.Graph, evaluation: fx.Graph) -> None:
        super().__init__()
        self._copies_input = False
        self._training_graph, self._joined = training, frozenset[int]()
        nodes = [*training.nodes, *evaluation.nodes]
        targets = {str(node.target) for node in nodes if node.op in ("call_module", "get_attr")}
        saved = network.state_dict().keys()
        for target in sorted(targets, key=lambda name: (name.count("."), name)):  # a module before its parts
            _attach(self, network, target, saved)
        self._programs = {True: _function(network, training), False: _function(network, evaluation)}

    def copy_input(self) -> None:
        """Keep the operations in place with which the part begins from writing into the caller's tensor."""
        self._copies_input = True

    def join(self, units: Collection[int]) -> None:
        """Make each of these units, counted from 0, one with the unit before it."""
        self._joined = frozenset(units)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, 3, S, S]`, or what the block before gave, to a map `[B, C, H, W]` or tokens `[B, N, D]`."""
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


def build_traced_block(model: Module, index: int, image_size: int, seed: int, in_units: bool = False) -> TracedBlock:
    """Block `index`, counted from 1, of the network with the weights of `seed`.

    Args:
        model, image_size: of the run.
        index, seed: of the block and its weights.
        in_units: whether units of it will be computed again.

    Raises:
        ConfigError: the network cannot be imported, built, traced or cut as asked for, or refuses the images.
    """
    facts = measure(model, image_size)[index - 1]
    block = _build_all(model, seed)[index - 1]
    if facts.overwrites_input:
        block.copy_input()
    if in_units:
        shape = measure(model, image_size)[index - 2].output if index > 1 else (3, image_size, image_size)
        block.join(_overwriting_units(deepcopy(block), shape))
    return block


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


def measure(model: Module, image_size: int) -> tuple[BlockFacts, ...]:
    """The facts of every block for images `[B, 3, image_size, image_size]`, from a pass on the meta device.

    A network that cannot run there, because it makes tensors or decisions of its own, runs on the CPU.

    Raises:
        ConfigError: as `build_traced_block`.
    """
    key = (repr(model), image_size)
    if key not in _measured:
        with seeded_initialisation("probe"):
            _measured[key] = tuple(_measure(model, image_size))
    return _measured[key]


_measured: dict[tuple[str, int], tuple[BlockFacts, ...]] = {}
"""Asked for at every link of a run, and the same every time."""


def _build_all(model: Module, seed: int) -> list[TracedBlock]:
    network = import_network(model, seed)
    training, evaluation = (cut_network(network, model, mode) for mode in (True, False))
    return [TracedBlock(network, *graphs).train() for graphs in zip(training, evaluation, strict=True)]


def _measure(model: Module, image_size: int) -> Iterator[BlockFacts]:
    shape: tuple[int, ...] = (3, image_size, image_size)
    blocks = _build_all(model, seed=0)
    for block, (path, name) in zip(blocks, points(model), strict=True):
        try:
            output, overwrites = _probe(block, shape)
        except Exception as error:
            raise _refusal(model, blocks, image_size, error) from None
        shape = _shape_of_one(output, path, name)
        yield BlockFacts(shape, overwrites)


def _probe(block: TracedBlock, shape: tuple[int, ...]) -> tuple[object, bool]:
    """What `block` makes of zeros of `shape`, a batch of them, and whether it wrote into them."""
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
        found = f"a {type(output).__name__}, not one tensor"
    elif not output.is_floating_point() or output.dim() not in (3, 4) or 0 in output.shape:
        found = f"{output.dtype} of shape {list(output.shape)} for {PROBE_BATCH} images".removeprefix("torch.")
    elif len(output) != PROBE_BATCH:
        found = f"a batch of {len(output)} for {PROBE_BATCH} images"
    else:
        return tuple(output.shape[1:])
    remedy = "Name a module that returns a map [B, C, H, W] or tokens [B, N, D] of floating-point numbers"
    raise ConfigError(path, f"'{name}' gives {found}", remedy)


def _refusal(model: Module, blocks: Sequence[TracedBlock], image_size: int, error: Exception) -> ConfigError:
    """Blame the size of the images if the network takes others, else the network."""
    problem = f"{model.backbone} fails on images of {image_size}x{image_size} pixels ({first_line(error)})"
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
    """Give `block` what `network` has under the qualified name `target`, under that same name."""
    path, _, name = target.rpartition(".")
    owner = block
    for part in path.split(".") if path else ():
        if part not in owner._modules:
            owner.add_module(part, nn.Module())
        owner = owner.get_submodule(part)
    if hasattr(owner, name):  # with the module that it is a part of
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
