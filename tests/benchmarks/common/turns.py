"""Times of several ways to compute the same, taken in turn, and their ratios within a round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

import torch
from common.runs import machine

Way = TypeVar("Way")


def in_turn(ways: Sequence[Way], rounds: int, seconds: Callable[[Way], float]) -> dict[Way, list[float]]:
    """What `seconds` gives for every way in every round; the order changes from round to round.

    Args:
        ways: that are compared.
        rounds: that count; one more comes first, in which libraries load and choose.
        seconds: takes a turn and times it.
    """
    found: dict[Way, list[float]] = {way: [] for way in ways}
    for number in range(-1, rounds):
        shift = number % len(ways)
        for way in (*ways[shift:], *ways[:shift]):
            took = seconds(way)
            if number >= 0:
                found[way].append(took)
    return found


def lines_of(found: Mapping[Way, Sequence[float]], base: Way, name: Callable[[Way], str], than: str) -> list[str]:
    """A line for each way: the median, and its ratio to `base`: median, smallest and largest of all rounds."""
    lines = []
    for way, values in found.items():
        ratios = [own / other for own, other in zip(values, found[base], strict=True)]
        spread = f"[{min(ratios):.4f}, {max(ratios):.4f}]"
        lines.append(f"{name(way)} {1000 * median(values):9.2f} ms  {median(ratios):.4f} times {than} {spread}")
    return lines


def now(device: torch.device) -> float:
    """Seconds: of the processor on a CPU, which others disturb less; of the clock on a GPU, which is waited for."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def computes_on(device: torch.device) -> str:
    """The machine, or its GPU."""
    return machine() if device.type == "cpu" else torch.cuda.get_device_name(device)
