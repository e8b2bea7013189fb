"""The cores that this process may use: its affinity, and the quota of its control groups. Does not import torch."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup")


def allowed_cores() -> set[int]:
    """The numbers of the cores that this process may run on; empty where the system has no affinity."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def core_count() -> int:
    """The number of cores that this process may run on."""
    return len(allowed_cores()) or os.cpu_count() or 1


def usable_cores() -> int:
    """Whole cores that this process may use at a time, at least 1: `core_count` within the control groups' quota."""
    quota = cpu_quota()
    return core_count() if quota is None else max(min(core_count(), int(quota)), 1)


def cpu_quota() -> float | None:
    """Cores that the control groups of this process grant at a time; None without a quota (version 2)."""
    quotas = []
    for text in of_control_groups("cpu.max"):
        quota, _, period = text.partition(" ")
        if quota != "max":
            quotas.append(int(quota) / int(period or 100_000))
    return min(quotas, default=None)


def of_control_groups(name: str) -> list[str]:
    """The content of a file of this process's control group and of each above it, where it is there."""
    lines = []
    with suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    group, found = CONTROL_GROUP / own, []
    for folder in (group, *group.parents):
        with suppress(OSError):
            found.append((folder / name).read_text().strip())
        if folder == CONTROL_GROUP:
            break
    return found
