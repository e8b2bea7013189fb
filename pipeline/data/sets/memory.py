"""How much memory there is, before much of it is taken: what does not fit would end in a killed process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data.sets.files import FileImages, file_sizes
from pipeline.errors import ConfigError

MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
CGROUP = Path("/sys/fs/cgroup")
_FILES = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}
"""Limit and use of a group, in the second version of control groups and in the first, by the folder they lie in."""


def available_bytes() -> int | None:
    """Memory that can be had without swapping, also by the limits of the control groups; None where nobody tells."""
    found = [limit for limit in (_of_the_machine(), *left_to_groups()) if limit is not None]
    return min(found) if found else None


def check_memory(images: Any) -> None:
    """Whether all files of a data set fit into memory; data sets that are no files are there already.

    Raises:
        ConfigError: they do not.
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


def _of_the_machine() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def left_to_groups() -> Iterator[int]:
    """Bytes that this process's control group and each of those above it may still take, where they have a limit."""
    for version, path in _groups():
        limit_name, used_name = _FILES[version]
        for folder in (path, *path.parents):
            where = CGROUP / version / folder.relative_to("/")
            try:
                limit, used = (where / limit_name).read_text().strip(), int((where / used_name).read_text())
                if limit != "max":  # without one the first version has a number larger than any machine
                    yield max(int(limit) - used + _cached(where), 0)
            except (OSError, ValueError):
                continue


def _cached(group: Path) -> int:
    """Bytes of files that are kept in memory only as long as nobody wants it; they count as used."""
    try:
        lines = [line.split() for line in (group / "memory.stat").read_text().splitlines()]
    except OSError:
        return 0
    found = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
    return sum(found.get(f"total_{name}", found.get(name, 0)) for name in ("active_file", "inactive_file"))


def _groups() -> Iterator[tuple[str, PurePosixPath]]:
    """Version ("" the second, "memory" the first) and path of the groups; a container may show its own as the root."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        lines = []
    found = {("", PurePosixPath("/")), ("memory", PurePosixPath("/"))}
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        pure = PurePosixPath(path)
        if pure.is_absolute() and ".." not in pure.parts:
            if number == "0" and not controllers:
                found.add(("", pure))
            elif "memory" in controllers.split(","):
                found.add(("memory", pure))
    yield from sorted(found)
