"""How much memory is available, checked before a large allocation, which might get the process killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data.sets.files import FileImages, file_sizes
from pipeline.errors import ConfigError

MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
CGROUP = Path("/sys/fs/cgroup")
NO_LIMIT = 2**60
"""Bytes: the first version of control groups writes a number above this where there is none."""
_FILES = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}
"""File names of a group's limit and usage, for version 2 of control groups and for version 1, by their folder."""


def available_bytes() -> int | None:
    """Memory that can be allocated without swapping and within the control groups' limits; None where it is unknown."""
    return min(memory_limits().values(), default=None)


def memory_limits() -> dict[str, int]:
    """What bounds the memory that can be allocated, in bytes by name: `MemAvailable`; `cgroup` where it has a limit."""
    on_host, groups = _available_on_host(), [left for left in bytes_left_in_cgroups() if left < NO_LIMIT]
    limits = {} if on_host is None else {"MemAvailable": on_host}
    return {**limits, "cgroup": min(groups)} if groups else limits


def check_memory(images: Any) -> None:
    """Check that all files of a data set fit into memory; data sets that are arrays are in memory already.

    Raises:
        ConfigError: they do not fit.
        UserError: a file is gone.
    """
    if not isinstance(images, FileImages):
        return
    need, have = int(file_sizes(images.files).sum()), available_bytes()
    if have is not None and need > have:
        raise ConfigError(
            "data.in_memory",
            f"the files take {need / 1e9:.1f} GB, and {have / 1e9:.1f} GB of memory are available",
            "Set data.in_memory=false; what fits is kept in memory by the system anyway",
        )


def _available_on_host() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def bytes_left_in_cgroups() -> Iterator[int]:
    """Bytes that this process's control group, and each group above it, may still allocate, where there is a limit."""
    for version, path in _groups():
        limit_name, used_name = _FILES[version]
        for folder in (path, *path.parents):
            group = CGROUP / version / folder.relative_to("/")
            try:
                limit, used = (group / limit_name).read_text().strip(), int((group / used_name).read_text())
                if limit != "max":  # without one the first version has a number larger than any machine
                    yield max(int(limit) - used + _cached(group), 0)
            except (OSError, ValueError):
                continue


def _cached(group: Path) -> int:
    """Bytes of the page cache, which count as used although the kernel frees them on demand."""
    try:
        lines = [line.split() for line in (group / "memory.stat").read_text().splitlines()]
    except OSError:
        return 0
    statistics = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
    return sum(statistics.get(f"total_{name}", statistics.get(name, 0)) for name in ("active_file", "inactive_file"))


def _groups() -> Iterator[tuple[str, PurePosixPath]]:
    """Version ("" the second, "memory" the first) and path of the groups; a container may show its own as the root."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        lines = []
    groups = {("", PurePosixPath("/")), ("memory", PurePosixPath("/"))}
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        pure = PurePosixPath(path)
        if pure.is_absolute() and ".." not in pure.parts:
            if number == "0" and not controllers:
                groups.add(("", pure))
            elif "memory" in controllers.split(","):
                groups.add(("memory", pure))
    yield from sorted(groups)
