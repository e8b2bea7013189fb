"""Random numbers from a key, independent of the process, the order and earlier draws.

Philox is a counter-based generator: its output is a function of a 128-bit key and a 256-bit
counter (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The key is
(seed, purpose), the upper three words of the counter say what the draw is for, such as (view, image,
epoch), and the lowest word counts the blocks of one draw, so that no two draws ever share a bit. Only the raw
stream of numpy's Philox is used, which numpy guarantees never to change.
"""

from __future__ import annotations

import threading
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """The purpose of a draw; draws for different purposes are independent."""

    ORDER = 1
    """The permutation of an epoch."""
    VIEW = 2
    """The parameters of one augmented view."""
    PIXEL_NOISE = 3
    """The noise on the pixels of one augmented view."""
    REPLACEMENT = 4
    """The replacement of an image that cannot be decoded."""


_local = threading.local()
_UNUSED_BITS = np.uint64(11)


def keyed_bits(seed: int, purpose: Purpose, counter: tuple[int, int, int], count: int) -> NDArray[np.uint64]:
    """`[count]` independent 64-bit words for the key (seed, purpose, *counter); all must be >= 0."""
    philox: np.random.Philox | None = getattr(_local, "philox", None)
    if philox is None:  # setting the state of one generator is four times faster than making another
        philox = _local.philox = np.random.Philox(key=0)
        _local.state = philox.state | {"buffer": [0, 0, 0, 0], "buffer_pos": 4, "has_uint32": 0}
    state = _local.state
    state["state"] = {"counter": (0, *counter), "key": (seed, int(purpose))}  # arrays would take twice as long to read
    philox.state = state
    return np.asarray(philox.random_raw(count))


def keyed_uniforms(seed: int, purpose: Purpose, counter: tuple[int, int, int], count: int) -> list[float]:
    """`count` numbers from [0, 1), with the 53 bits that a double holds, as `numpy.random.Generator` makes them."""
    bits = keyed_bits(seed, purpose, counter, count)
    uniforms: list[float] = ((bits >> _UNUSED_BITS) * 2.0**-53).tolist()
    return uniforms


def keyed_normals(seed: int, purpose: Purpose, counter: tuple[int, int, int], count: int) -> NDArray[np.float64]:
    """`[count]` numbers from the standard normal distribution; a larger `count` does not change the first ones.

    Box and Muller's transform (Annals of Mathematical Statistics 29, 1958) of uniforms with 53 bits,
    so that none is larger than 8.6.
    """
    pairs = -(-count // 2)
    uniforms = (keyed_bits(seed, purpose, counter, 2 * pairs) >> _UNUSED_BITS) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log1p(-uniforms[0::2]))  # of 1 - u, which is never 0
    angle = 2.0 * np.pi * uniforms[1::2]
    normals = np.empty(2 * pairs)
    normals[0::2], normals[1::2] = radius * np.cos(angle), radius * np.sin(angle)
    return normals[:count]
