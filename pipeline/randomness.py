"""Random numbers keyed by what they are for, never by which process draws them or when.

Two runs that cut, place or connect the network differently must draw the same numbers, so every
generator is seeded from a key such as (seed, step, stage, view). Nothing reads global state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed that depends on every part of `key` and on nothing else."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(device: torch.device, *key: int | str) -> torch.Generator:
    """A fresh generator on `device`, seeded from `key`."""
    return torch.Generator(device).manual_seed(derive_seed(*key))


@contextmanager
def seeded_forward(device: torch.device, *key: int | str) -> Iterator[None]:
    """Dropout and its like draw from the device's global generator; lend them a keyed one and put it back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(*key))
        yield


@contextmanager
def seeded_initialisation(*key: int | str) -> Iterator[None]:
    """Module constructors draw from torch's global generator; lend them a keyed one and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(*key))
        yield
