"""How much memory there is, before a data set is read into it: what does not fit would end in a killed process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.data.files import FileImages, file_sizes
from pipeline.errors import ConfigError

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Memory that can be had without swapping, also by the limit of the control group; None where nobody tells."""
    found = [limit for limit in (_of_the_machine(), _of_the_group()) if limit is not None]
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


def _of_the_group() -> int | None:
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(int(limit) - used, 0)
