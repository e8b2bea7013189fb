"""Random numbers seeded by a key that says what they are for, never by process or time.

Two runs that cut, place or connect the network differently must draw the same numbers, so every
generator is seeded from a key such as (seed, step, stage, view). Nothing reads global random state.
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
    """Seed the device's global generator, which dropout draws from, with `key`; restore its state at the end."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(*key))
        yield


@contextmanager
def seeded_initialisation(*key: int | str) -> Iterator[None]:
    """Seed torch's global generator, which module constructors draw from, with `key`; restore its state at the end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(*key))
        yield
