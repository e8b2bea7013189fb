"""A bit of a stage's memory that is flipped on purpose (`faults`): where in a step that may happen, and which bit.

    weight      a parameter or a buffer, before the step's forward pass
    message     what the stage was sent, before it is read
    gradient    of a parameter, before it is clipped and the optimizer takes it
    optimizer   a tensor of its state, before the same

A stage shows each of them to its `exposed` at that moment, in every runtime, so that one bit is the same bit in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from pipeline.randomness import generator
from pipeline.stage.fold import INTEGERS

Flippable = Literal["weight", "message", "gradient", "optimizer"]
Exposed = Callable[[Flippable, int, Callable[[], Mapping[str, Tensor]]], None]
"""Is called with what is in memory, the step, and a function that gives its tensors by name."""


def untouched(what: Flippable, step: int, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
    """Leaves it as it is."""


def flip_bit(tensors: Mapping[str, Tensor], draw: int) -> str:
    """Flip one bit: of one tensor, all being as likely, one element, and of that one bit.

    Args:
        tensors: by name, on any device; there must be an element. Autograd does not notice the change.
        draw: seed of the choice.

    Returns:
        Which bit it was, in words.
    """
    source = generator(torch.device("cpu"), "flip", draw)

    def drawn(count: int) -> int:
        return int(torch.randint(count, (), generator=source))

    names = [name for name, tensor in tensors.items() if tensor.numel()]
    name = names[drawn(len(names))]
    words = tensors[name].data
    words = words.view(INTEGERS[words.element_size()])
    place, bits = drawn(words.numel()), 8 * words.element_size()
    bit, index = drawn(bits), tuple(int(i) for i in torch.unravel_index(torch.tensor(place), words.shape))
    # A number of one bit alone; the highest is the sign of an integer.
    mask = -(1 << bit) if bit == bits - 1 and words.dtype.is_signed else 1 << bit
    words[index] = words[index] ^ mask
    return f"bit {bit} of element {list(index)} of '{name}'"
